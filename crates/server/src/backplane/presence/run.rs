//! The thread of the exchange: carries messages between the exchange, NATS and the shards. It never waits for
//! any of them, so a node that is busy beats all the same.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use murre_router::channels::owner;
use murre_router::presence::{PresenceBackplane, PresencePage, PresenceQuery};
use murre_router::{Shard, Ticket};

use super::counts::Counts;
use super::exchange::{Asker, Clocks, Exchange, Out, Subject, ToShard, Whereabouts};
use super::finds::FoundHere;
use super::shard::{Command, ShardPresence};
use super::wire::Incarnation;
use tokio::sync::oneshot;

use crate::backplane::nats::{Nats, Post, SubscriptionId};
use crate::hub::HubMail;

/// The exchange, for other threads.
pub(crate) struct OtherNodes {
    commands: Sender<Command>,
    counts: Arc<Counts>,
}

/// What the thread runs.
pub(crate) struct Runner {
    nats: Arc<Nats>,
    commands: Receiver<Command>,
    inbox: Arc<Inbox>,
    counts: Arc<Counts>,
}

/// Where the thread of NATS leaves messages.
struct Inbox {
    commands: Sender<Command>,
    /// Bytes that wait.
    bytes: AtomicUsize,
    /// Whether a message was dropped, because too much waited.
    has_dropped: AtomicBool,
}

/// Bytes of messages that wait at most, and what each takes besides its payload.
const INBOX_BYTES_MAX: usize = 64 << 20;
const EACH: usize = 128;
/// Commands that are handled before time is looked at.
const COMMANDS: usize = 1000;
/// Events of one mail to a shard.
const MAIL_EVENTS: usize = 256;
/// Events that wait for a shard before further ones are dropped and asked for later.
const WAITING_MAX: usize = 16_384;
/// The pause before a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(5);

impl OtherNodes {
    /// The exchange of this node, and what its thread runs.
    pub(crate) fn new(nats: &Arc<Nats>) -> (Arc<OtherNodes>, Runner) {
        let (sender, commands) = channel();
        let counts = Arc::<Counts>::default();
        let (bytes, has_dropped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let inbox = Arc::new(Inbox { commands: sender.clone(), bytes, has_dropped });
        let nodes = OtherNodes { commands: sender, counts: Arc::clone(&counts) };
        (Arc::new(nodes), Runner { nats: Arc::clone(nats), commands, inbox, counts })
    }

    /// The backplane of the presence of a shard.
    pub(crate) fn of_shard(&self, shard: Shard) -> Box<dyn PresenceBackplane + Send> {
        Box::new(ShardPresence { shard, exchange: self.commands.clone() })
    }

    /// Reads a page of the members of all nodes for a command of a shard, which gets it by mail.
    pub(crate) fn read(&self, shard: Shard, ticket: Ticket, channel: &str, query: PresenceQuery) {
        self.send(Command::Read(Asker::Shard(shard, ticket), channel.into(), query));
    }

    /// Reads a page of the members of all nodes.
    pub(crate) fn read_for_api(
        &self,
        channel: &str,
        query: PresenceQuery,
    ) -> oneshot::Receiver<PresencePage> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Read(Asker::Api(answer), channel.into(), query));
        answered
    }

    /// Looks for the connections of a user on all nodes.
    pub(crate) fn find(&self, user: &str) -> oneshot::Receiver<Whereabouts> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Find(answer, user.into()));
        answered
    }

    /// Answers a node with the connections that a shard of this one has found.
    pub(crate) fn found(&self, to: Incarnation, id: u64, found: FoundHere) {
        self.send(Command::Found { to, id, found });
    }

    /// Answers a node with a page of the members of this one.
    pub(crate) fn answer(&self, to: Incarnation, id: u64, page: PresencePage) {
        self.send(Command::Page { to, id, page });
    }

    fn send(&self, command: Command) {
        // The process ends when the thread has.
        let _ = self.commands.send(command);
    }

    /// The counts of the exchange.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tells other nodes that this one ends, and waits for NATS to pass it on, for `patience` at most.
    pub(crate) fn end(&self, patience: Duration) {
        let (sender, ended) = channel();
        self.send(Command::End(sender));
        // In vain: the others notice it themselves some seconds later.
        let _ = ended.recv_timeout(patience);
    }
}

impl Inbox {
    fn put(&self, channel: Option<&Arc<str>>, payload: &[u8]) {
        let bytes = payload.len().saturating_add(EACH);
        if self.bytes.fetch_add(bytes, Relaxed) > INBOX_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Relaxed);
            self.has_dropped.store(true, Relaxed);
            return;
        }
        // The process ends when the thread has.
        let _ = self.commands.send(Command::Heard(channel.cloned(), payload.to_vec()));
    }
}

impl Runner {
    /// Runs until the other nodes know that this one ends, or the process does.
    ///
    /// `seed` is that of the hash of channels' names.
    pub(crate) fn run(self, shards: Shard, seed: u64, post: Post) {
        let Runner { nats, commands, inbox, counts } = self;
        let node = nats.node().clone();
        let owner = Box::new(move |channel: &str| owner(channel, shards, seed));
        let name = node.name.to_string().into();
        let exchange = Exchange::new(node.incarnation, name, shards, owner, counts);
        let mut running = Running {
            began: Instant::now(),
            exchange,
            subscriptions: HashMap::new(),
            waiting: (0..shards).map(|_| VecDeque::new()).collect(),
            dropped: 0,
            ending: None,
            nats,
            inbox,
            post,
        };
        running.subscribe();
        loop {
            match commands.recv_timeout(running.pause()) {
                Ok(command) => running.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..COMMANDS {
                let Ok(command) = commands.try_recv() else { break };
                running.take(command);
            }
            if running.turn() {
                return;
            }
        }
    }
}

/// The state of the thread.
struct Running {
    began: Instant,
    exchange: Exchange,
    nats: Arc<Nats>,
    inbox: Arc<Inbox>,
    post: Post,
    /// The channels whose subjects this node hears.
    subscriptions: HashMap<Arc<str>, SubscriptionId>,
    /// By shard: events that wait for its mailbox.
    waiting: Vec<VecDeque<ToShard>>,
    /// Messages that the link had dropped when it was looked at last.
    dropped: u64,
    ending: Option<Sender<()>>,
}

impl Running {
    /// Has the messages to the subjects of nodes handled.
    fn subscribe(&self) {
        for subject in [Subject::Nodes, Subject::Node(self.nats.node().incarnation)] {
            let inbox = Arc::clone(&self.inbox);
            let handle = move |_: &str, payload: &[u8]| inbox.put(None, payload);
            self.nats.subscribe(&self.subject(&subject), Box::new(handle));
        }
        let commands = self.inbox.commands.clone();
        self.nats.on_connected(Box::new(move || _ = commands.send(Command::Connected)));
    }

    fn subject(&self, subject: &Subject) -> String {
        self.nats.subject(&end_of(subject))
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn pause(&self) -> Duration {
        match self.waiting.iter().all(VecDeque::is_empty) {
            true => Duration::from_millis(self.exchange.pause()),
            false => RETRY,
        }
    }

    fn take(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::FromShard(shard, channel, what) => {
                self.exchange.hear_shard(shard, channel, what, now);
            }
            Command::Heard(channel, bytes) => {
                let taken = bytes.len().saturating_add(EACH);
                self.inbox.bytes.fetch_sub(taken, Relaxed);
                self.exchange.hear(channel.as_ref(), &bytes, now);
            }
            Command::Read(asker, channel, query) => self.exchange.read(asker, channel, query, now),
            Command::Find(asker, user) => self.exchange.find(asker, &user, now),
            Command::Found { to, id, found } => self.exchange.hear_found(to, id, found),
            Command::Page { to, id, page } => self.exchange.hear_page(to, id, page),
            Command::Connected => self.exchange.lost(now),
            Command::End(ended) => {
                self.exchange.end();
                self.ending = Some(ended);
            }
        }
    }

    /// Does what is due. Returns whether others know that this node ends.
    fn turn(&mut self) -> bool {
        let now = self.now();
        if self.inbox.has_dropped.swap(false, Relaxed) {
            self.exchange.lost(now);
        }
        let dropped = self.nats.counts().dropped.load(Relaxed);
        if std::mem::replace(&mut self.dropped, dropped) != dropped {
            self.exchange.lost_outgoing();
        }
        if self.ending.is_none() {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.exchange.tick(Clocks { steady: now, wall: wall.as_millis() as u64 });
        }
        if self.exchange.may_miss() {
            self.nats.doubt();
        }
        for out in self.exchange.take_out() {
            match out {
                Out::Publish(subject, bytes) => {
                    _ = self.nats.publish(&self.subject(&subject), bytes)
                }
                Out::Subscribe(channel) => {
                    let (inbox, of) = (Arc::clone(&self.inbox), Arc::clone(&channel));
                    let handle = move |_: &str, payload: &[u8]| inbox.put(Some(&of), payload);
                    let subject = self.subject(&Subject::Channel(Arc::clone(&channel)));
                    let subscription = self.nats.subscribe(&subject, Box::new(handle));
                    self.subscriptions.insert(channel, subscription);
                }
                Out::Unsubscribe(channel) => {
                    if let Some(subscription) = self.subscriptions.remove(&channel) {
                        self.nats.unsubscribe(subscription);
                    }
                }
                Out::Shard(shard, what) => self.wait_for_shard(usize::from(shard), what, now),
            }
        }
        (0..self.waiting.len()).for_each(|shard| self.post(shard));
        self.ending.is_some() && self.exchange.has_ended()
    }

    fn wait_for_shard(&mut self, shard: usize, what: ToShard, now: u64) {
        if self.waiting[shard].len() >= WAITING_MAX && !what.is_needed() {
            return self.exchange.undelivered(&what, now);
        }
        self.waiting[shard].push_back(what);
    }

    /// Posts what waits for a shard, as far as its mailbox takes it.
    fn post(&mut self, shard: usize) {
        let waiting = &mut self.waiting[shard];
        while !waiting.is_empty() {
            let end = waiting.len().min(MAIL_EVENTS);
            let mail = HubMail::FromNodes(waiting.drain(..end).collect());
            match (self.post)(shard, mail) {
                Ok(()) => {}
                Err(HubMail::FromNodes(events)) => {
                    return events.into_iter().rev().for_each(|event| waiting.push_front(event));
                }
                Err(_) => unreachable!("a full mailbox returns the mail that was posted"),
            }
        }
        waiting.shrink_to(MAIL_EVENTS);
    }
}

/// The end of a subject's name. A channel's name is in base64url, as a token may have few characters.
fn end_of(subject: &Subject) -> String {
    match subject {
        Subject::Nodes => "nodes".into(),
        Subject::Node(incarnation) => node_subject(*incarnation),
        Subject::Channel(channel) => format!("m.{}", URL_SAFE_NO_PAD.encode(&**channel)),
    }
}

fn node_subject(incarnation: Incarnation) -> String {
    format!("node.{incarnation:016x}")
}
