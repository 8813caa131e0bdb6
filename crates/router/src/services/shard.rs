//! The services of one shard: their state, and the commands, messages and times that change it.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::backplane::ServiceBackplane;
use super::deadlines::Deadlines;
use super::directory::{Directory, Readiness};
use super::entries::Entries;
use super::event::{RequestError, ServiceError, ServiceEvent};
use super::limits::{ServiceLimits, Stats};
use super::message::{Request, Requester, ServiceMessage};
use super::records::{ByteLen, MemberEntries, Offer, Ready, Serving, Waiting};
use super::request_id::RequestId;
use crate::memory::Trim;
use crate::names::{Member, Shard, Ticket};

/// The services of one shard. `P` is the payload of requests and answers.
///
/// Members act through [`serve`](Self::serve), [`unserve`](Self::unserve), [`request`](Self::request),
/// [`reply`](Self::reply) and [`leave`](Self::leave); messages of other shards come through
/// [`receive`](Self::receive), and time through [`expire`](Self::expire). After each of these the caller
/// takes the [messages](Self::messages) for other shards and the [events](Self::event) for members.
pub struct Services<P> {
    pub(super) shard: Shard,
    pub(super) hash_seed: u64,
    pub(super) limits: ServiceLimits,
    /// Members that have entries.
    pub(super) members: HashMap<Member, MemberEntries>,
    pub(super) offers: Entries<Offer>,
    /// Requests of this shard's members, until the members have been told their outcome.
    pub(super) waiting: Entries<Waiting<P>>,
    pub(super) waiting_deadlines: Deadlines,
    /// Requests for offers of this shard's members.
    pub(super) serving: Entries<Serving<P>>,
    pub(super) serving_deadlines: Deadlines,
    pub(super) directory: Directory,
    /// The way to other nodes; `None` if this one is alone.
    pub(super) backplane: Option<Box<dyn ServiceBackplane<P> + Send>>,
    /// Entries that an event is due for. They may have ended since.
    pub(super) ready: VecDeque<Ready>,
    /// Messages of this shard to itself; empty between calls.
    pub(super) own_messages: VecDeque<ServiceMessage<P>>,
    /// Number of members whose connections are congested.
    pub(super) congested: usize,
    /// Bytes of payload parked for all members.
    pub(super) parked_bytes: usize,
    /// Messages by receiving shard.
    pub(super) messages: Vec<Vec<ServiceMessage<P>>>,
}

/// Requests of each kind that one call of `expire` ends at most.
const EXPIRED_PER_CALL: usize = 256;

impl<P: ByteLen> Services<P> {
    /// The services of `shard`, one of `shards` shards that have the same `hash_seed`.
    ///
    /// # Panics
    /// If `shard` is none of them, or `limits.serving_max` is 0.
    pub fn new(shard: Shard, shards: u16, hash_seed: u64, limits: ServiceLimits) -> Self {
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
            backplane: None,
            ready: VecDeque::new(),
            own_messages: VecDeque::new(),
            congested: 0,
            parked_bytes: 0,
            messages: (0..shards).map(|_| Vec::new()).collect(),
        }
    }

    /// Asks other nodes as well, by this backplane.
    #[must_use]
    pub fn with_backplane(self, backplane: Box<dyn ServiceBackplane<P> + Send>) -> Self {
        Services { backplane: Some(backplane), ..self }
    }

    /// Adds an offer of `service` by a member.
    ///
    /// # Errors
    /// `AlreadyServing`, `TooMany` and `Overloaded`.
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

    /// Ends the member's offer of `service`. The member may still reply to the requests that it has.
    ///
    /// # Errors
    /// `NotServing`.
    pub fn unserve(&mut self, member: Member, service: &str) -> Result<(), ServiceError> {
        let offer = self.offer_of(member, service).ok_or(ServiceError::NotServing)?;
        self.end_offer(offer);
        self.deliver_own_messages();
        Ok(())
    }

    /// Sends a request to a member that offers `service`. The outcome comes as an event with `ticket`, at
    /// the latest when `expire` is called at `deadline_ms`, in milliseconds of the clock of all shards.
    ///
    /// # Errors
    /// `TooMany` and `Overloaded`. No event follows then.
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
                requester: Requester::Here { shard: self.shard, waiting },
                service,
                deadline_ms,
                payload,
            }),
        );
        self.deliver_own_messages();
        Ok(())
    }

    /// Answers a request that the member has seen, or reports why it failed.
    ///
    /// # Errors
    /// `UnknownRequest`.
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
        let Serving { requester, .. } = self.end_serving(key);
        self.tell(requester, answer.map_err(RequestError::ResponderFailed));
        self.deliver_own_messages();
        Ok(())
    }

    /// Removes a member that has left: its offers end, the requesters that it has seen requests of get
    /// `ResponderGone`, and its own requests are forgotten: `forgotten` is called with their tickets, for
    /// which no event comes. The member's number may be used again at once.
    pub fn leave(&mut self, member: Member, mut forgotten: impl FnMut(Ticket)) {
        while let Some(key) = self.waiting.first(self.entries_of(member).waiting) {
            forgotten(self.end_waiting(key).ticket);
        }
        while let Some(key) = self.offers.first(self.entries_of(member).offers) {
            self.end_offer(key);
        }
        while let Some(key) = self.serving.first(self.entries_of(member).serving) {
            let Serving { requester, service, deadline_ms, payload, .. } = self.end_serving(key);
            match payload {
                None => self.tell(requester, Err(RequestError::ResponderGone)),
                // The member has not seen it, so another one may answer.
                Some(payload) => {
                    self.send_request(Request { requester, service, deadline_ms, payload });
                }
            }
        }
        self.deliver_own_messages();
    }

    /// Handles a message of shard `from`. The messages of one shard must come in their order.
    pub fn receive(&mut self, from: Shard, message: ServiceMessage<P>) {
        self.handle(from, message);
        self.deliver_own_messages();
    }

    /// The messages queued for shard `to`, oldest first. The caller removes the ones that it hands over.
    pub fn messages(&mut self, to: Shard) -> &mut Vec<ServiceMessage<P>> {
        &mut self.messages[usize::from(to)]
    }

    /// Removes and returns the next event for a member. `takes` says whether a member's connection takes
    /// more now. An event for a member whose connection does not is parked until
    /// [`resume`](Self::resume); a request that the member has not seen goes to another member instead, if
    /// there is one whose connection takes more.
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
            // The entry has ended: it was told, its member has left, or its time is over.
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

    /// Resumes a member whose connection takes more again: parked events for it become due. O(1) while no
    /// member is congested.
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

    /// Ends requests whose deadline has come at `now_ms`. A call ends a bounded number of them, so
    /// `next_expiry` may still be in the past.
    pub fn expire(&mut self, now_ms: u64) {
        for _ in 0..EXPIRED_PER_CALL {
            let Some(key) = self.waiting_deadlines.take_due(now_ms) else { break };
            self.answered(key, Err(RequestError::Timeout));
        }
        for _ in 0..EXPIRED_PER_CALL {
            let Some(key) = self.serving_deadlines.take_due(now_ms) else { break };
            // The requester's shard has the same deadline and reports the timeout.
            if self.serving.get(key).is_some() {
                self.end_serving(key);
            }
        }
        self.waiting_deadlines.trim(&self.waiting);
        self.serving_deadlines.trim(&self.serving);
        self.deliver_own_messages();
    }

    /// The time, in milliseconds, at which `expire` next has work.
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

    pub(super) fn entries_of(&self, member: Member) -> MemberEntries {
        self.members.get(&member).copied().unwrap_or_default()
    }

    /// Forgets a member without entries.
    pub(super) fn forget_if_empty(&mut self, member: Member) {
        let MemberEntries { offers, waiting, serving, .. } = self.entries_of(member);
        if offers.len() + waiting.len() + serving.len() == 0
            && let Some(has) = self.members.remove(&member)
        {
            self.congested -= usize::from(has.congested);
            self.members.trim();
        }
    }

    /// The shard that owns `service`: the same on all shards.
    pub(super) fn owner(&self, service: &str) -> Shard {
        let mut hasher = DefaultHasher::new();
        (self.hash_seed, service).hash(&mut hasher);
        (hasher.finish() % self.messages.len() as u64) as Shard
    }

    /// Whether the messages that wait for a shard have reached their bound.
    pub(super) fn is_behind(&self, to: Shard) -> bool {
        self.messages[usize::from(to)].len() >= self.limits.messages_max && to != self.shard
    }

    pub(super) fn send_request(&mut self, request: Request<P>) {
        self.send(self.owner(&request.service), ServiceMessage::Request(request));
    }

    pub(super) fn send(&mut self, to: Shard, message: ServiceMessage<P>) {
        if to == self.shard {
            self.own_messages.push_back(message);
        } else {
            self.messages[usize::from(to)].push(message);
        }
    }

    /// Handles the messages of this shard to itself.
    pub(super) fn deliver_own_messages(&mut self) {
        while let Some(message) = self.own_messages.pop_front() {
            self.handle(self.shard, message);
        }
        self.own_messages.trim();
    }

    pub(super) fn handle(&mut self, from: Shard, message: ServiceMessage<P>) {
        match message {
            ServiceMessage::Serve { offer, service } => self.add_offer(from, offer, service),
            ServiceMessage::Unserve { offer } => self.remove_offer(from, offer),
            ServiceMessage::Ready { offer, readiness } => {
                self.directory.set(from, offer, readiness);
            }
            ServiceMessage::Request(request) => self.choose(request),
            ServiceMessage::Assign { offer, request } => self.assign(offer, request),
            ServiceMessage::Outcome { waiting, answer } => self.answered(waiting, answer),
        }
    }
}
