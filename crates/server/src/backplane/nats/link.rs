//! The link to NATS: one connection at a time, which is replaced when it breaks.
//!
//! It runs on a thread of its own. Other threads reach it through the [`Nats`](super::Nats) handle; tasks on
//! its thread send requests through [`Requests`]. Subscriptions are made again on each new connection. What
//! others publish while there is no connection is dropped and counted.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::str;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::connection::{Failure, Info, info};
use super::wire::{self, Message, NotNats, Op};
use super::{Command, ConnectedHandler, MessageHandler, Shared};

/// The link, and what is known of its subscriptions.
pub(super) struct Link {
    shared: Arc<Shared>,
    /// What the connection has yet to take.
    out: BytesMut,
    is_up: bool,
    info: Info,
    /// Whether a NATS server has joined or left the cluster of ours since the caller has asked.
    has_moved: bool,
    handlers: HashMap<u64, Handler>,
    on_connected: Vec<ConnectedHandler>,
    inbox: Inbox,
    /// Pings that were sent on this connection, and pongs that have come.
    pings: u64,
    pongs: u64,
    /// Subscriptions that have begun or ended since the last ping.
    changes: u32,
    heard: Instant,
    pinged: Instant,
    /// The number of the ping that was sent at `pinged`, until its pong has come.
    proof: Option<u64>,
    /// All that a connection had sent to us by this time has come.
    proved: Instant,
}

/// A subscription of another part of the server.
struct Handler {
    subject: Box<str>,
    handle: MessageHandler,
}

/// Requests that wait for their replies, by the number at the end of their reply subjects.
struct Inbox {
    /// The subject of all replies, without the number.
    prefix: String,
    subscription: u64,
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    replies: UnboundedSender<Message>,
    deadline: Instant,
}

/// Sends requests from tasks on the link's thread.
#[derive(Clone)]
pub(super) struct Requests(UnboundedSender<Request>);

/// A request of such a task.
pub(super) struct Request {
    subject: String,
    payload: Vec<u8>,
    patience: Duration,
    replies: UnboundedSender<Message>,
}

/// Why a request has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoReply {
    /// Nobody has a subscription to the subject.
    NoResponders,
    /// NATS is away, or slow.
    Late,
}

/// Bytes that wait for the connection at most, apart from subscriptions.
const OUT_BYTES_MAX: usize = 64 << 20;
/// Pings are so far apart at least, and after three times this silence the connection counts as broken.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCES_MAX: u32 = 3;
/// Subscriptions that begin or end between two pings at most: the server is silent while it works on them, and must not
/// look dead.
const CHANGES_PER_PING: u32 = 8192;

impl Requests {
    /// The first reply to a request.
    ///
    /// # Errors
    /// See [`NoReply`].
    pub(super) async fn ask(
        &self,
        subject: String,
        payload: Vec<u8>,
        patience: Duration,
    ) -> Result<Message, NoReply> {
        let mut replies = self.send(subject, payload, patience);
        match timeout(patience, replies.recv()).await {
            Ok(Some(reply)) if reply.status() == Some(503) => Err(NoReply::NoResponders),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) | Err(_) => Err(NoReply::Late),
        }
    }

    /// Sends a request that may get several replies. They end after `patience`.
    pub(super) fn send(
        &self,
        subject: String,
        payload: Vec<u8>,
        patience: Duration,
    ) -> UnboundedReceiver<Message> {
        let (replies, receiver) = unbounded_channel();
        // Without the link there are no replies.
        let _ = self.0.send(Request { subject, payload, patience, replies });
        receiver
    }
}

impl Link {
    /// A link without a connection, and what sends requests through it.
    pub(super) fn new(shared: Arc<Shared>) -> (Self, Requests, UnboundedReceiver<Request>) {
        let (sender, requests) = unbounded_channel();
        let inbox = Inbox {
            prefix: format!("_INBOX.{:016x}.", shared.node.incarnation),
            subscription: shared.number(),
            next: 0,
            waiting: HashMap::new(),
        };
        let now = Instant::now();
        let link = Link {
            shared,
            out: BytesMut::new(),
            is_up: false,
            info: Info::default(),
            has_moved: false,
            handlers: HashMap::new(),
            on_connected: Vec::new(),
            inbox,
            pings: 0,
            pongs: 0,
            changes: 0,
            heard: now,
            pinged: now,
            proof: None,
            proved: now,
        };
        (link, Requests(sender), requests)
    }

    /// Does what another thread wants.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Publish { subject, payload } => {
                self.shared.waiting.release(payload.len());
                let fits = payload.len() as u64 <= self.max_payload();
                if fits && self.takes(payload.len()) {
                    self.publish(&subject, None, None, &payload);
                } else {
                    self.shared.counts.dropped.fetch_add(1, Relaxed);
                }
            }
            Command::Subscribe { number, subject, handle } => {
                self.subscribe(&subject, None, number);
                self.handlers.insert(number, Handler { subject, handle });
            }
            Command::Unsubscribe { number } => {
                if self.handlers.remove(&number).is_some() {
                    self.unsubscribe(number);
                }
            }
            Command::Channel(_) | Command::Service(_) => unreachable!("others take it"),
            Command::OnConnected(handle) => {
                if self.is_up {
                    handle();
                }
                self.on_connected.push(handle);
            }
        }
    }

    /// Sends a request of a task on this thread. Without a connection it gets no reply, at once.
    pub(super) fn request(&mut self, request: Request, now: Instant) {
        if !self.is_up {
            return;
        }
        let Request { subject, payload, patience, replies } = request;
        let Some(deadline) = now.checked_add(patience) else { return };
        let (number, reply) = self.inbox.number();
        self.inbox.waiting.insert(number, Waiting { replies, deadline });
        self.publish(&subject, Some(&reply), None, &payload);
    }

    /// Bytes of a message that the server takes at most: for a longer one it would close the connection.
    pub(super) fn max_payload(&self) -> u64 {
        self.info.max_payload
    }

    /// Whether a publication of so many bytes finds room.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        self.is_up && self.out.len().saturating_add(bytes) <= OUT_BYTES_MAX
    }

    /// Publishes, if there is a connection.
    pub(super) fn publish(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        id: Option<&str>,
        payload: &[u8],
    ) {
        if self.is_up {
            wire::publish(&mut self.out, subject, reply, id, payload);
        }
    }

    /// Subscribes under this number, if there is a connection.
    pub(super) fn subscribe(&mut self, subject: &str, queue: Option<&str>, number: u64) {
        if self.is_up {
            wire::subscribe(&mut self.out, subject, queue, number);
            self.changed();
        }
    }

    /// Ends a subscription, if there is a connection.
    pub(super) fn unsubscribe(&mut self, number: u64) {
        if self.is_up {
            wire::unsubscribe(&mut self.out, number);
            self.changed();
        }
    }

    fn changed(&mut self) {
        self.changes = self.changes.saturating_add(1);
        if self.changes >= CHANGES_PER_PING {
            self.ping();
        }
    }

    /// Begins with a new connection.
    pub(super) fn connected(&mut self, info: Info, now: Instant) {
        self.is_up = true;
        self.info = info;
        (self.pings, self.pongs, self.heard) = (0, 0, now);
        self.out.clear();
        let inbox = format!("{}*", self.inbox.prefix);
        wire::subscribe(&mut self.out, &inbox, None, self.inbox.subscription);
        for (&number, handler) in &self.handlers {
            wire::subscribe(&mut self.out, &handler.subject, None, number);
        }
        self.prove(now);
        self.shared.joined.store(true, Relaxed);
        self.shared.counts.up.store(true, Relaxed);
        self.on_connected.iter().for_each(|handle| handle());
    }

    /// The connection is broken.
    pub(super) fn disconnected(&mut self) {
        self.is_up = false;
        // Their replies do not come any more.
        self.inbox.waiting.clear();
        self.out = BytesMut::new();
        self.shared.counts.up.store(false, Relaxed);
    }

    /// What is to be sent.
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// The server has sent something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Takes what the server has sent. A message that is for none of the handlers is passed to `other`.
    ///
    /// # Errors
    /// Why the connection cannot be used any longer.
    pub(super) fn take(
        &mut self,
        input: &mut BytesMut,
        mut other: impl FnMut(&mut Self, Message),
    ) -> Result<(), String> {
        while let Some(op) = wire::take(input).map_err(|NotNats(why)| why.to_owned())? {
            match op {
                Op::Message(message) => {
                    self.shared.counts.received.fetch_add(1, Relaxed);
                    if let Some(handler) = self.handlers.get(&message.subscription) {
                        let subject = str::from_utf8(&message.subject).unwrap_or_default();
                        (handler.handle)(subject, &message.payload);
                    } else if message.subscription == self.inbox.subscription {
                        self.reply(message, &mut other);
                    } else {
                        other(self, message);
                    }
                }
                Op::Ping => self.out.extend_from_slice(b"PONG\r\n"),
                Op::Pong => {
                    self.pongs = self.pongs.saturating_add(1);
                    if self.proof.take_if(|number| *number <= self.pongs).is_some() {
                        self.proved = self.pinged;
                    }
                }
                Op::Info(json) => match info(&json) {
                    Ok(info) => {
                        self.has_moved |= info.connect_urls != self.info.connect_urls;
                        self.info = info;
                    }
                    Err(Failure::Away(why) | Failure::Refused(why)) => return Err(why),
                },
                Op::Error(why) => {
                    // Of these the server says nothing else, and goes on.
                    if why.starts_with("Permissions Violation") {
                        tracing::error!(
                            why,
                            "NATS forbids this node a subject: allow it to the user"
                        );
                        continue;
                    }
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    fn reply(&mut self, message: Message, other: &mut impl FnMut(&mut Self, Message)) {
        let number = message.subject.get(self.inbox.prefix.len()..);
        let number = number.and_then(|number| str::from_utf8(number).ok()?.parse::<u64>().ok());
        match number.and_then(|number| self.inbox.waiting.get(&number)) {
            Some(waiting) => _ = waiting.replies.send(message),
            None => other(self, message),
        }
    }

    /// The end of the subject of a message to the inbox that is no reply to a request; `None` for other messages.
    pub(super) fn reply_end(&self, message: &Message) -> Option<String> {
        let is_reply = message.subscription == self.inbox.subscription;
        let end = message.subject.get(self.inbox.prefix.len()..).filter(|_| is_reply)?;
        Some(String::from_utf8_lossy(end).into_owned())
    }

    /// The subject for replies with this end.
    pub(super) fn reply_subject(&self, end: fmt::Arguments<'_>) -> String {
        format!("{}{end}", self.inbox.prefix)
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Pongs that have come on this connection.
    pub(super) fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Whether the server is one of several.
    pub(super) fn is_in_cluster(&self) -> bool {
        !self.info.cluster.is_empty()
    }

    /// Whether a server has joined or left the cluster of ours since the last call: what others have sent may be lost
    /// between the servers.
    pub(super) fn has_moved(&mut self) -> bool {
        mem::take(&mut self.has_moved)
    }

    /// Sends pings, and forgets requests whose time is over. The server may be silent while it is not read.
    ///
    /// # Errors
    /// The server has been silent for too long.
    pub(super) fn tick(&mut self, now: Instant, is_read: bool) -> Result<(), String> {
        self.inbox
            .waiting
            .retain(|_, waiting| waiting.deadline > now && !waiting.replies.is_closed());
        if !self.is_up {
            return Ok(());
        }
        if !is_read {
            self.heard = now;
        }
        let silence = now.saturating_duration_since(self.heard);
        if silence >= SILENCE.saturating_mul(SILENCES_MAX) {
            return Err(format!("the server has been silent for {} s", silence.as_secs()));
        }
        if self.proof.is_none() && now.saturating_duration_since(self.pinged) >= SILENCE {
            self.prove(now);
        }
        Ok(())
    }

    /// Sends a ping, whose pong proves that nothing is missing until now.
    fn prove(&mut self, now: Instant) {
        self.pinged = now;
        self.proof = Some(self.ping());
    }

    /// All that the server has sent to us until then has come, on this connection or the last one.
    pub(super) fn proved(&self) -> Instant {
        self.proved
    }

    /// Asks the server to answer when it has done all that was sent before. Returns the number of pongs by then.
    pub(super) fn ping(&mut self) -> u64 {
        self.changes = 0;
        self.out.extend_from_slice(b"PING\r\n");
        self.pings = self.pings.saturating_add(1);
        self.pings
    }
}

impl Inbox {
    /// A new number, and the subject of its replies.
    fn number(&mut self) -> (u64, String) {
        let number = self.next;
        self.next = number.saturating_add(1);
        (number, format!("{}{number}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::backplane::nats::counts::{Counts, WaitingBytes};
    use crate::backplane::nats::{NodeId, Token};

    /// Shows that the server is asked for a sign of life often while it works on many subscriptions, and not more
    /// often than that.
    #[test]
    fn many_subscriptions_have_pings_between_them() {
        let token = |text: &str| text.parse::<Token>().expect("a token");
        let (mut link, ..) = Link::new(Arc::new(Shared {
            cluster: token("c"),
            node: NodeId { name: token("n"), incarnation: 7 },
            counts: Counts::default(),
            joined: AtomicBool::new(false),
            waiting: WaitingBytes::default(),
            next: AtomicU64::new(1),
        }));
        link.connected(Info::default(), Instant::now());
        for number in 0..10 * u64::from(CHANGES_PER_PING) {
            link.subscribe("a", None, number);
            link.unsubscribe(number);
        }
        let out = String::from_utf8(link.out().to_vec()).expect("text");
        let pings: Vec<_> = out.split("PING\r\n").map(|part| part.lines().count()).collect();
        // With that of the connection.
        assert_eq!((pings.len(), link.pings), (22, 21), "{pings:?}");
        let most = usize::try_from(CHANGES_PER_PING).expect("few") + 1;
        assert!(pings.iter().all(|&changes| changes <= most), "{pings:?}");
    }
}
