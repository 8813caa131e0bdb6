//! Several nodes with services over a simulated NATS server that delays and disconnects. Members come and go, nodes
//! die. Every request has one outcome, for which there is a reason, is seen by one responder at most, and nothing
//! is left when all have gone.

mod broker;
mod cases;
mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fastrand::Rng;
use murre_router::channels::{Form, Payload};
use murre_router::services::{
    RequestError, RequestId, ServiceEvent, ServiceLimits, Services, Stats,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::broker::Broker;
use super::{Services as OfNode, ServicesOverNats};
use crate::backplane::nats::connection::Info;
use crate::backplane::nats::counts::{Counts, WaitingBytes};
use crate::backplane::nats::link::Link;
use crate::backplane::nats::mail::{FromNats, Mail};
use crate::backplane::nats::names::Names;
use crate::backplane::nats::{Command, Nats, NodeId, Shared};
use crate::hub::HubMail;
use crate::hub::rules::Namespaces;

const SHARDS: u16 = 2;
const SERVICES: [&str; 2] = ["double", "a.b *:>"];
/// The longest that a broker takes for a message, one way, in milliseconds.
const DELAY: u64 = 20;
const MAX_PAYLOAD: u64 = 4096;

const LIMITS: ServiceLimits = ServiceLimits {
    services_max: 10,
    requests_max: 10,
    serving_max: 4,
    messages_max: 100,
    parked_bytes_max: 1000,
    parked_bytes_total_max: 2000,
};

/// A member of one life of a node. Its number is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Person {
    node: usize,
    life: u64,
    shard: usize,
    member: u32,
}

/// What has become of a request.
#[derive(Debug)]
struct Asked {
    by: Person,
    deadline: u64,
    seen_by: Option<Person>,
    replied: Option<Result<(), Box<str>>>,
    outcome: Option<Result<(), RequestError>>,
}

/// Mail on its way to shards.
type Posted = VecDeque<(usize, Vec<FromNats>)>;

/// A life of a node: a process.
struct Life {
    number: u64,
    shared: Arc<Shared>,
    shards: Vec<Services<Payload>>,
    services: OfNode,
    link: Link,
    mail: Mail,
    posted: Arc<Mutex<Posted>>,
    commands: UnboundedReceiver<Command>,
    next_member: u32,
    offers: BTreeSet<(Person, &'static str)>,
    /// Members that have something to answer, or have asked.
    present: BTreeSet<Person>,
    congested: BTreeSet<Person>,
    open: Vec<(Person, RequestId, u32)>,
    /// When it connects again; `None` while it is connected.
    back_at: Option<u64>,
}

struct World {
    began: Instant,
    now: u64,
    nodes: Vec<Option<Life>>,
    broker: Broker,
    asked: Vec<Asked>,
    lives: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut world = World {
            began: Instant::now(),
            now: 1000,
            nodes: (0..nodes).map(|_| None).collect(),
            broker: Broker::new(nodes, seed),
            asked: Vec::new(),
            lives: 0,
            outcomes: BTreeMap::new(),
        };
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn start(&mut self, node: usize) {
        self.lives += 1;
        let cluster: crate::backplane::nats::Token = "c".parse().expect("a token");
        let shared = Arc::new(Shared {
            cluster: cluster.clone(),
            node: NodeId { name: "n".parse().expect("a token"), incarnation: self.lives },
            counts: Counts::default(),
            joined: AtomicBool::new(false),
            waiting: WaitingBytes::default(),
            next: AtomicU64::new(1),
        });
        let names = Arc::new(Names::new(cluster, Namespaces::new(&[]).expect("none"), Vec::new()));
        let (sender, commands) = unbounded_channel();
        let (shared_too, names_too) = (Arc::clone(&shared), Arc::clone(&names));
        let nats = Arc::new(Nats { shared: shared_too, names: names_too, commands: sender });
        let shard = |shard| {
            let backplane = ServicesOverNats::new(Arc::clone(&nats), shard, self.began);
            Services::new(shard, SHARDS, 7, LIMITS).with_backplane(Box::new(backplane))
        };
        let posted = Arc::<Mutex<Posted>>::default();
        let posts = Arc::clone(&posted);
        let post = move |shard, mail| match mail {
            HubMail::FromNats(_, news) => {
                posts.lock().expect("one thread").push_back((shard, news));
                Ok(())
            }
            other => Err(other),
        };
        self.nodes[node] = Some(Life {
            number: self.lives,
            shards: (0..SHARDS).map(shard).collect(),
            services: OfNode::new(Arc::clone(&shared), names),
            link: Link::new(Arc::clone(&shared)).0,
            mail: Mail::new(SHARDS.into(), Box::new(post), Instant::now()),
            shared,
            posted,
            commands,
            next_member: 0,
            offers: BTreeSet::new(),
            present: BTreeSet::new(),
            congested: BTreeSet::new(),
            open: Vec::new(),
            back_at: Some(self.now),
        });
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
        self.broker.disconnect(node);
    }

    /// Breaks the connection of a node for some time.
    fn cut(&mut self, node: usize, ms: u64) {
        self.broker.disconnect(node);
        let back_at = self.now + ms;
        let life = self.life(node);
        if life.back_at.replace(back_at).is_none() {
            life.link.disconnected();
        }
    }

    fn life(&mut self, node: usize) -> &mut Life {
        self.nodes[node].as_mut().expect("it lives")
    }

    // ---- what members do ----

    /// A new member.
    fn person(&mut self, node: usize, shard: usize) -> Person {
        let life = self.life(node);
        life.next_member += 1;
        let person = Person { node, life: life.number, shard, member: life.next_member };
        life.present.insert(person);
        person
    }

    fn serve(&mut self, person: Person, service: &'static str) {
        let life = self.life(person.node);
        if life.offers.insert((person, service)) {
            life.shards[person.shard].serve(person.member, service).expect("there is room");
        }
    }

    fn unserve(&mut self, person: Person, service: &'static str) {
        let life = self.life(person.node);
        if life.offers.remove(&(person, service)) {
            life.shards[person.shard].unserve(person.member, service).expect("it is offered");
        }
    }

    /// Sends a request, unless the member has too many. Returns its number.
    fn ask(&mut self, by: Person, service: &str, bytes: usize, timeout: u64) -> Option<u32> {
        let number = self.asked.len() as u32;
        let data = format!("\"{number}{}\"", "x".repeat(bytes));
        let payload = Payload::new(Form::Json, data.into_bytes());
        let deadline = self.now + timeout;
        let shard = &mut self.life(by.node).shards[by.shard];
        shard.request(by.member, number, service, payload, deadline).ok()?;
        self.asked.push(Asked { by, deadline, seen_by: None, replied: None, outcome: None });
        Some(number)
    }

    fn reply(&mut self, person: Person, request: RequestId, number: u32, ok: bool) {
        let answer = match ok {
            true => Ok(Payload::new(Form::Json, number.to_string().into_bytes())),
            false => Err(format!("no {number}").into()),
        };
        let replied = answer.clone().map(|_| ());
        let shard = &mut self.life(person.node).shards[person.shard];
        // The deadline may be over.
        if shard.reply(person.member, request, answer).is_ok() {
            self.asked[number as usize].replied = Some(replied);
        }
        self.life(person.node).open.retain(|(_, of, _)| *of != request);
    }

    fn leave(&mut self, person: Person) {
        let life = self.life(person.node);
        life.shards[person.shard].leave(person.member, |_| ());
        life.present.remove(&person);
        life.congested.remove(&person);
        life.offers.retain(|(of, _)| *of != person);
        life.open.retain(|(of, ..)| *of != person);
    }

    // ---- time ----

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.broker.turn(self.now);
            (0..self.nodes.len()).for_each(|node| self.step(node));
        }
    }

    fn step(&mut self, node: usize) {
        let (now_ms, now) = (self.now, self.at(self.now));
        let Some(life) = &mut self.nodes[node] else { return };
        let Life { services, link, mail, shards, commands, posted, .. } = life;
        if life.back_at.is_some_and(|back| back <= now_ms) {
            life.back_at = None;
            let mut info = Info::default();
            info.max_payload = MAX_PAYLOAD;
            link.connected(info, now);
            services.connected(link);
        }
        if life.back_at.is_none() {
            let mut input = BytesMut::from(&*self.broker.receive(node, now_ms));
            let taken = link.take(&mut input, |link, message| {
                let left = services.message(message, link, mail, now);
                assert_eq!(left, None, "all is about services");
            });
            taken.expect("NATS");
        }
        services.tick(now);
        mail.post(Instant::now());
        for (shard, news) in posted.lock().expect("one thread").drain(..) {
            for news in news {
                match news {
                    FromNats::Requested { request, service, payload, left } => {
                        shards[shard].requested(
                            request,
                            service,
                            payload,
                            now_ms + u64::from(left),
                        );
                    }
                    FromNats::Outcome { waiting, answer } => shards[shard].outcome(waiting, answer),
                    other => panic!("{other:?}"),
                }
            }
        }
        for shard in 0..usize::from(SHARDS) {
            shards[shard].expire(now_ms);
            for to in (0..usize::from(SHARDS)).filter(|to| *to != shard) {
                let messages: Vec<_> = shards[shard].messages(to as u16).drain(..).collect();
                messages.into_iter().for_each(|message| shards[to].receive(shard as u16, message));
            }
        }
        while let Ok(command) = commands.try_recv() {
            let Command::Service(command) = command else { panic!("of services") };
            services.obey(command, link, mail, now);
        }
        let out = link.out().split();
        if life.back_at.is_none() {
            self.broker.send(node, &out, now_ms);
        }
        (0..usize::from(SHARDS)).for_each(|shard| self.tell(node, shard));
    }

    /// Hands events to the members of a shard.
    fn tell(&mut self, node: usize, shard: usize) {
        loop {
            let life = self.life(node);
            let number = life.number;
            let of = |member| Person { node, life: number, shard, member };
            let congested = &life.congested;
            let takes = |member| !congested.contains(&of(member));
            match life.shards[shard].event(takes) {
                None => return,
                Some(ServiceEvent::Request { member, request, service, payload }) => {
                    let (person, asked) = (of(member), number_of(&payload));
                    assert!(life.present.contains(&person));
                    life.open.push((person, request, asked));
                    assert!(SERVICES.contains(&&*service));
                    let before = self.asked[asked as usize].seen_by.replace(person);
                    assert_eq!(before, None, "{asked} is seen twice");
                    self.count("request");
                }
                Some(ServiceEvent::Response { member, ticket, payload, .. }) => {
                    assert_eq!(number_of(&payload), ticket);
                    self.ended(of(member), ticket, Ok(()));
                }
                Some(ServiceEvent::Failed { member, ticket, error, .. }) => {
                    self.ended(of(member), ticket, Err(error));
                }
            }
        }
    }

    /// Checks an outcome.
    fn ended(&mut self, person: Person, number: u32, outcome: Result<(), RequestError>) {
        let lives = |of: Person| {
            let life = self.nodes[of.node].as_ref().filter(|life| life.number == of.life);
            life.is_some_and(|life| life.present.contains(&of))
        };
        let asked = &self.asked[number as usize];
        assert_eq!((asked.by, &asked.outcome), (person, &None), "{number}");
        let what = match &outcome {
            Ok(()) => {
                assert_eq!(asked.replied, Some(Ok(())), "{number}");
                "response"
            }
            Err(RequestError::NoResponders) => {
                assert_eq!(asked.seen_by, None, "{number}");
                "no responders"
            }
            Err(RequestError::Overloaded) => {
                // An answer for a requester that is congested may be too much.
                assert!(asked.seen_by.is_none() || asked.replied.is_some(), "{number}");
                "overloaded"
            }
            Err(RequestError::ResponderGone) => {
                assert!(asked.seen_by.is_some_and(|person| !lives(person)), "{number}");
                "responder gone"
            }
            Err(RequestError::ResponderFailed(why)) => {
                assert_eq!(asked.replied, Some(Err(why.clone())), "{number}");
                "responder failed"
            }
            Err(RequestError::Timeout) => {
                assert!(asked.deadline <= self.now, "{number}");
                "timeout"
            }
            Err(RequestError::TooLarge) => "too large",
        };
        self.asked[number as usize].outcome = Some(outcome);
        self.count(what);
    }

    fn count(&mut self, what: &'static str) {
        *self.outcomes.entry(what).or_default() += 1;
    }

    /// The outcome of a request.
    fn outcome(&self, number: u32) -> Option<&Result<(), RequestError>> {
        self.asked[number as usize].outcome.as_ref()
    }

    /// Everybody leaves, and nothing is left.
    fn end(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(life) = &self.nodes[node] else { continue };
            life.present.clone().into_iter().for_each(|person| self.leave(person));
        }
        // The longest time of a request, and the way of what is left.
        self.pass(2000);
        for (node, life) in self.nodes.iter().enumerate() {
            let Some(life) = life else { continue };
            for shard in &life.shards {
                assert_eq!(shard.stats(), Stats::default());
            }
            let OfNode { offered, by_number, sent, deadlines, bytes, .. } = &life.services;
            let left = [offered.len(), by_number.len(), sent.len(), deadlines.len(), *bytes];
            assert_eq!(left, [0; 5]);
            assert_eq!(format!("{:?}", life.shared.waiting), "WaitingBytes(0)");
            // The inbox, and the answers.
            assert_eq!(self.broker.subscriptions(node), 2);
            assert_eq!(life.shared.counts.malformed.load(Relaxed), 0);
        }
    }
}

/// The number of a request, at the front of its data.
fn number_of(payload: &Payload) -> u32 {
    let text = str::from_utf8(payload.data()).expect("JSON");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}
