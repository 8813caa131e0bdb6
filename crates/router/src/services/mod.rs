//! Services: a request goes to one of those who offer to answer it, and the answer comes back.
//!
//! Every service has an owner shard, by a hash of its name, which knows who offers it. A request
//! goes from the requester's shard to the owner, on to the shard of the one whose turn it is, and
//! the answer straight back. Each way is a message; on one shard it is the same without the message.
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
//! *Every queue has its bound*: entries by what a member may have, messages about new things by
//! `Limits::messages_max`. Other messages each belong to an entry.

mod deadlines;
mod directory;
mod entries;
mod event;
mod limits;
mod message;
mod parking;
mod request_id;
mod requester;
mod responder;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

pub use directory::Readiness;
pub use entries::Key;
pub use event::{RequestError, ServiceError, ServiceEvent};
pub use limits::{Limits, Stats};
pub use message::{Request, ServiceMessage};
pub use request_id::{ParseRequestIdError, RequestId};

use crate::memory::Trim;
use crate::{Member, Shard, Ticket};
use deadlines::Deadlines;
use directory::{Address, Directory};
use entries::{Entries, List};

/// One shard's part of request and reply. `P` is what a request and its answer carry.
///
/// Members act through `serve`, `unserve`, `request`, `reply` and `leave`; other shards' messages
/// come in through `receive`, and time through `expire`. After any of these there may be messages to
/// hand over (`messages`) and events to tell (`event`), which is what the caller ends its turn with.
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
    /// Requests for offers of this shard's members.
    serving: Entries<Serving<P>>,
    serving_deadlines: Deadlines,
    directory: Directory,
    /// Entries with something to tell. They may have ended meanwhile.
    ready: VecDeque<Ready>,
    /// Messages of this shard to itself; empty between calls.
    own_messages: VecDeque<ServiceMessage<P>>,
    /// Members that are congested.
    congested: usize,
    /// Bytes of payload parked for members.
    parked_bytes: usize,
    /// By the shard they are for.
    messages: Vec<Vec<ServiceMessage<P>>>,
}

/// The entries of one member, and its state.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct MemberEntries {
    offers: List,
    waiting: List,
    serving: List,
    /// Requests for its offers that it has not seen.
    unseen: u32,
    /// Bytes of payload that are parked for it.
    parked_bytes: usize,
    /// Its connection took no more when it was last asked.
    congested: bool,
    /// The readiness of its offers. It changes with hysteresis.
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
    answer: Option<Result<P, RequestError>>,
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

/// Requests of each kind that one call of `expire` ends at most.
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
            congested: 0,
            parked_bytes: 0,
            messages: (0..shards).map(|_| Vec::new()).collect(),
        }
    }

    /// The member offers `service` from now on.
    pub fn serve(&mut self, member: Member, service: &str) -> Result<(), ServiceError> {
        let owner = self.owner(service);
        if self.offer_of(member, service).is_some() {
            return Err(ServiceError::AlreadyServing);
        }
        if self.entries_of(member).offers.len() >= self.limits.services_max {
            return Err(ServiceError::TooMany);
        }
        if self.is_behind(owner) {
            return Err(ServiceError::Overloaded);
        }
        let service: Arc<str> = service.into();
        let has = self.members.entry(member).or_default();
        let offer = Offer { member, service: Arc::clone(&service), readiness: Readiness::Active };
        let offer = self.offers.insert(&mut has.offers, offer);
        self.send(owner, ServiceMessage::Serve { offer, service });
        self.update_offers(member);
        self.deliver_own_messages();
        Ok(())
    }

    /// The member no longer offers `service`. The requests it has may still be replied to.
    pub fn unserve(&mut self, member: Member, service: &str) -> Result<(), ServiceError> {
        let offer = self.offer_of(member, service).ok_or(ServiceError::NotServing)?;
        self.end_offer(offer);
        self.deliver_own_messages();
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
    ) -> Result<(), ServiceError> {
        let owner = self.owner(service);
        if self.entries_of(member).waiting.len() >= self.limits.requests_max {
            return Err(ServiceError::TooMany);
        }
        if self.is_behind(owner) {
            return Err(ServiceError::Overloaded);
        }
        let service: Arc<str> = service.into();
        let has = self.members.entry(member).or_default();
        let waiting =
            Waiting { member, ticket, service: Arc::clone(&service), answer: None, parked: None };
        let waiting = self.waiting.insert(&mut has.waiting, waiting);
        self.waiting_deadlines.push(deadline_ms, waiting);
        self.send(
            owner,
            ServiceMessage::Request(Request {
                from: self.shard,
                waiting,
                service,
                deadline_ms,
                payload,
            }),
        );
        self.deliver_own_messages();
        Ok(())
    }

    /// The member answers a request it has seen, or says why it cannot.
    pub fn reply(
        &mut self,
        member: Member,
        request: RequestId,
        answer: Result<P, Box<str>>,
    ) -> Result<(), ServiceError> {
        let RequestId(key) = request;
        match self.serving.get(key) {
            Some(serving) if serving.member == member && serving.payload.is_none() => {}
            _ => return Err(ServiceError::UnknownRequest),
        }
        let Serving { from, waiting, .. } = self.end_serving(key);
        let answer = answer.map_err(RequestError::ResponderFailed);
        self.send(from, ServiceMessage::Outcome { waiting, answer });
        self.deliver_own_messages();
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
                    let answer = Err(RequestError::ResponderGone);
                    self.send(from, ServiceMessage::Outcome { waiting, answer });
                }
                // Nobody has seen it: somebody else may answer.
                Some(payload) => {
                    self.send_request(Request { from, waiting, service, deadline_ms, payload })
                }
            }
        }
        self.deliver_own_messages();
    }

    /// Takes a message of shard `from`. Its messages must come in the order in which it wrote them.
    pub fn receive(&mut self, from: Shard, message: ServiceMessage<P>) {
        self.handle(from, message);
        self.deliver_own_messages();
    }

    /// Messages gathered for shard `to`. The caller takes them out when it can hand them over.
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
                    Ready::Answer(key) => self.outcome_event(key),
                    Ready::Request(key) => self.request_event(key),
                });
            }
            let has = self.members.get_mut(&member).expect("it has this");
            self.congested += usize::from(!std::mem::replace(&mut has.congested, true));
            self.update_readiness(member);
            match ready {
                Ready::Answer(key) => self.park_answer(key),
                Ready::Request(key) => self.send_back(key),
            }
            self.deliver_own_messages();
        }
        None
    }

    /// The member's connection takes more again: what is parked for it comes as events. Costs nothing
    /// while no member is congested.
    pub fn resume(&mut self, member: Member) {
        if self.congested == 0 {
            return;
        }
        let Some(has) = self.members.get_mut(&member) else { return };
        if !std::mem::take(&mut has.congested) {
            return;
        }
        self.congested -= 1;
        // Lists have the newest first.
        let MemberEntries { waiting, serving, .. } = *has;
        let answers = self.waiting.of(waiting).filter(|(_, waiting)| waiting.parked.is_some());
        let mut ready: Vec<Ready> = answers.map(|(key, _)| Ready::Answer(key)).collect();
        let requests = self.serving.of(serving).filter(|(_, serving)| serving.parked.is_some());
        ready.extend(requests.map(|(key, _)| Ready::Request(key)));
        self.ready.extend(ready.into_iter().rev());
        self.update_readiness(member);
        self.deliver_own_messages();
    }

    /// Whether no member is congested, so that [`resume`](Self::resume) has nothing to do. O(1).
    pub fn nobody_congested(&self) -> bool {
        self.congested == 0
    }

    /// Ends requests whose deadline has come by `now_ms`; a bounded number of them, so that
    /// `next_expiry` may still be in the past.
    pub fn expire(&mut self, now_ms: u64) {
        for _ in 0..EXPIRED_PER_CALL {
            let Some(key) = self.waiting_deadlines.take_due(now_ms) else { break };
            self.answered(key, Err(RequestError::Timeout));
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
        self.deliver_own_messages();
    }

    /// When `expire` has something to do.
    pub fn next_expiry(&self) -> Option<u64> {
        let both = [self.waiting_deadlines.next(), self.serving_deadlines.next()];
        both.into_iter().flatten().min()
    }

    /// Counts of this shard.
    pub fn stats(&self) -> Stats {
        Stats {
            members: self.members.len(),
            offers: self.offers.len(),
            owned: self.directory.len(),
            waiting: self.waiting.len(),
            serving: self.serving.len(),
            congested: self.congested,
            parked_bytes: self.parked_bytes,
            messages: self.messages.iter().map(Vec::len).sum(),
        }
    }

    /// Gives the request to the one whose turn it is.
    fn choose(&mut self, request: Request<P>) {
        let chosen = match self.directory.next(&request.service) {
            Ok(Address { shard, .. }) if self.is_behind(shard) => Err(RequestError::Overloaded),
            chosen => chosen,
        };
        match chosen {
            Ok(Address { shard, offer }) => {
                self.send(shard, ServiceMessage::Assign { offer, request })
            }
            Err(why) => self.send(
                request.from,
                ServiceMessage::Outcome { waiting: request.waiting, answer: Err(why) },
            ),
        }
    }

    fn entries_of(&self, member: Member) -> MemberEntries {
        self.members.get(&member).copied().unwrap_or_default()
    }

    /// A member that has nothing costs nothing.
    fn forget_if_empty(&mut self, member: Member) {
        let MemberEntries { offers, waiting, serving, .. } = self.entries_of(member);
        if offers.len() + waiting.len() + serving.len() == 0
            && let Some(has) = self.members.remove(&member)
        {
            self.congested -= usize::from(has.congested);
            self.members.trim();
        }
    }

    /// The shard that owns `service`: the same on all shards.
    fn owner(&self, service: &str) -> Shard {
        let mut hasher = DefaultHasher::new();
        (self.hash_seed, service).hash(&mut hasher);
        (hasher.finish() % self.messages.len() as u64) as Shard
    }

    /// Whether so many messages wait for a shard that nothing new is begun with it.
    fn is_behind(&self, to: Shard) -> bool {
        self.messages[usize::from(to)].len() >= self.limits.messages_max && to != self.shard
    }

    fn send_request(&mut self, request: Request<P>) {
        self.send(self.owner(&request.service), ServiceMessage::Request(request));
    }

    fn send(&mut self, to: Shard, message: ServiceMessage<P>) {
        if to == self.shard {
            self.own_messages.push_back(message);
        } else {
            self.messages[usize::from(to)].push(message);
        }
    }

    /// Obeys what this shard has written to itself.
    fn deliver_own_messages(&mut self) {
        while let Some(message) = self.own_messages.pop_front() {
            self.handle(self.shard, message);
        }
        self.own_messages.trim();
    }

    fn handle(&mut self, from: Shard, message: ServiceMessage<P>) {
        match message {
            ServiceMessage::Serve { offer, service } => self.directory.add(from, offer, service),
            ServiceMessage::Unserve { offer } => self.directory.remove(from, offer),
            ServiceMessage::Ready { offer, readiness } => {
                self.directory.set(from, offer, readiness);
            }
            ServiceMessage::Request(request) => self.choose(request),
            ServiceMessage::Assign { offer, request } => self.assign(offer, request),
            ServiceMessage::Outcome { waiting, answer } => self.answered(waiting, answer),
        }
    }
}
