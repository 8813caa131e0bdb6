//! Services: a request goes to one of those who offer to answer it, and the answer comes back.
//!
//! Every service has an owner shard, by a hash of its name, which knows who offers it. A request
//! goes from the requester's shard to the owner, on to the shard of the one whose turn it is, and
//! the answer straight back. Each way is a note; on one shard it is the same without the note.
//!
//! *Who is meant* is always said by a name that is used once: an offer, a request being waited for,
//! a request being served each have a key with a generation. So a member's number may be used
//! again at once: what was meant for its predecessor finds nothing.
//!
//! *Each request has one outcome*, the first that reaches its entry on the requester's shard, and
//! none if the requester has left. *It is seen by one responder at most*: an offer that has ended,
//! or whose member is full, when a request gets to it sends the request back to the owner, who
//! chooses again. `ResponderGone` is for those who left with a request they had seen.
//!
//! *A full responder rests*: its shard tells the owner, who passes it over until it has half of
//! what it may have. A request therefore goes round again only because of a change that its owner
//! hears of before it comes back: overload does not make work.
//!
//! *Every queue has its bound*: entries by what a member may have, notes about new things by
//! `Limits::messages_max`. Other notes each belong to an entry.

mod deadlines;
mod directory;
mod entries;
mod event;
mod message;
mod request_id;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

pub use entries::Key;
pub use event::{Failure, Refused, ServiceEvent};
pub use message::{Ask, ServiceMessage};
pub use request_id::{NoRequestId, RequestId};

use crate::memory::Trim;
use crate::{Member, Shard, Ticket};
use deadlines::Deadlines;
use directory::{Address, Directory};
use entries::{Entries, List};

/// One shard's part of request and reply. `P` is what a request and its answer carry.
///
/// Members act through `serve`, `unserve`, `request`, `reply` and `leave`; other shards' notes come
/// in through `receive`, and time through `expire`. After any of these there may be notes to hand
/// over (`notes`) and events to tell (`event`), which is what the caller ends its turn with.
pub struct Services<P> {
    shard: Shard,
    hash_seed: u64,
    limits: Limits,
    /// Only those who have something.
    members: HashMap<Member, MemberEntries>,
    offers: Entries<Offer>,
    /// Requests of this shard's members, until their outcome has been told.
    waiting: Entries<Waiting<P>>,
    waiting_deadlines: Deadlines,
    /// Requests that this shard's members are to answer.
    serving: Entries<Serving<P>>,
    serving_deadlines: Deadlines,
    directory: Directory,
    /// What has something to be told. It may have ended meanwhile.
    ready: VecDeque<Ready>,
    /// Notes of this shard to itself; empty between calls.
    own_messages: VecDeque<ServiceMessage<P>>,
    /// By the shard they are for.
    messages: Vec<Vec<ServiceMessage<P>>>,
}

/// The most there may be of everything.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Services that one member offers.
    pub services_max: u32,
    /// Requests of one member whose outcome has not been told.
    pub requests_max: u32,
    /// Requests that one member is to answer; at least 1.
    pub serving_max: u32,
    /// Notes waiting for one shard, beyond which services, and requests on their way to a
    /// responder, are refused.
    pub messages_max: usize,
    /// Bytes of payload parked for one member whose connection is congested. A request or a response
    /// beyond them fails with [`Failure::Overloaded`].
    pub parked_bytes_max: usize,
}

/// What there is on a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Members that have any of what follows.
    pub members: usize,
    /// Offers of its members.
    pub offers: usize,
    /// Services that it owns and somebody offers.
    pub owned: usize,
    /// Requests of its members whose outcome has not been told.
    pub waiting: usize,
    /// Requests that its members are to answer.
    pub serving: usize,
    /// Messages gathered for other shards.
    pub messages: usize,
    /// Bytes of payload parked for members whose connections are congested.
    pub parked_bytes: usize,
}

/// What one member has.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct MemberEntries {
    offers: List,
    waiting: List,
    serving: List,
    /// How many of its offers rest.
    resting: u32,
}

struct Offer {
    member: Member,
    service: Arc<str>,
    /// The owner has been told that it takes no requests.
    resting: bool,
}

struct Waiting<P> {
    member: Member,
    ticket: Ticket,
    service: Arc<str>,
    /// What has still to be told.
    answer: Option<Result<P, Failure>>,
}

struct Serving<P> {
    member: Member,
    /// The requester's shard, and the request's name there.
    from: Shard,
    waiting: Key,
    service: Arc<str>,
    deadline_ms: u64,
    /// Until the member has seen it.
    payload: Option<P>,
}

enum Ready {
    Answer(Key),
    Request(Key),
}

/// How many requests of each kind one call of `expire` ends.
const EXPIRED_PER_CALL: usize = 256;

/// The size of what requests and responses carry.
pub trait ByteLen {
    /// Bytes of payload.
    fn byte_len(&self) -> usize;
}

impl ByteLen for crate::channels::Payload {
    fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

impl<P: ByteLen> Services<P> {
    /// Begins with nothing, as one of `shards` shards that have the same `hash_seed`.
    pub fn new(shard: Shard, shards: u16, hash_seed: u64, limits: Limits) -> Self {
        assert!(shard < shards && limits.serving_max > 0);
        Services {
            shard,
            hash_seed,
            limits,
            members: HashMap::new(),
            offers: Entries::default(),
            waiting: Entries::default(),
            waiting_deadlines: Deadlines::default(),
            serving: Entries::default(),
            serving_deadlines: Deadlines::default(),
            directory: Directory::default(),
            ready: VecDeque::new(),
            own_messages: VecDeque::new(),
            messages: (0..shards).map(|_| Vec::new()).collect(),
        }
    }

    /// The member offers `service` from now on.
    pub fn serve(&mut self, member: Member, service: &str) -> Result<(), Refused> {
        let owner = self.owner(service);
        if self.offer_of(member, service).is_some() {
            return Err(Refused::AlreadyServing);
        }
        if self.entries_of(member).offers.len() >= self.limits.services_max {
            return Err(Refused::TooMany);
        }
        if self.is_behind(owner) {
            return Err(Refused::Overloaded);
        }
        let service: Arc<str> = service.into();
        let has = self.members.entry(member).or_default();
        let offer = Offer { member, service: Arc::clone(&service), resting: false };
        let offer = self.offers.insert(&mut has.offers, offer);
        self.send(owner, ServiceMessage::Serve { offer, service });
        self.settle();
        Ok(())
    }

    /// The member no longer offers `service`. The requests it has may still be replied to.
    pub fn unserve(&mut self, member: Member, service: &str) -> Result<(), Refused> {
        let offer = self.offer_of(member, service).ok_or(Refused::NotServing)?;
        self.end_offer(offer);
        self.settle();
        Ok(())
    }

    /// Asks somebody who offers `service`. The outcome comes as an event with `ticket`, at the
    /// latest when `expire` is told that it is `deadline_ms`.
    pub fn request(
        &mut self,
        member: Member,
        ticket: Ticket,
        service: &str,
        payload: P,
        deadline_ms: u64,
    ) -> Result<(), Refused> {
        let owner = self.owner(service);
        if self.entries_of(member).waiting.len() >= self.limits.requests_max {
            return Err(Refused::TooMany);
        }
        if self.is_behind(owner) {
            return Err(Refused::Overloaded);
        }
        let service: Arc<str> = service.into();
        let has = self.members.entry(member).or_default();
        let waiting = Waiting { member, ticket, service: Arc::clone(&service), answer: None };
        let waiting = self.waiting.insert(&mut has.waiting, waiting);
        self.waiting_deadlines.push(deadline_ms, waiting);
        self.send(
            owner,
            ServiceMessage::Ask(Ask { from: self.shard, waiting, service, deadline_ms, payload }),
        );
        self.settle();
        Ok(())
    }

    /// The member answers a request it has seen, or says why it cannot.
    pub fn reply(
        &mut self,
        member: Member,
        request: RequestId,
        answer: Result<P, Box<str>>,
    ) -> Result<(), Refused> {
        let RequestId(key) = request;
        match self.serving.get(key) {
            Some(serving) if serving.member == member && serving.payload.is_none() => {}
            _ => return Err(Refused::UnknownRequest),
        }
        let Serving { from, waiting, .. } = self.end_serving(key);
        let answer = answer.map_err(Failure::ResponderFailed);
        self.send(from, ServiceMessage::Answer { waiting, answer });
        self.settle();
        Ok(())
    }

    /// The member is gone: its services end, those who wait for it hear so, and nothing comes of
    /// its own requests: `forgotten` is told their tickets. Its number may be used again at once.
    pub fn leave(&mut self, member: Member, mut forgotten: impl FnMut(Ticket)) {
        while let Some(key) = self.waiting.first(self.entries_of(member).waiting) {
            forgotten(self.end_waiting(key).ticket);
        }
        while let Some(key) = self.offers.first(self.entries_of(member).offers) {
            self.end_offer(key);
        }
        while let Some(key) = self.serving.first(self.entries_of(member).serving) {
            let Serving { from, waiting, service, deadline_ms, payload, .. } =
                self.end_serving(key);
            match payload {
                None => {
                    let answer = Err(Failure::ResponderGone);
                    self.send(from, ServiceMessage::Answer { waiting, answer });
                }
                // Nobody has seen it: somebody else may answer.
                Some(payload) => self.ask(Ask { from, waiting, service, deadline_ms, payload }),
            }
        }
        self.settle();
    }

    /// Takes a note of shard `from`. Its notes must come in the order in which it wrote them.
    pub fn receive(&mut self, from: Shard, message: ServiceMessage<P>) {
        self.obey(from, message);
        self.settle();
    }

    /// Notes gathered for shard `to`. The caller takes them out when it can hand them over.
    pub fn messages(&mut self, to: Shard) -> &mut Vec<ServiceMessage<P>> {
        &mut self.messages[usize::from(to)]
    }

    /// The next thing to tell a member, until there is none. `takes` says whether the connection of a
    /// member takes more now; what is for one that does not is parked until [`resume`](Self::resume).
    pub fn event(&mut self, _takes: impl FnMut(Member) -> bool) -> Option<ServiceEvent<P>> {
        while let Some(ready) = self.ready.pop_front() {
            self.ready.trim();
            let event = match ready {
                Ready::Answer(key) => self.outcome(key),
                Ready::Request(key) => self.question(key),
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// The member's connection takes more again.
    pub fn resume(&mut self, _member: Member) {}

    /// Whether nothing is parked with any member. O(1).
    pub fn nobody_parked(&self) -> bool {
        true
    }

    /// Ends requests whose deadline has come by `now_ms`; a bounded number of them, so that
    /// `next_expiry` may still be in the past.
    pub fn expire(&mut self, now_ms: u64) {
        for _ in 0..EXPIRED_PER_CALL {
            let Some(key) = self.waiting_deadlines.take_due(now_ms) else { break };
            self.answered(key, Err(Failure::Timeout));
        }
        for _ in 0..EXPIRED_PER_CALL {
            let Some(key) = self.serving_deadlines.take_due(now_ms) else { break };
            // The requester's shard has the same deadline.
            if self.serving.get(key).is_some() {
                self.end_serving(key);
            }
        }
        self.waiting_deadlines.trim(&self.waiting);
        self.serving_deadlines.trim(&self.serving);
        self.settle();
    }

    /// When `expire` has something to do.
    pub fn next_expiry(&self) -> Option<u64> {
        let both = [self.waiting_deadlines.next(), self.serving_deadlines.next()];
        both.into_iter().flatten().min()
    }

    /// What there is on this shard.
    pub fn stats(&self) -> Stats {
        Stats {
            members: self.members.len(),
            offers: self.offers.len(),
            owned: self.directory.len(),
            waiting: self.waiting.len(),
            serving: self.serving.len(),
            parked_bytes: 0,
            messages: self.messages.iter().map(Vec::len).sum(),
        }
    }

    // As the shard of a requester.

    /// The request has an outcome, unless it had one or nobody waits for it.
    fn answered(&mut self, key: Key, answer: Result<P, Failure>) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        if waiting.answer.is_none() {
            waiting.answer = Some(answer);
            self.ready.push_back(Ready::Answer(key));
        }
    }

    fn outcome(&mut self, key: Key) -> Option<ServiceEvent<P>> {
        self.waiting.get(key)?;
        let Waiting { member, ticket, service, answer } = self.end_waiting(key);
        Some(match answer.expect("only what is answered is ready") {
            Ok(payload) => ServiceEvent::Response { member, ticket, service, payload },
            Err(why) => ServiceEvent::Failed { member, ticket, service, why },
        })
    }

    fn end_waiting(&mut self, key: Key) -> Waiting<P> {
        let member = self.waiting.get(key).expect("it waits").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let waiting = self.waiting.remove(&mut has.waiting, key);
        self.waiting_deadlines.trim(&self.waiting);
        self.forget_if_bare(member);
        waiting
    }

    // As the owner of a service.

    /// Gives the request to the one whose turn it is.
    fn choose(&mut self, ask: Ask<P>) {
        let chosen = match self.directory.next(&ask.service) {
            Ok(Address { shard, .. }) if self.is_behind(shard) => Err(Failure::Overloaded),
            chosen => chosen,
        };
        match chosen {
            Ok(Address { shard, offer }) => self.send(shard, ServiceMessage::Give { offer, ask }),
            Err(why) => self
                .send(ask.from, ServiceMessage::Answer { waiting: ask.waiting, answer: Err(why) }),
        }
    }

    // As the shard of a responder.

    /// A request for the member who has this offer. If it cannot take it, another one may.
    fn give(&mut self, key: Key, ask: Ask<P>) {
        let Some(offer) = self.offers.get_mut(key) else { return self.ask(ask) };
        let member = offer.member;
        let has = self.members.get_mut(&member).expect("it has this offer");
        if has.serving.len() >= self.limits.serving_max {
            if !offer.resting {
                offer.resting = true;
                has.resting += 1;
                let owner = self.owner(&ask.service);
                self.send(owner, ServiceMessage::Rest { offer: key.index });
            }
            return self.ask(ask);
        }
        let Ask { from, waiting, service, deadline_ms, payload } = ask;
        let serving =
            Serving { member, from, waiting, service, deadline_ms, payload: Some(payload) };
        let serving = self.serving.insert(&mut has.serving, serving);
        self.serving_deadlines.push(deadline_ms, serving);
        self.ready.push_back(Ready::Request(serving));
    }

    fn question(&mut self, key: Key) -> Option<ServiceEvent<P>> {
        let serving = self.serving.get_mut(key)?;
        let payload = serving.payload.take()?;
        let (member, service) = (serving.member, Arc::clone(&serving.service));
        Some(ServiceEvent::Request { member, request: RequestId(key), service, payload })
    }

    fn end_serving(&mut self, key: Key) -> Serving<P> {
        let member = self.serving.get(key).expect("it is served").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let serving = self.serving.remove(&mut has.serving, key);
        self.serving_deadlines.trim(&self.serving);
        if has.resting > 0 && has.serving.len() <= self.limits.serving_max / 2 {
            self.wake(member);
        }
        self.forget_if_bare(member);
        serving
    }

    /// The member takes requests again.
    fn wake(&mut self, member: Member) {
        let has = self.members.get_mut(&member).expect("it has offers that rest");
        has.resting = 0;
        let mut woken = Vec::new();
        self.offers.for_each(has.offers, |key, offer| {
            if std::mem::take(&mut offer.resting) {
                woken.push((key.index, Arc::clone(&offer.service)));
            }
        });
        for (offer, service) in woken {
            self.send(self.owner(&service), ServiceMessage::Wake { offer });
        }
    }

    fn end_offer(&mut self, key: Key) {
        let member = self.offers.get(key).expect("it is offered").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let Offer { service, resting, .. } = self.offers.remove(&mut has.offers, key);
        has.resting -= u32::from(resting);
        self.forget_if_bare(member);
        self.send(self.owner(&service), ServiceMessage::Unserve { offer: key.index });
    }

    /// The member's offer of `service`. Looks at all its offers: it has few.
    fn offer_of(&self, member: Member, service: &str) -> Option<Key> {
        let mut offers = self.offers.of(self.entries_of(member).offers);
        offers.find(|(_, offer)| &*offer.service == service).map(|(key, _)| key)
    }

    // As all of them.

    fn entries_of(&self, member: Member) -> MemberEntries {
        self.members.get(&member).copied().unwrap_or_default()
    }

    /// A member that has nothing costs nothing.
    fn forget_if_bare(&mut self, member: Member) {
        if self.members.get(&member) == Some(&MemberEntries::default()) {
            self.members.remove(&member);
            self.members.trim();
        }
    }

    /// The shard that owns `service`: the same on all shards.
    fn owner(&self, service: &str) -> Shard {
        let mut hasher = DefaultHasher::new();
        (self.hash_seed, service).hash(&mut hasher);
        (hasher.finish() % self.messages.len() as u64) as Shard
    }

    /// Whether so many notes wait for a shard that nothing new is begun with it.
    fn is_behind(&self, to: Shard) -> bool {
        self.messages[usize::from(to)].len() >= self.limits.messages_max && to != self.shard
    }

    fn ask(&mut self, ask: Ask<P>) {
        self.send(self.owner(&ask.service), ServiceMessage::Ask(ask));
    }

    fn send(&mut self, to: Shard, message: ServiceMessage<P>) {
        if to == self.shard {
            self.own_messages.push_back(message);
        } else {
            self.messages[usize::from(to)].push(message);
        }
    }

    /// Obeys what this shard has written to itself.
    fn settle(&mut self) {
        while let Some(message) = self.own_messages.pop_front() {
            self.obey(self.shard, message);
        }
        self.own_messages.trim();
    }

    fn obey(&mut self, from: Shard, message: ServiceMessage<P>) {
        match message {
            ServiceMessage::Serve { offer, service } => self.directory.add(from, offer, service),
            ServiceMessage::Unserve { offer } => self.directory.remove(from, offer),
            ServiceMessage::Rest { offer } => self.directory.rest(from, offer),
            ServiceMessage::Wake { offer } => self.directory.wake(from, offer),
            ServiceMessage::Ask(ask) => self.choose(ask),
            ServiceMessage::Give { offer, ask } => self.give(offer, ask),
            ServiceMessage::Answer { waiting, answer } => self.answered(waiting, answer),
        }
    }
}
