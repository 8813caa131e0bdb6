//! Topics: who subscribes to what, in which order publications come, and what is kept of them.
//!
//! ```text
//!   subscriber's shard                    owner of the topic                 publisher's shard
//!  ────────────────────                  ────────────────────               ───────────────────
//!   subscribe ── Ask ───────────────────▶ the shard cares, from
//!   Event ◀───── Joined, what was missed ─ this position on
//!                                         refused or numbered, ◀── Publish ─── publish
//!   fan-out ◀─── Publication ──────────── kept, and told to    ─── Published ▶ Event
//!   deliver                               every shard that cares
//! ```
//!
//! Every topic has an owner, chosen by the hash of its name. The owner alone numbers publications
//! and keeps history. Notes from one shard to another keep their order and are not lost. So what is
//! published after the owner answered `Joined` arrives after it: a recovery has no gap and nothing
//! twice, and all subscribers hear a topic in the owner's order. A shard forgets a topic with its
//! last member and says so; a new record of the same topic begins with a new question.

mod limits;
mod publication;

mod fanout;
mod list;
mod name;

mod deliveries;
mod event;
mod history;
mod members;
mod note;
mod owner;
mod topic;

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use crate::{Member, Shard, Ticket};
use deliveries::Deliveries;
use members::{Members, Membership, Place};
use name::{ByName, Hashing, Name};
use note::Body;
use owner::{Owner, Readers};
use topic::Topic;

pub use event::{Event, Past, Refused};
pub use history::Retention;
pub use limits::{Limits, Stats};
pub use note::Note;
pub use owner::{Cursor, TopicInfo};
pub use publication::{Form, Payload, Position, Publication};
pub use topic::Subscriber;

/// The topics of one shard.
///
/// Its methods are of four kinds. Commands of members ([`subscribe`](Self::subscribe),
/// [`publish`](Self::publish) and so on) are refused at once, or obeyed, at once or later. What came
/// of them is taken with [`event`](Self::event): after each command and each note, so that a
/// subscription is told of before what is published to it. Notes go to other shards
/// ([`notes`](Self::notes)) and come from them ([`receive`](Self::receive)). Publications are handed
/// to subscribers by [`deliver`](Self::deliver), and history expires by [`expire`](Self::expire).
///
/// `F` is what the caller makes of a publication to hand it to many, a frame for instance: it is
/// made once and kept until the last subscriber here has it.
///
/// Times are milliseconds of any clock that all shards share and that does not go back.
pub struct Topics<F = ()> {
    shard: Shard,
    limits: Limits,
    hashing: Hashing,
    topics: ByName<Topic>,
    members: Members,
    /// The questions that the owners have not answered; `None` if the member does not ask any more.
    /// A question keeps its key until the answer is here, so an answer is never taken for another.
    asks: Slab<Option<Ask>>,
    deliveries: Deliveries<F>,
    owner: Owner,
    /// By shard; the one for this shard stays empty.
    outboxes: Box<[Vec<Note>]>,
    /// By shard: whether it is to be spared, as it said. This shard's is what it said itself.
    behind: Box<[bool]>,
    events: VecDeque<Event>,
}

struct Ask {
    member: Member,
    /// Among the member's memberships.
    index: u32,
    topic: u32,
    ticket: Ticket,
}

impl<F: Default> Topics<F> {
    /// The part of `shard` in topics that are shared by `shards`. All of them are given the same
    /// `seed`, a new one in every process that is not to be guessed, and the same `rules`, which say
    /// whether a topic keeps history.
    pub fn new(
        shard: Shard,
        shards: u16,
        seed: u64,
        rules: impl Fn(&str) -> Option<Retention> + Send + 'static,
        limits: Limits,
    ) -> Self {
        assert!(shard < shards);
        let hashing = Hashing::new(seed);
        let epoch = hashing.hash(&shard.to_le_bytes());
        Topics {
            shard,
            limits,
            hashing,
            topics: ByName::new(),
            members: Members::new(limits.members_usual),
            asks: Slab::new(),
            deliveries: Deliveries::new(),
            owner: Owner::new(Box::new(rules), epoch),
            outboxes: (0..shards).map(|_| Vec::new()).collect(),
            behind: vec![false; usize::from(shards)].into(),
            events: VecDeque::new(),
        }
    }

    /// The shard that owns a topic.
    pub fn owner(&self, topic: &str) -> Shard {
        self.owner_of(self.hashing.hash(topic.as_bytes()))
    }

    fn owner_of(&self, hash: u32) -> Shard {
        name::owner(hash, self.outboxes.len() as u16)
    }

    /// Subscribes a member. `Event::Subscribed` says when it is; where the topic keeps history, with
    /// what was published after `from`, if all of that is still there.
    ///
    /// # Errors
    /// `AlreadySubscribed`, `TooMany` and `Overloaded`.
    pub fn subscribe(
        &mut self,
        member: Member,
        topic: &str,
        from: Option<Position>,
        ticket: Ticket,
        now: u64,
    ) -> Result<(), Refused> {
        let hash = self.hashing.hash(topic.as_bytes());
        let known = self.topics.find(hash, topic);
        if known.is_some_and(|key| self.membership(member, key).is_some()) {
            return Err(Refused::AlreadySubscribed);
        }
        if self.members.of(member).len() >= self.limits.subscriptions_max {
            return Err(Refused::TooMany);
        }
        if let Some(key) = known
            && let Topic { joined: true, keeps_history: false, .. } = self.topics.value(key)
        {
            self.join(member, key, ticket);
            return Ok(());
        }
        let owner = self.owner_of(hash);
        if self.is_overloaded(owner) {
            return Err(Refused::Overloaded);
        }
        let key = known.unwrap_or_else(|| {
            let keeps_history = self.owner.retention(topic).is_some();
            let name = Name { hash, text: Arc::from(topic) };
            self.topics.insert(name, Topic::new(owner, keeps_history))
        });
        self.ask(member, key, from, ticket, now);
        Ok(())
    }

    /// Subscribes a member to a topic whose publications reach this shard anyway.
    fn join(&mut self, member: Member, key: u32, ticket: Ticket) {
        let topic = self.topics.value_mut(key);
        let place = Place::Listed(topic.subscribers.len() as u32);
        let index = self.members.join(member, Membership::new(key, place));
        topic.subscribers.push(Subscriber::new(member, index));
        self.events.push_back(Event::Subscribed { member, ticket, past: None });
        self.report(key);
    }

    /// Asks the owner of a topic.
    fn ask(&mut self, member: Member, key: u32, from: Option<Position>, ticket: Ticket, now: u64) {
        let topic = self.topics.value_mut(key);
        topic.pending += 1;
        topic.reported = topic.members();
        let (owner, subscribers) = (topic.owner, topic.reported);
        let entry = self.asks.vacant_entry();
        let ask = entry.key() as u32;
        let index = self.members.join(member, Membership::new(key, Place::Asked(ask)));
        entry.insert(Some(Ask { member, index, topic: key, ticket }));
        let topic = self.topics.name(key).clone();
        self.tell(owner, Body::Ask { topic, key, subscribers, ask, from }, now);
    }

    /// Ends a subscription, or withdraws one that is pending, which is told by `Event::Withdrawn`.
    ///
    /// # Errors
    /// `NotSubscribed`.
    pub fn unsubscribe(&mut self, member: Member, topic: &str) -> Result<(), Refused> {
        let hash = self.hashing.hash(topic.as_bytes());
        let key = self.topics.find(hash, topic).ok_or(Refused::NotSubscribed)?;
        let index = self.membership(member, key).ok_or(Refused::NotSubscribed)?;
        let (parted, moved) = self.members.part(member, index);
        if let Some(moved) = moved {
            self.reindex(moved, index);
        }
        if let Some(Ask { ticket, .. }) = self.end(parted) {
            self.events.push_back(Event::Withdrawn { member, ticket });
        }
        self.weigh();
        Ok(())
    }

    /// Ends all subscriptions of a member that is gone, the pending ones too: `forgotten` is told
    /// their tickets, for which no event comes.
    pub fn leave(&mut self, member: Member, mut forgotten: impl FnMut(Ticket)) {
        for &membership in &*self.members.leave(member) {
            if let Some(Ask { ticket, .. }) = self.end(membership) {
                forgotten(ticket);
            }
        }
        self.weigh();
    }

    /// What a member is subscribed to or has asked to be, in no order.
    pub fn subscriptions(&self, member: Member) -> impl Iterator<Item = &str> {
        let memberships = self.members.of(member).iter();
        memberships.map(|membership| &*self.topics.name(membership.topic).text)
    }

    /// Looks for a membership where there is less to look through.
    fn membership(&self, member: Member, key: u32) -> Option<u32> {
        let memberships = self.members.of(member);
        let topic = self.topics.value(key);
        if topic.pending == 0 && topic.subscribers.len() < memberships.len() {
            let found = topic.subscribers.iter().find(|subscriber| subscriber.member() == member);
            return found.map(|subscriber| subscriber.index);
        }
        let found = memberships.iter().position(|membership| membership.topic == key);
        found.map(|index| index as u32)
    }

    /// Tells a topic, or a question, that a membership has another index.
    fn reindex(&mut self, membership: Membership, index: u32) {
        match membership.place() {
            Place::Listed(place) => {
                let topic = self.topics.value_mut(membership.topic);
                topic.subscribers[place as usize].index = index;
            }
            Place::Asked(ask) => {
                let ask = self.asks[ask as usize].as_mut().expect("its member is here");
                ask.index = index;
            }
        }
    }

    /// Takes a membership that its member has lost from its topic. Returns the question, if it was
    /// one.
    fn end(&mut self, membership: Membership) -> Option<Ask> {
        let key = membership.topic;
        let topic = self.topics.value_mut(key);
        let asked = match membership.place() {
            Place::Listed(gap) => {
                let Topic { subscribers, fanout, .. } = topic;
                let len = subscribers.len() as u32;
                self.deliveries.close_gap(*fanout, gap, len, |from, to| {
                    let moved = subscribers[from as usize];
                    subscribers[to as usize] = moved;
                    self.members.place(moved.member(), moved.index, Place::Listed(to));
                });
                subscribers.pop();
                None
            }
            Place::Asked(ask) => {
                topic.pending -= 1;
                self.asks[ask as usize].take()
            }
        };
        if topic.members() > 0 {
            self.report(key);
            return asked;
        }
        let (name, topic) = self.topics.remove(key);
        self.deliveries.forget(&topic);
        self.count(topic.owner, name, 0);
        asked
    }

    /// Tells the owner of a topic how many subscribers there are, if it has a wrong idea of it, and
    /// if there is time for that.
    fn report(&mut self, key: u32) {
        let topic = self.topics.value(key);
        let members = topic.members();
        let wrong = members.abs_diff(topic.reported) > topic.reported / 8;
        let owner = topic.owner;
        if wrong && !self.is_overloaded(owner) {
            self.topics.value_mut(key).reported = members;
            self.count(owner, self.topics.name(key).clone(), members);
        }
    }

    fn count(&mut self, owner: Shard, topic: Name, subscribers: u32) {
        if owner == self.shard {
            self.owner.count(&topic, owner, subscribers);
        } else {
            let body = Body::Count { topic, subscribers };
            self.outboxes[usize::from(owner)].push(Note(body));
        }
    }

    /// Publishes. With a ticket, `Event::Published` says what became of it.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: Payload,
        ticket: Option<Ticket>,
        now: u64,
    ) -> Result<(), Refused> {
        let hash = self.hashing.hash(topic.as_bytes());
        let owner = self.owner_of(hash);
        if owner == self.shard {
            let outcome = Ok(self.number(hash, topic, payload, now)?);
            self.events.extend(ticket.map(|ticket| Event::Published { ticket, outcome }));
            return Ok(());
        }
        if self.is_overloaded(owner) {
            return Err(Refused::Overloaded);
        }
        let topic = self.name(hash, topic);
        self.tell(owner, Body::Publish { topic, payload, ticket }, now);
        Ok(())
    }

    /// Asks for at most `limit` publications in the history of a topic, oldest first: those that
    /// follow on `after`, or, if that is not given or cannot be recovered, the newest.
    ///
    /// # Errors
    /// `NoHistory` and `Overloaded`.
    pub fn history(
        &mut self,
        topic: &str,
        after: Option<Position>,
        limit: u32,
        ticket: Ticket,
        now: u64,
    ) -> Result<(), Refused> {
        if self.owner.retention(topic).is_none() {
            return Err(Refused::NoHistory);
        }
        let hash = self.hashing.hash(topic.as_bytes());
        let owner = self.owner_of(hash);
        if self.is_overloaded(owner) {
            return Err(Refused::Overloaded);
        }
        let topic = self.name(hash, topic);
        self.tell(owner, Body::Read { topic, after, limit, ticket }, now);
        Ok(())
    }

    /// The name of a topic, shared if it is known here.
    fn name(&self, hash: u32, topic: &str) -> Name {
        match self.topics.find(hash, topic) {
            Some(key) => self.topics.name(key).clone(),
            None => Name { hash, text: Arc::from(topic) },
        }
    }

    /// As the owner: puts a publication in its place and passes it to the shards that care.
    fn number(
        &mut self,
        hash: u32,
        topic: &str,
        payload: Payload,
        now: u64,
    ) -> Result<Option<Position>, Refused> {
        let key = match self.owner.find(hash, topic) {
            Some(key) => key,
            None => {
                let retention = self.owner.retention(topic);
                if retention.is_none() {
                    return Ok(None); // Nobody hears it, now or later.
                }
                self.owner.add(Name { hash, text: Arc::from(topic) }, retention)
            }
        };
        if self.owner.readers(key).iter().any(|readers| self.is_full(readers.shard)) {
            return Err(Refused::Overloaded);
        }
        let publication = self.owner.append(key, payload, now);
        let position = publication.position;
        let mut here = None;
        for &Readers { shard, key, .. } in self.owner.readers(key) {
            if shard == self.shard {
                here = Some(key);
                continue;
            }
            let body = Body::Publication { key, publication: publication.clone() };
            self.outboxes[usize::from(shard)].push(Note(body));
        }
        if let Some(key) = here {
            self.fan_out(key, publication);
        }
        self.owner.evict(self.limits.history_bytes_max);
        Ok(position)
    }

    /// Whether too many notes wait for an owner.
    fn is_overloaded(&self, owner: Shard) -> bool {
        self.outboxes[usize::from(owner)].len() >= self.limits.notes_max
    }

    /// Whether no more publications should go to a shard.
    fn is_full(&self, shard: Shard) -> bool {
        self.behind[usize::from(shard)] || self.is_overloaded(shard)
    }

    /// Tells all owners when this shard falls behind with its deliveries, and when it has made half
    /// of them.
    fn weigh(&mut self) {
        let behind = &mut self.behind[usize::from(self.shard)];
        let bound = match *behind {
            true => self.limits.deliveries_max / 2 + 1,
            false => self.limits.deliveries_max,
        };
        if *behind == (self.deliveries.waiting() >= bound) {
            return;
        }
        *behind = !*behind;
        let behind = *behind;
        for (shard, outbox) in self.outboxes.iter_mut().enumerate() {
            if shard != usize::from(self.shard) {
                outbox.push(Note(Body::Behind(behind)));
            }
        }
    }

    /// Queues a publication for the subscribers on this shard. Once their topic is forgotten, the
    /// key may be another's; a new record of the topic has no subscribers before it is joined.
    fn fan_out(&mut self, key: u32, publication: Publication) {
        let same = |(name, _): (&Name, _)| *name.text == *publication.topic;
        if self.topics.get(key).is_some_and(same) {
            self.deliveries.push(key, self.topics.value_mut(key), publication);
            self.weigh();
        }
    }

    /// Takes a note from another shard; those from one shard in their order.
    pub fn receive(&mut self, from: Shard, Note(body): Note, now: u64) {
        match body {
            Body::Ask { topic, key, subscribers, ask, from: position } => {
                let readers = Readers { shard: from, key, subscribers };
                let past = self.owner.join(topic, readers, position, now);
                self.tell(from, Body::Joined { ask, past }, now);
            }
            Body::Count { topic, subscribers } => self.owner.count(&topic, from, subscribers),
            Body::Publish { topic, payload, ticket } => {
                let outcome = self.number(topic.hash, &topic.text, payload, now);
                if let Some(ticket) = ticket {
                    self.tell(from, Body::Published { ticket, outcome }, now);
                }
            }
            Body::Read { topic, after, limit, ticket } => {
                let past = self.owner.read(&topic, after, limit, now);
                self.tell(from, Body::History { ticket, past }, now);
            }
            Body::Joined { ask, past } => self.joined(ask, past),
            Body::Publication { key, publication } => self.fan_out(key, publication),
            Body::Published { ticket, outcome } => {
                self.events.push_back(Event::Published { ticket, outcome });
            }
            Body::History { ticket, past } => {
                self.events.push_back(Event::History { ticket, past });
            }
            Body::Behind(behind) => self.behind[usize::from(from)] = behind,
        }
    }

    /// Gathers a note for another shard. This one takes it at once.
    fn tell(&mut self, to: Shard, body: Body, now: u64) {
        match to == self.shard {
            true => self.receive(to, Note(body), now),
            false => self.outboxes[usize::from(to)].push(Note(body)),
        }
    }

    /// The owner has answered: who has asked is subscribed, if it is still interested.
    fn joined(&mut self, ask: u32, past: Option<Past>) {
        let asked = self.asks.remove(ask as usize);
        if self.asks.is_empty() && self.asks.capacity() > KEPT {
            self.asks = Slab::new();
        }
        let Some(Ask { member, index, topic: key, ticket }) = asked else { return };
        let topic = self.topics.value_mut(key);
        topic.pending -= 1;
        topic.joined = true;
        let place = Place::Listed(topic.subscribers.len() as u32);
        topic.subscribers.push(Subscriber::new(member, index));
        self.members.place(member, index, place);
        self.events.push_back(Event::Subscribed { member, ticket, past });
    }

    /// The notes gathered for a shard, oldest first. The caller takes them, all or the first of
    /// them, when it can hand them over.
    pub fn notes(&mut self, to: Shard) -> &mut Vec<Note> {
        &mut self.outboxes[usize::from(to)]
    }

    /// Takes the oldest event.
    #[must_use]
    pub fn event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if self.events.is_empty() && self.events.capacity() > KEPT {
            self.events = VecDeque::new();
        }
        Some(event)
    }

    /// Makes at most `budget` deliveries: hands each publication, with the form the caller gave it
    /// before, to some of its subscribers on this shard. Topics take turns; in each, every subscriber
    /// hears in order what was published since it subscribed. Returns whether something is left.
    pub fn deliver(
        &mut self,
        budget: usize,
        each: impl FnMut(&Publication, &mut F, &[Subscriber]),
    ) -> bool {
        let left = self.deliveries.deliver(&mut self.topics, budget, each);
        self.weigh();
        left
    }

    /// Puts out history that is past its time, a bounded slice of it.
    pub fn expire(&mut self, now: u64) {
        self.owner.expire(now);
    }

    /// When `expire` has something to do, or somewhat earlier.
    pub fn next_expiry(&self) -> Option<u64> {
        self.owner.next_expiry()
    }

    /// What is here.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            topics: self.topics.len() as u64,
            subscriptions: self.members.memberships(),
            pending: self.asks.len() as u64,
            notes_waiting: self.outboxes.iter().map(|notes| notes.len() as u64).sum(),
            deliveries_waiting: self.deliveries.waiting(),
            events_waiting: self.events.len() as u64,
            ..Stats::default()
        };
        self.owner.count_into(&mut stats);
        stats
    }

    /// A topic that this shard owns, if anybody is subscribed or something is kept.
    pub fn topic(&self, topic: &str) -> Option<TopicInfo> {
        let key = self.owner.find(self.hashing.hash(topic.as_bytes()), topic)?;
        self.owner.info(key)
    }

    /// A topic with subscribers on this shard, chosen by `random`, and one of them; `None` if there is
    /// none near the place where it looks.
    pub fn some_topic(&self, random: u32) -> Option<(&Arc<str>, Member)> {
        let end = self.topics.keys_end().max(1);
        (0..PLACES_MAX).find_map(|step| {
            let (name, topic) = self.topics.get((random % end + step) % end)?;
            topic.subscribers.first().map(|first| (&name.text, first.member()))
        })
    }

    /// At most `limit` of the topics that this shard owns, and where to go on, if there are more.
    /// It may be fewer, even none, as no call looks at more than a bounded number of places.
    pub fn topics(&self, from: Cursor, limit: usize) -> (Vec<TopicInfo>, Option<Cursor>) {
        self.owner.list(from, limit)
    }
}

/// Places that a search for some topic looks at.
const PLACES_MAX: u32 = 64;
/// Events and questions keep room for this many when there are none.
const KEPT: usize = 128;
