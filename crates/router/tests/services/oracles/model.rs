//! One shard against a naive model, which says for every step what may be told.

use std::collections::{BTreeMap, BTreeSet};

use murre_router::services::{
    ByteLen, RequestError, RequestId, ServiceError, ServiceEvent, ServiceLimits, Services, Stats,
};

use super::choices::Choices;

#[derive(Clone, Debug)]
enum Step {
    Serve(u32, usize),
    Unserve(u32, usize),
    Request(u32, usize, u64),
    /// To one of all requests there ever were.
    Reply(u32, usize, bool),
    /// Replies by the responder of one of the open requests.
    ReplyRightly(usize, bool),
    Leave(u32),
    Pass(u64),
}

const NAMES: [&str; 3] = ["one", "two", "three"];
const MEMBERS: u32 = 4;
const LIMITS: ServiceLimits = ServiceLimits {
    services_max: 2,
    requests_max: 4,
    serving_max: 3,
    messages_max: 0,
    parked_bytes_max: 0,
    parked_bytes_total_max: 0,
};

impl Step {
    fn any(choices: &mut Choices) -> Self {
        match choices.number(19) {
            0..3 => Step::Serve(choices.number(MEMBERS), choices.index(NAMES.len())),
            3 => Step::Unserve(choices.number(MEMBERS), choices.index(NAMES.len())),
            4..12 => {
                let (member, name) = (choices.number(MEMBERS), choices.index(NAMES.len()));
                Step::Request(member, name, u64::from(choices.number(50)))
            }
            12 => Step::Reply(choices.number(MEMBERS), choices.index(256), choices.bool()),
            13..17 => Step::ReplyRightly(choices.index(256), choices.bool()),
            17 => Step::Leave(choices.number(MEMBERS)),
            _ => Step::Pass(u64::from(choices.number(30))),
        }
    }
}

/// What requests and answers carry.
#[derive(Clone, Debug, PartialEq)]
struct Number(u32);

impl ByteLen for Number {
    fn byte_len(&self) -> usize {
        4
    }
}

struct Waiting {
    member: u32,
    name: usize,
    deadline: u64,
}

struct Serving {
    request: RequestId,
    member: u32,
    ticket: u32,
    deadline: u64,
}

#[derive(Default)]
struct Model {
    now: u64,
    offers: BTreeSet<(u32, usize)>,
    waiting: BTreeMap<u32, Waiting>,
    serving: Vec<Serving>,
    /// Members that were full and have not had half of that since.
    may_rest: BTreeSet<u32>,
    requests: Vec<RequestId>,
}

impl Model {
    fn load(&self, member: u32) -> u32 {
        self.serving.iter().filter(|serving| serving.member == member).count() as u32
    }

    fn end_serving(&mut self, ends: impl Fn(&Serving) -> bool) -> Vec<Serving> {
        let ended: Vec<Serving> = self.serving.extract_if(.., |serving| ends(serving)).collect();
        for member in 0..MEMBERS {
            if self.load(member) <= LIMITS.serving_max / 2 {
                self.may_rest.remove(&member);
            }
        }
        ended
    }

    /// The event with the outcome of `ticket`, if its requester still waits.
    fn end_waiting(
        &mut self,
        ticket: u32,
        answer: Result<Number, RequestError>,
    ) -> Option<ServiceEvent<Number>> {
        let Waiting { member, name, .. } = self.waiting.remove(&ticket)?;
        let service = NAMES[name].into();
        Some(match answer {
            Ok(payload) => ServiceEvent::Response { member, ticket, service, payload },
            Err(error) => ServiceEvent::Failed { member, ticket, service, error },
        })
    }

    fn reply(
        &mut self,
        services: &mut Services<Number>,
        member: u32,
        request: RequestId,
        ok: bool,
    ) {
        let ended =
            self.end_serving(|serving| (serving.member, serving.request) == (member, request));
        let answer = if ok { Ok(Number(member)) } else { Err("cannot".into()) };
        let replied = services.reply(member, request, answer.clone());
        let Some(serving) = ended.first() else {
            assert_eq!(replied, Err(ServiceError::UnknownRequest));
            return assert_eq!(services.event(|_| true), None);
        };
        assert_eq!(replied, Ok(()));
        let expected =
            self.end_waiting(serving.ticket, answer.map_err(RequestError::ResponderFailed));
        assert_eq!(services.event(|_| true), expected);
    }

    fn request(&mut self, services: &mut Services<Number>, ticket: u32, waiting: Waiting) {
        let Waiting { member, name, deadline } = waiting;
        let open = self.waiting.values().filter(|waiting| waiting.member == member).count();
        let taken = services.request(member, ticket, NAMES[name], Number(ticket), deadline);
        if open as u32 == LIMITS.requests_max {
            return assert_eq!(taken, Err(ServiceError::TooMany));
        }
        assert_eq!(taken, Ok(()));
        self.waiting.insert(ticket, waiting);
        let offers = |member: &u32| self.offers.contains(&(*member, name));
        let mut responders = (0..MEMBERS).filter(offers);
        match services.event(|_| true).expect("somebody hears of it") {
            ServiceEvent::Request { member, request, service, payload } => {
                assert_eq!((&*service, payload.0), (NAMES[name], ticket));
                assert!(offers(&member) && self.load(member) < LIMITS.serving_max);
                self.serving.push(Serving { request, member, ticket, deadline });
                self.requests.push(request);
                if self.load(member) == LIMITS.serving_max {
                    self.may_rest.insert(member);
                }
            }
            ServiceEvent::Failed { ticket: failed, error, .. } => {
                assert_eq!(failed, ticket);
                match error {
                    RequestError::NoResponders => assert_eq!(responders.next(), None),
                    RequestError::Overloaded => {
                        assert!(responders.clone().next().is_some());
                        assert!(responders.all(|member| self.may_rest.contains(&member)));
                    }
                    why => panic!("{why:?}"),
                }
                self.waiting.remove(&ticket);
            }
            event => panic!("{event:?}"),
        }
    }

    fn step(&mut self, services: &mut Services<Number>, ticket: u32, step: Step) {
        let mut expected = Vec::new();
        match step {
            Step::Serve(member, name) => {
                let open = self.offers.range((member, 0)..(member + 1, 0)).count() as u32;
                let refused = if self.offers.contains(&(member, name)) {
                    Err(ServiceError::AlreadyServing)
                } else if open == LIMITS.services_max {
                    Err(ServiceError::TooMany)
                } else {
                    self.offers.insert((member, name));
                    Ok(())
                };
                assert_eq!(services.serve(member, NAMES[name]), refused);
            }
            Step::Unserve(member, name) => {
                let was = self.offers.remove(&(member, name));
                let refused = if was { Ok(()) } else { Err(ServiceError::NotServing) };
                assert_eq!(services.unserve(member, NAMES[name]), refused);
            }
            Step::Request(member, name, ms) => {
                let deadline = self.now + ms;
                self.request(services, ticket, Waiting { member, name, deadline });
            }
            Step::Reply(member, at, ok) => {
                let known = at.checked_rem(self.requests.len()).map(|at| self.requests[at]);
                let request = known.unwrap_or("0-1".parse().expect("a name"));
                self.reply(services, member, request, ok);
            }
            Step::ReplyRightly(at, ok) => {
                if let Some(at) = at.checked_rem(self.serving.len()) {
                    let Serving { request, member, .. } = self.serving[at];
                    self.reply(services, member, request, ok);
                }
            }
            Step::Leave(member) => {
                services.leave(member, |_| ());
                self.waiting.retain(|_, waiting| waiting.member != member);
                self.offers.retain(|(offers, _)| *offers != member);
                for Serving { ticket, .. } in self.end_serving(|serving| serving.member == member) {
                    expected.extend(self.end_waiting(ticket, Err(RequestError::ResponderGone)));
                }
            }
            Step::Pass(ms) => {
                self.now += ms;
                let now = self.now;
                services.expire(now);
                self.end_serving(|serving| serving.deadline <= now);
                let due = self.waiting.iter().filter(|(_, waiting)| waiting.deadline <= now);
                for ticket in due.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
                    expected.extend(self.end_waiting(ticket, Err(RequestError::Timeout)));
                }
            }
        }
        let mut told: Vec<_> = std::iter::from_fn(|| services.event(|_| true)).collect();
        let order = |event: &ServiceEvent<Number>| match event {
            ServiceEvent::Failed { ticket, .. } => *ticket,
            event => panic!("{event:?}"),
        };
        told.sort_by_key(order);
        expected.sort_by_key(order);
        assert_eq!(told, expected);
        self.check(services);
    }

    fn check(&self, services: &Services<Number>) {
        let members = (self.offers.iter().map(|(member, _)| *member))
            .chain(self.waiting.values().map(|waiting| waiting.member))
            .chain(self.serving.iter().map(|serving| serving.member));
        let stats = Stats {
            members: members.collect::<BTreeSet<_>>().len(),
            offers: self.offers.len(),
            owned: self.offers.iter().map(|(_, name)| name).collect::<BTreeSet<_>>().len(),
            waiting: self.waiting.len(),
            serving: self.serving.len(),
            messages: 0,
            congested: 0,
            parked_bytes: 0,
        };
        assert_eq!(services.stats(), stats);
        let waiting = self.waiting.values().map(|waiting| waiting.deadline);
        let serving = self.serving.iter().map(|serving| serving.deadline);
        assert_eq!(services.next_expiry(), waiting.chain(serving).min());
    }
}

/// Whatever members do, in whatever order, is refused or told as the model says, and nothing is left
/// when they have gone.
pub(crate) fn one_shard(bytes: &[u8]) {
    let (mut services, mut model) = (Services::new(0, 1, 0, LIMITS), Model::default());
    let mut choices = Choices::new(bytes);
    for ticket in 0.. {
        if !choices.has_more() {
            break;
        }
        model.step(&mut services, ticket, Step::any(&mut choices));
    }
    for member in 0..MEMBERS {
        model.step(&mut services, 0, Step::Leave(member));
    }
    assert_eq!(services.stats(), Stats::default());
}
