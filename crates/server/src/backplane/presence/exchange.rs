//! What this node tells others of its members, and makes of what they tell: the logic, without a clock, threads
//! or a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot::Sender;

use murre_router::channels::{Interest, Origin};
use murre_router::presence::{HERE, Node, PresencePage, PresenceQuery, RemoteEvent};
use murre_router::{Shard, Ticket};

use super::counts::Counts;
use super::finds::{Finds, Found, FoundHere};
use super::nodes::{BEAT_MS, Beat, LEASE_MS, Nodes};
use super::reads::{Question, Reads, Ready};
use super::told::{Answer, Telling, Told};
use super::watched::{Heard, Watched};
use super::wire::{Body, Incarnation, Message, Statement};

/// The exchange of one start of a node.
pub(crate) struct Exchange {
    incarnation: Incarnation,
    name: Box<str>,
    shards: Shard,
    session: u64,
    beat: u64,
    next_beat: u64,
    next_questions: u64,
    /// The times of the last tick, by both clocks; `None` before the first.
    ticked: Option<Clocks>,
    /// NATS has passed on that this node ends.
    has_ended: bool,
    /// See [`may_miss`](Exchange::may_miss).
    may_miss: bool,
    nodes: Nodes,
    told: Told,
    watched: Watched,
    reads: Reads<Asker>,
    finds: Finds<Sender<Whereabouts>>,
    /// The owner of a channel.
    owner: Box<dyn Fn(&str) -> Shard + Send>,
    counts: Arc<Counts>,
    out: Vec<Out>,
}

/// Milliseconds of a clock that does not go back, and of the wall clock. The first may stand still while the
/// machine is suspended, the second may jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clocks {
    pub(crate) steady: u64,
    pub(crate) wall: u64,
}

/// What the owners of channels tell the exchange.
pub(crate) enum FromShard {
    Interest(Interest),
    Telling(Telling),
}

/// What the caller has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Publish(Subject, Vec<u8>),
    /// Messages to the subject of a channel are wanted, or not any more.
    Subscribe(Arc<str>),
    Unsubscribe(Arc<str>),
    Shard(Shard, ToShard),
}

/// What an owner of channels is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToShard {
    Remote(RemoteEvent),
    /// Other nodes ask for the state of this channel.
    Tell(Arc<str>),
    /// A node, which may be this one, asks for a page of the members of this node.
    Read {
        to: Incarnation,
        id: u64,
        channel: Arc<str>,
        query: PresenceQuery,
    },
    /// A node, which may be this one, asks for the connections of a user.
    Find {
        to: Incarnation,
        id: u64,
        user: Arc<str>,
    },
    /// The page of the members of all nodes for a command of the shard.
    Page {
        ticket: Ticket,
        page: PresencePage,
    },
}

/// Where a user is connected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// The nodes with connections, this one first, and the connections as they are named there.
    pub(crate) nodes: Vec<(Arc<str>, Vec<Origin>)>,
    /// Whether the first of these is this one.
    pub(crate) is_here: bool,
    /// The names of nodes that have not answered in time.
    pub(crate) unanswered: Vec<Arc<str>>,
}

/// Who gets a page of the members of all nodes.
pub(crate) enum Asker {
    Shard(Shard, Ticket),
    /// A request of the API.
    Api(Sender<PresencePage>),
}

/// Where a message is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// All nodes.
    Nodes,
    /// One node.
    Node(Incarnation),
    /// The nodes that watch a channel.
    Channel(Arc<str>),
}

/// Milliseconds between two questions to one node at least.
const QUESTIONS_MS: u64 = 10;

impl ToShard {
    /// Whether the shard has to be told, as nobody asks for it again.
    pub(crate) fn is_needed(&self) -> bool {
        matches!(self, ToShard::Remote(RemoteEvent::Gone { .. }) | ToShard::Page { .. })
    }
}

impl Exchange {
    /// The exchange of a node with `shards` shards; `owner` says which of them owns a channel.
    pub(crate) fn new(
        incarnation: Incarnation,
        name: Box<str>,
        shards: Shard,
        owner: Box<dyn Fn(&str) -> Shard + Send>,
        counts: Arc<Counts>,
    ) -> Self {
        Exchange {
            incarnation,
            name,
            shards,
            session: 1,
            beat: 0,
            next_beat: 0,
            next_questions: 0,
            ticked: None,
            has_ended: false,
            may_miss: false,
            nodes: Nodes::new(),
            told: Told::new(),
            watched: Watched::new(),
            reads: Reads::new(),
            finds: Finds::new(),
            owner,
            counts,
            out: Vec::new(),
        }
    }

    /// Takes what the caller has to do.
    pub(crate) fn take_out(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// Whether a node was missing, or something of a node, since the last call: publications may be, too.
    pub(crate) fn may_miss(&mut self) -> bool {
        std::mem::take(&mut self.may_miss)
    }

    /// Milliseconds until the next tick is needed at the latest.
    pub(crate) fn pause(&self) -> u64 {
        if self.watched.has_questions() { QUESTIONS_MS } else { BEAT_MS / 10 }
    }

    /// Takes what the owner of a channel tells.
    pub(crate) fn hear_shard(
        &mut self,
        shard: Shard,
        channel: Arc<str>,
        what: FromShard,
        now: u64,
    ) {
        match what {
            FromShard::Interest(Interest::First) => {
                if self.watched.watch(shard, &channel, self.nodes.numbers()) {
                    self.out.push(Out::Subscribe(channel));
                }
            }
            FromShard::Interest(Interest::Last) => self.watched.unwatch(&channel, now),
            FromShard::Telling(telling) => {
                for (number, what) in self.told.tell(shard, &channel, telling, now) {
                    self.counts.told.fetch_add(1, Relaxed);
                    let body = Body::Statement { number, what };
                    self.publish(Subject::Channel(Arc::clone(&channel)), body);
                }
            }
        }
    }

    /// Takes a message from the subject of a channel, or from one of the subjects of nodes.
    pub(crate) fn hear(&mut self, channel: Option<&Arc<str>>, bytes: &[u8], now: u64) {
        let Ok(Message { from, body }) = Message::decode(bytes) else {
            self.counts.malformed.fetch_add(1, Relaxed);
            return;
        };
        if from == self.incarnation {
            match body {
                Body::Beat { .. } => self.nodes.echo(now),
                Body::Bye => self.has_ended = true,
                _ => {}
            }
            return;
        }
        match (body, channel) {
            (Body::Statement { number, what }, Some(channel)) => {
                self.counts.heard.fetch_add(1, Relaxed);
                let Some(node) = self.nodes.number(from) else { return };
                match self.watched.hear(node, channel, (number, what), now) {
                    Heard::Nothing => {}
                    Heard::Gap => _ = self.counts.gaps.fetch_add(1, Relaxed),
                    Heard::Event(shard, event) => self.tell_shard(shard, event),
                }
            }
            (Body::Beat { session, beat, name }, None) => {
                self.beat(from, (session, beat), &name, now)
            }
            (Body::Bye, None) => {
                if let Some(node) = self.nodes.remove(from) {
                    self.node_is_gone(node);
                }
            }
            (Body::Ask { channels }, None) => self.answer(from, channels),
            (Body::Nothing { at, channels }, None) => {
                let Some(node) = self.nodes.number(from) else { return };
                for channel in channels {
                    if let Some((shard, event)) = self.watched.hear_nothing(node, &channel, at) {
                        self.tell_shard(shard, event);
                    }
                }
            }
            (Body::Read { id, channel, query }, None) => self.read_here(from, id, channel, query),
            (Body::Page { id, page }, None) => {
                if let Some(node) = self.nodes.number(from) {
                    self.take_page(node, id, page);
                }
            }
            (Body::Find { id, user }, None) => self.find_here(from, id, &user),
            (Body::Found { id, found }, None) => {
                if let Some(node) = self.nodes.number(from) {
                    self.take_found(node, id, found);
                }
            }
            (Body::Statement { .. }, None) | (_, Some(_)) => {
                self.counts.malformed.fetch_add(1, Relaxed);
            }
        }
    }

    fn beat(&mut self, from: Incarnation, beat: (u64, u64), name: &str, now: u64) {
        match self.nodes.beat(from, beat, name, now) {
            Beat::Known => {}
            Beat::New(node) => {
                self.may_miss = true;
                if *name == *self.name {
                    tracing::warn!(
                        name,
                        "another node has the name of this one: give each its own with --cluster-node, so that logs and \
                         answers tell them apart"
                    );
                }
                self.watched.want_all_of(node);
                // It learns of this node at once.
                self.next_beat = self.next_beat.min(now);
                self.count_nodes();
            }
            Beat::Lost(node) => {
                self.may_miss = true;
                self.counts.losses.fetch_add(1, Relaxed);
                self.watched.want_all_of(node);
            }
            Beat::TooMany => _ = self.counts.malformed.fetch_add(1, Relaxed),
        }
    }

    /// Answers a node that asks for channels: the owners tell what they have to all, the rest is told to the
    /// node.
    fn answer(&mut self, to: Incarnation, mut channels: Vec<Arc<str>>) {
        channels.retain(|channel| match self.told.ask(channel) {
            Answer::Nothing => true,
            Answer::Asked => false,
            Answer::Ask(shard) => {
                self.out.push(Out::Shard(shard, ToShard::Tell(Arc::clone(channel))));
                false
            }
        });
        if !channels.is_empty() {
            let at = self.told.number();
            self.publish(Subject::Node(to), Body::Nothing { at, channels });
        }
    }

    /// Reads a page of the members of all nodes in a channel.
    pub(crate) fn read(&mut self, asker: Asker, channel: Arc<str>, query: PresenceQuery, now: u64) {
        let questions = self.reads.begin(asker, channel, query, self.nodes.numbers(), now);
        questions.into_iter().for_each(|question| self.question(question));
    }

    fn question(&mut self, Question { node, id, channel, query }: Question) {
        if node == HERE {
            self.read_here(self.incarnation, id, channel, query);
        } else if let Some(incarnation) = self.nodes.incarnation(node) {
            self.publish(Subject::Node(incarnation), Body::Read { id, channel, query });
        }
    }

    fn read_here(&mut self, to: Incarnation, id: u64, channel: Arc<str>, query: PresenceQuery) {
        let owner = (self.owner)(&channel);
        self.out.push(Out::Shard(owner, ToShard::Read { to, id, channel, query }));
    }

    /// Takes the page of the members of this node for the node that has asked for it.
    pub(crate) fn hear_page(&mut self, to: Incarnation, id: u64, page: PresencePage) {
        match to == self.incarnation {
            true => self.take_page(HERE, id, page),
            false => self.publish(Subject::Node(to), Body::Page { id, page }),
        }
    }

    fn take_page(&mut self, node: Node, id: u64, page: PresencePage) {
        let (question, ready) = self.reads.answer(node, id, page);
        question.into_iter().for_each(|question| self.question(question));
        ready.into_iter().for_each(|ready| self.give_page(ready));
    }

    fn give_page(&mut self, Ready { asker, mut page, unanswered }: Ready<Asker>) {
        page.unanswered = unanswered.into_iter().map(|node| self.name_of(node)).collect();
        match asker {
            Asker::Shard(shard, ticket) => {
                self.out.push(Out::Shard(shard, ToShard::Page { ticket, page }));
            }
            // The request may have been given up.
            Asker::Api(answer) => _ = answer.send(page),
        }
    }

    /// Looks for the connections of a user on all nodes.
    pub(crate) fn find(&mut self, asker: Sender<Whereabouts>, user: &Arc<str>, now: u64) {
        let id = self.finds.begin(asker, self.nodes.numbers(), now);
        self.publish(Subject::Nodes, Body::Find { id, user: Arc::clone(user) });
        self.find_here(self.incarnation, id, user);
    }

    fn find_here(&mut self, to: Incarnation, id: u64, user: &Arc<str>) {
        for shard in 0..self.shards {
            let user = Arc::clone(user);
            self.out.push(Out::Shard(shard, ToShard::Find { to, id, user }));
        }
    }

    /// Takes what a shard of this node has found for the node that has asked for it.
    pub(crate) fn hear_found(&mut self, to: Incarnation, id: u64, found: FoundHere) {
        match to == self.incarnation {
            true => self.take_found(HERE, id, found),
            false => self.publish(Subject::Node(to), Body::Found { id, found }),
        }
    }

    fn take_found(&mut self, node: Node, id: u64, found: FoundHere) {
        let found = self.finds.answer(node, id, found);
        found.into_iter().for_each(|found| self.give_found(found));
    }

    fn give_found(&self, Found { asker, nodes, unanswered }: Found<Sender<Whereabouts>>) {
        let is_here = nodes.first().is_some_and(|(node, _)| *node == HERE);
        let nodes = nodes.into_iter().map(|(node, found)| (self.name_of(node), found)).collect();
        let unanswered = unanswered.into_iter().map(|node| self.name_of(node)).collect();
        // The request may have been given up.
        _ = asker.send(Whereabouts { nodes, is_here, unanswered });
    }

    /// The name of a node; that of this one also for one that has ended.
    fn name_of(&self, node: Node) -> Arc<str> {
        self.nodes.name(node).unwrap_or(&self.name).into()
    }

    /// Messages of others to this node may be lost, and those of this node to others.
    pub(crate) fn lost(&mut self, now: u64) {
        self.counts.losses.fetch_add(1, Relaxed);
        self.nodes.doubt(now);
        let nodes: Vec<_> = self.nodes.numbers().collect();
        self.watched.want_everything(&nodes);
        self.lost_outgoing();
        self.next_beat = self.next_beat.min(now);
    }

    /// Messages of this node to others may be lost.
    pub(crate) fn lost_outgoing(&mut self) {
        self.session = self.session.saturating_add(1);
    }

    /// A shard could not be told something: it is told later.
    pub(crate) fn undelivered(&mut self, what: &ToShard, now: u64) {
        match what {
            ToShard::Tell(channel) => self.told.not_asked(channel),
            ToShard::Remote(
                RemoteEvent::Changes { node, channel, .. }
                | RemoteEvent::Members { node, channel, .. }
                | RemoteEvent::Count { node, channel, .. },
            ) => self.watched.want_later(*node, channel, now),
            // The answer says that this node has not answered.
            ToShard::Read { .. } | ToShard::Find { .. } => {}
            ToShard::Remote(RemoteEvent::Gone { .. }) | ToShard::Page { .. } => {
                unreachable!("it is kept: see `is_needed`")
            }
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, clocks: Clocks) {
        let now = clocks.steady;
        let since = |before: Clocks| {
            let steady = now.saturating_sub(before.steady);
            steady.max(clocks.wall.saturating_sub(before.wall))
        };
        // This node stood still: for others it was dead.
        if self.ticked.replace(clocks).is_some_and(|before| since(before) >= LEASE_MS) {
            self.lost(now);
        }
        for node in self.nodes.take_dead(now) {
            self.node_is_gone(node);
        }
        if self.next_beat <= now {
            self.next_beat = now.saturating_add(BEAT_MS);
            self.beat = self.beat.saturating_add(1);
            let (session, beat, name) = (self.session, self.beat, self.name.clone());
            self.publish(Subject::Nodes, Body::Beat { session, beat, name });
        }
        while let Some((channel, number)) = self.told.take_mark(now) {
            let body = Body::Statement { number, what: Statement::Mark };
            self.publish(Subject::Channel(channel), body);
        }
        while let Some(channel) = self.watched.take_forgotten(now) {
            self.out.push(Out::Unsubscribe(channel));
        }
        self.watched.ask_again(now);
        self.reads.give_up(now).into_iter().for_each(|ready| self.give_page(ready));
        self.finds.give_up(now).into_iter().for_each(|found| self.give_found(found));
        if self.next_questions <= now && self.watched.has_questions() {
            self.next_questions = now.saturating_add(QUESTIONS_MS);
            self.ask(now);
        }
        self.counts.told_channels.store(self.told.len() as u64, Relaxed);
        self.counts.watched_channels.store(self.watched.len() as u64, Relaxed);
    }

    /// Asks all nodes, or the next one.
    fn ask(&mut self, now: u64) {
        let Some((node, channels)) = self.watched.take_question(now) else { return };
        let subject = match node.map(|node| self.nodes.incarnation(node)) {
            None => Subject::Nodes,
            Some(Some(incarnation)) => Subject::Node(incarnation),
            // It has ended.
            Some(None) => return,
        };
        if !channels.is_empty() {
            self.counts.asked.fetch_add(channels.len() as u64, Relaxed);
            self.publish(subject, Body::Ask { channels });
        }
    }

    /// Whether the broker has passed on that this node ends.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Tells others that this node ends.
    pub(crate) fn end(&mut self) {
        self.publish(Subject::Nodes, Body::Bye);
    }

    fn node_is_gone(&mut self, node: Node) {
        self.watched.forget_node(node);
        self.counts.gone.fetch_add(1, Relaxed);
        for shard in 0..self.shards {
            self.tell_shard(shard, RemoteEvent::Gone { node });
        }
        self.count_nodes();
    }

    fn count_nodes(&self) {
        self.counts.nodes.store(self.nodes.len() as u64, Relaxed);
    }

    fn tell_shard(&mut self, shard: Shard, event: RemoteEvent) {
        self.out.push(Out::Shard(shard, ToShard::Remote(event)));
    }

    fn publish(&mut self, subject: Subject, body: Body) {
        let bytes = Message { from: self.incarnation, body }.encode();
        self.out.push(Out::Publish(subject, bytes));
    }
}
