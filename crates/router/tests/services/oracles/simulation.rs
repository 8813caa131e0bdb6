//! Several shards with messages that take their time, and an oracle that knows all.

use std::collections::{BTreeMap, BTreeSet};

use murre_router::services::{
    RequestError, RequestId, ServiceError, ServiceEvent, ServiceLimits, Stats,
};

use super::ROOMY;
use super::world::{MEMBERS, NAMES, Payload, Person, Ticket, World};

struct Request {
    person: Person,
    name: usize,
    deadline: u64,
    asked: u64,
    seen_by: Option<Person>,
    replied: Option<Result<(), Box<str>>>,
    outcome: bool,
}

struct Offer {
    person: Person,
    name: usize,
    ended: Option<u64>,
    /// When all shards knew of it.
    known: Option<u64>,
}

/// A request that a person has yet to answer.
struct Open {
    request: RequestId,
    ticket: Ticket,
}

struct Oracle {
    world: World,
    now: u64,
    /// Counts everything that happens.
    step: u64,
    /// By shard and number: the person that has it.
    persons: Vec<Vec<Person>>,
    /// By person.
    is_here: Vec<bool>,
    open: Vec<Vec<Open>>,
    offers: Vec<Offer>,
    /// By ticket.
    requests: Vec<Request>,
    outcomes: Outcomes,
    /// By shard: the members whose connections are congested.
    congested: Vec<BTreeSet<u32>>,
}

/// How often each outcome was told.
type Outcomes = BTreeMap<&'static str, u32>;

impl Oracle {
    fn new(bytes: &[u8], limits: ServiceLimits) -> Self {
        let world = World::new(bytes, limits);
        let persons: Vec<Vec<Person>> = (0..world.shards.len())
            .map(|shard| (0..MEMBERS as usize).map(|at| shard * MEMBERS as usize + at).collect())
            .collect();
        let count = persons.len() * MEMBERS as usize;
        Oracle {
            world,
            now: 0,
            step: 0,
            persons,
            is_here: vec![true; count],
            open: (0..count).map(|_| Vec::new()).collect(),
            offers: Vec::new(),
            requests: Vec::new(),
            outcomes: Outcomes::new(),
            congested: vec![BTreeSet::new(); count / MEMBERS as usize],
        }
    }

    fn run(mut self) -> Outcomes {
        while self.world.choices.has_more() {
            self.step += 1;
            let shard = self.world.any();
            match self.world.choices.number(40) {
                0..3 => self.serve(shard),
                3 => self.unserve(shard),
                4..12 => self.request(shard),
                12..18 => self.reply(shard),
                18 => {
                    let member = self.any_member();
                    self.leave(shard, member);
                }
                19..24 => {
                    let to = self.world.any();
                    self.world.hand_over(shard, to);
                }
                24..31 => {
                    let (to, count) = (self.world.any(), 1 + self.world.choices.index(4));
                    self.world.arrive(shard, to, count);
                }
                31..37 => self.tell(shard, self.step as usize % 3 + 1),
                37 if self.world.choices.bool() => {
                    let member = self.any_member();
                    self.congested[shard].insert(member);
                }
                37 => {
                    let member = self.any_member();
                    self.resume(shard, member);
                }
                38 if self.world.choices.bool() => {
                    self.now += u64::from(self.world.choices.number(20))
                }
                38 => self.expire(shard),
                _ => self.calm_down(),
            }
            self.check(shard);
        }
        self.end();
        self.outcomes
    }

    fn serve(&mut self, shard: usize) {
        let member = self.any_member();
        let (person, name) = (self.persons[shard][member as usize], self.any_name());
        let mut mine = self.offers.iter().filter(|o| o.person == person && o.ended.is_none());
        let count = mine.clone().count() as u32;
        let offers = mine.any(|offer| offer.name == name);
        match self.world.shards[shard].serve(member, NAMES[name]) {
            Ok(()) => {
                assert!(!offers && count < self.world.limits.services_max);
                self.offers.push(Offer { person, name, ended: None, known: None });
            }
            Err(ServiceError::AlreadyServing) => assert!(offers),
            Err(ServiceError::TooMany) => assert!(count == self.world.limits.services_max),
            Err(ServiceError::Overloaded) => assert!(self.world.has_full_messages(shard)),
            Err(why) => panic!("{why:?}"),
        }
    }

    fn unserve(&mut self, shard: usize) {
        let member = self.any_member();
        let (person, name, step) =
            (self.persons[shard][member as usize], self.any_name(), self.step);
        let mut offers = self.offers.iter_mut();
        let offer = offers.find(|o| (o.person, o.name, o.ended) == (person, name, None));
        let expected = offer.map(|offer| offer.ended = Some(step)).ok_or(ServiceError::NotServing);
        assert_eq!(self.world.shards[shard].unserve(member, NAMES[name]), expected);
    }

    fn request(&mut self, shard: usize) {
        let member = self.any_member();
        let (person, name) = (self.persons[shard][member as usize], self.any_name());
        let deadline = self.now + u64::from(self.world.choices.number(60));
        let ticket = self.requests.len() as Ticket;
        let mine = self.requests.iter().filter(|r| r.person == person && !r.outcome);
        let count = mine.count() as u32;
        let payload = Payload(ticket, Person::MAX);
        match self.world.shards[shard].request(member, ticket, NAMES[name], payload, deadline) {
            Ok(()) => {
                assert!(count < self.world.limits.requests_max);
                let (asked, seen_by, replied) = (self.step, None, None);
                let request =
                    Request { person, name, deadline, asked, seen_by, replied, outcome: false };
                self.requests.push(request);
            }
            Err(ServiceError::TooMany) => assert_eq!(count, self.world.limits.requests_max),
            Err(ServiceError::Overloaded) => assert!(self.world.has_full_messages(shard)),
            Err(why) => panic!("{why:?}"),
        }
    }

    /// Replies to a request of the member, or of another member.
    fn reply(&mut self, shard: usize) {
        let member = self.any_member();
        let person = self.persons[shard][member as usize];
        let choices = &mut self.world.choices;
        if choices.number(8) == 0 {
            let other = choices.index(self.open.len());
            if let Some(Open { request, .. }) = self.open[other].first() {
                let is_mine = self.open[person].iter().any(|open| open.request == *request);
                if !is_mine {
                    let forged =
                        self.world.shards[shard].reply(member, *request, Ok(Payload(0, person)));
                    assert_eq!(forged, Err(ServiceError::UnknownRequest));
                }
            }
        } else if !self.open[person].is_empty() {
            let at = choices.index(self.open[person].len());
            let answer =
                if choices.bool() { Ok(()) } else { Err(choices.number(256).to_string().into()) };
            let Open { request, ticket } = self.open[person].swap_remove(at);
            let text = request.to_string();
            let payload = answer.clone().map(|()| Payload(ticket, person));
            let services = &mut self.world.shards[shard];
            let request = text.parse().expect("a name");
            assert_eq!(services.reply(member, request, payload.clone()), Ok(()));
            assert_eq!(services.reply(member, request, payload), Err(ServiceError::UnknownRequest));
            self.requests[ticket as usize].replied = Some(answer);
        }
    }

    fn leave(&mut self, shard: usize, member: u32) {
        self.world.shards[shard].leave(member, |_| ());
        let person = std::mem::replace(&mut self.persons[shard][member as usize], self.open.len());
        self.is_here[person] = false;
        self.congested[shard].remove(&member);
        self.open[person].clear();
        let mine = self.offers.iter_mut().filter(|o| o.person == person && o.ended.is_none());
        mine.for_each(|offer| offer.ended = Some(self.step));
        self.is_here.push(true);
        self.open.push(Vec::new());
    }

    fn expire(&mut self, shard: usize) {
        self.world.shards[shard].expire(self.now);
        for &person in &self.persons[shard] {
            let requests = &self.requests;
            self.open[person].retain(|open| requests[open.ticket as usize].deadline > self.now);
        }
    }

    /// The connection of a member takes more.
    fn resume(&mut self, shard: usize, member: u32) {
        if self.congested[shard].remove(&member) {
            self.world.shards[shard].resume(member);
        }
    }

    fn calm_down(&mut self) {
        self.world.calm_down();
        for offer in self.offers.iter_mut().filter(|offer| offer.known.is_none()) {
            offer.known = Some(self.step);
        }
    }

    fn tell(&mut self, shard: usize, at_most: usize) {
        for _ in 0..at_most {
            let congested = &self.congested[shard];
            match self.world.shards[shard].event(|member| !congested.contains(&member)) {
                None => break,
                Some(ServiceEvent::Request {
                    member,
                    request,
                    service,
                    payload: Payload(ticket, _),
                }) => {
                    self.asked(self.persons[shard][member as usize], request, &service, ticket);
                }
                Some(ServiceEvent::Response { member, ticket, service, payload }) => {
                    let request = self.ended(shard, member, ticket, &service);
                    assert_eq!(request.replied, Some(Ok(())));
                    assert_eq!(
                        Some(payload),
                        request.seen_by.map(|person| Payload(ticket, person))
                    );
                    self.count("response");
                }
                Some(ServiceEvent::Failed { member, ticket, service, error }) => {
                    self.ended(shard, member, ticket, &service);
                    self.failed(ticket, error);
                }
            }
        }
    }

    /// Checks a request that a person gets: the person offers the service and has room for the request,
    /// which no other person has seen.
    fn asked(&mut self, person: Person, id: RequestId, service: &str, ticket: Ticket) {
        let request = &mut self.requests[ticket as usize];
        assert_eq!(service, NAMES[request.name]);
        assert_eq!(request.seen_by.replace(person), None, "two were asked");
        let offered = |offer: &Offer| {
            (offer.person, offer.name) == (person, request.name)
                && offer.ended.is_none_or(|ended| ended >= request.asked)
        };
        assert!(self.offers.iter().any(offered), "it does not offer this");
        self.open[person].push(Open { request: id, ticket });
        assert!(self.open[person].len() as u32 <= self.world.limits.serving_max);
        self.count("request");
    }

    /// Checks that an outcome goes to the requester, and is the only one of the request.
    fn ended(&mut self, shard: usize, member: u32, ticket: Ticket, service: &str) -> &Request {
        let request = &mut self.requests[ticket as usize];
        assert_eq!(request.person, self.persons[shard][member as usize], "somebody else's");
        assert_eq!(service, NAMES[request.name]);
        assert!(!std::mem::replace(&mut request.outcome, true), "two outcomes");
        request
    }

    /// There is a reason for what the requester hears.
    fn failed(&mut self, ticket: Ticket, error: RequestError) {
        let request = &self.requests[ticket as usize];
        let what = match error {
            RequestError::NoResponders => {
                let had_one = |offer: &Offer| {
                    offer.name == request.name
                        && offer.ended.is_none()
                        && offer.known.is_some_and(|known| known < request.asked)
                };
                assert!(!self.offers.iter().any(had_one), "somebody offers this");
                assert_eq!(request.seen_by, None);
                "no responders"
            }
            RequestError::Overloaded => {
                assert!(self.world.limits.serving_max < ROOMY.serving_max, "there is room");
                // Only a response that is too much for a congested connection was seen.
                assert!(request.seen_by.is_none() || request.replied == Some(Ok(())));
                "overloaded"
            }
            RequestError::ResponderGone => {
                assert!(!self.is_here[request.seen_by.expect("somebody had it")]);
                assert_eq!(request.replied, None);
                "responder gone"
            }
            RequestError::ResponderFailed(text) => {
                assert_eq!(request.replied, Some(Err(text)));
                "responder failed"
            }
            RequestError::Timeout => {
                assert!(request.deadline <= self.now);
                "timeout"
            }
            RequestError::TooLarge => panic!("there are no other nodes"),
        };
        self.count(what);
    }

    fn count(&mut self, what: &'static str) {
        *self.outcomes.entry(what).or_default() += 1;
    }

    fn any_member(&mut self) -> u32 {
        self.world.choices.number(MEMBERS)
    }

    fn any_name(&mut self) -> usize {
        self.world.choices.index(NAMES.len())
    }

    /// The shard has what its members have.
    fn check(&mut self, shard: usize) {
        let stats = self.world.shards[shard].stats();
        let is_here = |person: Person| self.persons[shard].contains(&person);
        let offers = self.offers.iter().filter(|o| is_here(o.person) && o.ended.is_none());
        let waiting = self.requests.iter().filter(|r| is_here(r.person) && !r.outcome);
        assert_eq!((stats.offers, stats.waiting), (offers.count(), waiting.count()));
    }

    /// Nothing more is asked: everybody has an outcome when time has passed, and when everybody has
    /// left there is nothing.
    fn end(&mut self) {
        self.step += 1;
        for _ in 0..3 {
            for shard in 0..self.world.shards.len() {
                (0..MEMBERS).for_each(|member| self.resume(shard, member));
                self.tell(shard, usize::MAX);
            }
            self.calm_down();
        }
        for shard in 0..self.world.shards.len() {
            self.tell(shard, usize::MAX);
            assert_eq!(self.world.shards[shard].stats().parked_bytes, 0);
        }
        let is_lost = |request: &Request| {
            let is_open = self.is_here[request.person] && !request.outcome;
            is_open && request.deadline > self.now && request.seen_by.is_none()
        };
        assert!(!self.requests.iter().any(is_lost), "a request is nowhere");
        self.now += 100;
        for shard in 0..self.world.shards.len() {
            self.expire(shard);
            self.tell(shard, usize::MAX);
        }
        self.calm_down();
        for shard in 0..self.world.shards.len() {
            self.tell(shard, usize::MAX);
            self.check(shard);
            let Stats { waiting, serving, .. } = self.world.shards[shard].stats();
            assert_eq!((waiting, serving, self.world.shards[shard].next_expiry()), (0, 0, None));
        }
        let is_told = |request: &Request| request.outcome || !self.is_here[request.person];
        assert!(self.requests.iter().all(is_told), "somebody waits");
        for shard in 0..self.world.shards.len() {
            (0..MEMBERS).for_each(|member| self.leave(shard, member));
        }
        self.calm_down();
        for services in &mut self.world.shards {
            assert_eq!((services.stats(), services.event(|_| true)), (Stats::default(), None));
        }
    }
}

/// Members come and go, their numbers are used again, messages are late: every request has one
/// outcome, for which there is a reason, is seen by one responder at most, and nothing is left.
pub(crate) fn several(bytes: &[u8], limits: ServiceLimits) -> BTreeMap<&'static str, u32> {
    Oracle::new(bytes, limits).run()
}
