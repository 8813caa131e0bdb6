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
//! *A full responder rests*: its shard tells the owner, which passes it over until it has half of
//! what it may have. So does a responder whose connection is congested, unless nobody else takes
//! requests: then they are parked until its connection takes more. A request therefore goes round
//! again only because of a change that its owner hears of before it comes back: overload does not
//! make work.
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

pub use directory::Readiness;
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
    /// Bytes of payload parked for members.
    parked_bytes: usize,
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
    /// Requests that it is to answer and has not seen.
    unseen: u32,
    /// Bytes of payload that are parked for it.
    parked_bytes: usize,
    /// Its connection took no more when it was last asked.
    congested: bool,
    /// What its offers are, which changes late enough not to change all the time.
    readiness: Readiness,
}

struct Offer {
    member: Member,
    service: Arc<str>,
    /// As the owner was told.
    readiness: Readiness,
}

struct Waiting<P> {
    member: Member,
    ticket: Ticket,
    service: Arc<str>,
    /// The outcome, which has still to be told.
    answer: Option<Result<P, Failure>>,
    /// It waits for its member's connection, and is counted with this many bytes.
    parked: Option<usize>,
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
    /// It waits for its member's connection, and is counted with this many bytes.
    parked: Option<usize>,
}

enum Ready {
    Answer(Key),
    Request(Key),
}

/// With this many requests that it has not seen a responder that was congested takes new ones.
const FEW: u32 = 4;
/// How many requests of each kind one call of `expire` ends.
const EXPIRED_PER_CALL: usize = 256;

/// The size of what requests and responses carry.
pub trait ByteLen {
    /// Bytes of payload.
    fn byte_len(&self) -> usize;
}

impl ByteLen for &str {
    fn byte_len(&self) -> usize {
        self.len()
    }
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
            parked_bytes: 0,
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
        let offer = Offer { member, service: Arc::clone(&service), readiness: Readiness::Active };
        let offer = self.offers.insert(&mut has.offers, offer);
        self.send(owner, ServiceMessage::Serve { offer, service });
        self.update_offers(member);
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
        let waiting =
            Waiting { member, ticket, service: Arc::clone(&service), answer: None, parked: None };
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
    /// member takes more now. What is for one that does not is parked until [`resume`](Self::resume);
    /// a request that it has not seen goes to another member, if there is one whose connection takes
    /// more.
    pub fn event(&mut self, mut takes: impl FnMut(Member) -> bool) -> Option<ServiceEvent<P>> {
        while let Some(ready) = self.ready.pop_front() {
            self.ready.trim();
            let member = match ready {
                Ready::Answer(key) => self.waiting.get(key).map(|waiting| waiting.member),
                Ready::Request(key) => {
                    let serving = self.serving.get(key);
                    serving.filter(|of| of.payload.is_some()).map(|serving| serving.member)
                }
            };
            // It was told already, the member has left, or time has ended it.
            let Some(member) = member else { continue };
            if takes(member) {
                return Some(match ready {
                    Ready::Answer(key) => self.outcome(key),
                    Ready::Request(key) => self.question(key),
                });
            }
            self.members.get_mut(&member).expect("it has this").congested = true;
            self.update_readiness(member);
            match ready {
                Ready::Answer(key) => self.park_answer(key),
                Ready::Request(key) => self.put_off(key),
            }
            self.settle();
        }
        None
    }

    /// The member's connection takes more again: what is parked for it comes as events.
    pub fn resume(&mut self, member: Member) {
        let Some(has) = self.members.get_mut(&member) else { return };
        if !std::mem::take(&mut has.congested) {
            return;
        }
        // Lists have the newest first.
        let MemberEntries { waiting, serving, .. } = *has;
        let answers = self.waiting.of(waiting).filter(|(_, waiting)| waiting.parked.is_some());
        let mut ready: Vec<Ready> = answers.map(|(key, _)| Ready::Answer(key)).collect();
        let requests = self.serving.of(serving).filter(|(_, serving)| serving.parked.is_some());
        ready.extend(requests.map(|(key, _)| Ready::Request(key)));
        self.ready.extend(ready.into_iter().rev());
        self.update_readiness(member);
        self.settle();
    }

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
            parked_bytes: self.parked_bytes,
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

    fn outcome(&mut self, key: Key) -> ServiceEvent<P> {
        let Waiting { member, ticket, service, answer, .. } = self.end_waiting(key);
        match answer.expect("only what is answered is ready") {
            Ok(payload) => ServiceEvent::Response { member, ticket, service, payload },
            Err(why) => ServiceEvent::Failed { member, ticket, service, why },
        }
    }

    /// An outcome waits for the connection of its member. A response that is too much fails.
    fn park_answer(&mut self, key: Key) {
        let waiting = self.waiting.get_mut(key).expect("it is ready");
        let bytes = match &waiting.answer {
            _ if waiting.parked.is_some() => return,
            Some(Ok(payload)) => payload.byte_len(),
            _ => 0,
        };
        let has = self.members.get_mut(&waiting.member).expect("it has this");
        match park(has, &mut self.parked_bytes, bytes, self.limits.parked_bytes_max) {
            true => waiting.parked = Some(bytes),
            false => {
                waiting.answer = Some(Err(Failure::Overloaded));
                waiting.parked = Some(0);
            }
        }
    }

    fn end_waiting(&mut self, key: Key) -> Waiting<P> {
        let member = self.waiting.get(key).expect("it waits").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let waiting = self.waiting.remove(&mut has.waiting, key);
        unpark(has, &mut self.parked_bytes, waiting.parked);
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
            has.readiness = Readiness::Full;
            self.update_offers(member);
            return self.ask(ask);
        }
        has.unseen += 1;
        let is_congested = has.congested;
        let Ask { from, waiting, service, deadline_ms, payload } = ask;
        let (payload, parked) = (Some(payload), None);
        let serving = Serving { member, from, waiting, service, deadline_ms, payload, parked };
        let serving = self.serving.insert(&mut has.serving, serving);
        self.serving_deadlines.push(deadline_ms, serving);
        match is_congested {
            true => self.park_request(serving),
            false => self.ready.push_back(Ready::Request(serving)),
        }
    }

    fn question(&mut self, key: Key) -> ServiceEvent<P> {
        let serving = self.serving.get_mut(key).expect("it is ready");
        let payload = serving.payload.take().expect("it is ready once");
        let (member, service) = (serving.member, Arc::clone(&serving.service));
        let has = self.members.get_mut(&member).expect("it has this");
        has.unseen -= 1;
        unpark(has, &mut self.parked_bytes, serving.parked.take());
        self.update_readiness(member);
        self.settle();
        ServiceEvent::Request { member, request: RequestId(key), service, payload }
    }

    /// The member of a request does not take it: the owner knows of another one, or sends it back. One
    /// that was parked before stays.
    fn put_off(&mut self, key: Key) {
        if self.serving.get(key).expect("it is ready").parked.is_none() {
            let Serving { from, waiting, service, deadline_ms, payload, .. } =
                self.end_serving(key);
            let payload = payload.expect("it is ready");
            self.ask(Ask { from, waiting, service, deadline_ms, payload });
        }
    }

    /// A request waits for the connection of its member, unless that is too much.
    fn park_request(&mut self, key: Key) {
        let serving = self.serving.get_mut(key).expect("it was put there");
        let bytes = serving.payload.as_ref().map_or(0, P::byte_len);
        let has = self.members.get_mut(&serving.member).expect("it has this");
        if park(has, &mut self.parked_bytes, bytes, self.limits.parked_bytes_max) {
            serving.parked = Some(bytes);
            return;
        }
        let Serving { from, waiting, .. } = self.end_serving(key);
        self.send(from, ServiceMessage::Answer { waiting, answer: Err(Failure::Overloaded) });
    }

    fn end_serving(&mut self, key: Key) -> Serving<P> {
        let member = self.serving.get(key).expect("it is served").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let serving = self.serving.remove(&mut has.serving, key);
        unpark(has, &mut self.parked_bytes, serving.parked);
        has.unseen -= u32::from(serving.payload.is_some());
        self.serving_deadlines.trim(&self.serving);
        self.update_readiness(member);
        self.forget_if_bare(member);
        serving
    }

    /// The member takes requests again once it has half of what it may have, and after congestion once
    /// it has seen most of what was parked.
    fn update_readiness(&mut self, member: Member) {
        let Some(has) = self.members.get_mut(&member) else { return };
        let is_full = match has.readiness {
            Readiness::Full => has.serving.len() > self.limits.serving_max / 2,
            _ => false,
        };
        let is_congested = match has.readiness {
            Readiness::Active => has.congested,
            _ => has.congested || has.unseen > FEW,
        };
        has.readiness = match (is_full, is_congested) {
            (true, _) => Readiness::Full,
            (_, true) => Readiness::Congested,
            _ => Readiness::Active,
        };
        self.update_offers(member);
    }

    /// Tells owners what the member's offers are, where they do not know it.
    fn update_offers(&mut self, member: Member) {
        let MemberEntries { offers, readiness, .. } = self.entries_of(member);
        let mut changed = Vec::new();
        self.offers.for_each(offers, |key, offer| {
            if std::mem::replace(&mut offer.readiness, readiness) != readiness {
                changed.push((key.index, Arc::clone(&offer.service)));
            }
        });
        for (offer, service) in changed {
            self.send(self.owner(&service), ServiceMessage::Ready { offer, readiness });
        }
    }

    fn end_offer(&mut self, key: Key) {
        let member = self.offers.get(key).expect("it is offered").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let Offer { service, .. } = self.offers.remove(&mut has.offers, key);
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
        let MemberEntries { offers, waiting, serving, .. } = self.entries_of(member);
        if offers.len() + waiting.len() + serving.len() == 0 {
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
            ServiceMessage::Ready { offer, readiness } => {
                self.directory.set(from, offer, readiness);
            }
            ServiceMessage::Ask(ask) => self.choose(ask),
            ServiceMessage::Give { offer, ask } => self.give(offer, ask),
            ServiceMessage::Answer { waiting, answer } => self.answered(waiting, answer),
        }
    }
}

/// Counts what is parked for a member, unless it is too much.
fn park(has: &mut MemberEntries, parked_bytes: &mut usize, bytes: usize, max: usize) -> bool {
    let fits = has.parked_bytes.saturating_add(bytes) <= max;
    if fits {
        has.parked_bytes += bytes;
        *parked_bytes += bytes;
    }
    fits
}

/// Something that was parked is not any more.
fn unpark(has: &mut MemberEntries, parked_bytes: &mut usize, parked: Option<usize>) {
    has.parked_bytes -= parked.unwrap_or(0);
    *parked_bytes -= parked.unwrap_or(0);
}
