use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};

use bytes::BytesMut;

use super::*;
use crate::backplane::nats::connection::Info;
use crate::backplane::nats::counts::{Counts, WaitingBytes};
use crate::backplane::nats::wire::{self, Op};
use crate::backplane::nats::{NodeId, Token};
use crate::hub::HubMail;

/// The publications of a node with one stream.
struct Node {
    publishes: Publishes,
    link: Link,
    mail: Mail,
    posted: Receiver<HubMail>,
    start: Instant,
}

impl Node {
    fn new(ttl: Duration) -> Self {
        let token = |text: &str| text.parse::<Token>().expect("a token");
        let shared = Arc::new(Shared {
            cluster: token("c"),
            node: NodeId { name: token("n"), incarnation: 7 },
            counts: Counts::default(),
            joined: AtomicBool::new(false),
            waiting: WaitingBytes::default(),
            next: AtomicU64::new(1),
        });
        let (sender, posted) = channel();
        let start = Instant::now();
        let mail = Mail::new(
            1,
            Box::new(move |_, mail| sender.send(mail).map_err(|unsent| unsent.0)),
            start,
        );
        let kept = Kept { namespace: "kept".into(), size: 10, ttl };
        let (link, ..) = Link::new(Arc::clone(&shared));
        let publishes = Publishes::new(shared, &[kept]);
        let mut node = Node { publishes, link, mail, posted, start };
        node.connect(0);
        node
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn connect(&mut self, ms: u64) {
        let now = self.at(ms);
        self.link.connected(Info::default(), now);
        self.publishes.connected(&mut self.link, &mut self.mail, now);
    }

    fn publish(&mut self, id: u32, ms: u64) {
        let publish = Publish {
            shard: 0,
            id: AppendId(id),
            subject: "h.kept.x".into(),
            kept: Some((0, "kept:x".into())),
            room: 0,
            payload: b"data".to_vec(),
        };
        let now = self.at(ms);
        self.publishes.begin(publish, &mut self.link, &mut self.mail, now);
    }

    fn tick(&mut self, ms: u64) {
        let now = self.at(ms);
        self.publishes.tick(&mut self.link, &mut self.mail, now);
    }

    /// The ends of the reply subjects of what was sent to the stream since the last call.
    fn sent(&mut self) -> Vec<String> {
        let out = self.link.out().split();
        let text = str::from_utf8(&out).expect("text");
        let replies = text.lines().filter_map(|line| line.strip_prefix("HPUB h.kept.x "));
        let end = |reply: &str| reply.split([' ', '.']).nth(2).expect("a subject").to_owned();
        replies.map(end).collect()
    }

    fn answer(&mut self, reply: &str, headers: &str, payload: &str, ms: u64) {
        let (head, all) = (headers.len(), headers.len() + payload.len());
        let text = format!("HMSG a 1 {head} {all}\r\n{headers}{payload}\r\n");
        let op = wire::take(&mut BytesMut::from(&*text)).expect("NATS").expect("a whole one");
        let Op::Message(message) = op else { panic!("{op:?}") };
        let now = self.at(ms);
        let taken = self.publishes.acknowledged(reply, &message, &mut self.mail, now);
        assert!(taken.is_some(), "{reply}");
    }

    fn acknowledge(&mut self, reply: &str, ms: u64) {
        self.answer(reply, "NATS/1.0\r\n\r\n", r#"{"stream":"s","seq":5}"#, ms);
    }

    /// The outcomes since the last call: whether each was published.
    fn outcomes(&mut self) -> Vec<(u32, bool)> {
        self.mail.post(self.start);
        let mut outcomes = Vec::new();
        for mail in self.posted.try_iter() {
            let HubMail::FromNats(_, news) = mail else { panic!("other mail") };
            for news in news {
                let FromNats::Appended { id, outcome } = news else { panic!("{news:?}") };
                outcomes.push((id.0, outcome.is_ok()));
            }
        }
        outcomes
    }
}

/// A publication is sent again when a later one was acknowledged, and only then: those that are still in the stream's
/// queue are not.
#[test]
fn what_was_passed_over_is_sent_again() {
    let mut node = Node::new(Duration::from_secs(60));
    (0..5).for_each(|id| node.publish(id, 0));
    assert_eq!(node.sent(), ["p0-0", "p1-1", "p2-2", "p3-3", "p4-4"]);
    node.acknowledge("p2-2", 900);
    node.tick(1000);
    assert_eq!(node.sent(), ["p0-5", "p1-6"]);
    node.acknowledge("p0-5", 1900);
    node.tick(2000);
    // 1 was sent after 0; 3 and 4 were passed over by 0.
    assert_eq!(node.sent(), ["p3-7", "p4-8"]);
    assert_eq!(node.outcomes(), [(2, true), (0, true)]);
    // The first of two acknowledgements counts.
    node.acknowledge("p1-1", 2100);
    node.acknowledge("p1-6", 2100);
    assert_eq!(node.outcomes(), [(1, true)]);
    node.tick(4000);
    assert_eq!((node.outcomes(), node.publishes.len()), (vec![(3, false), (4, false)], 0));
    assert_eq!((node.publishes.bytes, node.publishes.streams[0].waiting), (0, 0));
}

/// While a stream says nothing, one publication a second is sent again, however many wait.
#[test]
fn a_silent_stream_gets_one_publication_a_second() {
    let mut node = Node::new(Duration::from_secs(60));
    (0..1000).for_each(|id| node.publish(id, 0));
    assert_eq!(node.sent().len(), 1000);
    for ms in (50..4000).step_by(50) {
        node.tick(ms);
    }
    assert_eq!(node.sent(), ["p0-1000", "p0-1001", "p0-1002"]);
    node.tick(4000);
    assert_eq!(node.outcomes().len(), 1000);
}

/// Beyond what NATS queues for a stream a publication is refused at once.
#[test]
fn what_waits_for_a_stream_is_bounded() {
    let mut node = Node::new(Duration::from_secs(60));
    (0..OF_STREAM_MAX as u32 + 1).for_each(|id| node.publish(id, 0));
    assert_eq!(node.outcomes(), [(OF_STREAM_MAX as u32, false)]);
    assert_eq!(node.sent().len(), OF_STREAM_MAX);
    node.acknowledge("p7-7", 1);
    node.publish(9999, 1);
    assert_eq!(node.outcomes(), [(7, true)]);
}

/// After a reconnect what waits is sent once, also when the stream is looked for again meanwhile.
#[test]
fn a_new_connection_gets_each_once() {
    let mut node = Node::new(Duration::from_secs(60));
    (0..3).for_each(|id| node.publish(id, 0));
    node.sent();
    node.link.disconnected();
    node.publish(3, 100);
    node.connect(500);
    node.publishes.stream_found(0, &mut node.link, &mut node.mail);
    assert_eq!(node.sent(), ["p0-3", "p1-4", "p2-5", "p3-6"]);
    node.acknowledge("p3-6", 600);
    // One that is late has another order.
    node.acknowledge("p0-0", 600);
    assert_eq!((node.outcomes(), node.sent().len()), (vec![(3, true), (0, true)], 0));
}

/// What no stream has taken is sent when there is one, and what is being stored already waits for its acknowledgement.
/// Everything else that NATS refuses is refused.
#[test]
fn answers_that_are_no_acknowledgements() {
    let mut node = Node::new(Duration::from_secs(60));
    (0..3).for_each(|id| node.publish(id, 0));
    node.sent();
    node.answer("p0-0", "NATS/1.0 503\r\n\r\n", "", 10);
    node.publishes.stream_found(0, &mut node.link, &mut node.mail);
    assert_eq!(node.sent(), ["p0-3"]);
    let busy = r#"{"error":{"code":400,"err_code":10158,"description":"in process"}}"#;
    node.answer("p1-1", "NATS/1.0\r\n\r\n", busy, 20);
    assert_eq!(node.outcomes(), []);
    let full = r#"{"error":{"code":429,"err_code":10167,"description":"too many requests"}}"#;
    node.answer("p1-1", "NATS/1.0 429 Too Many Requests\r\n\r\n", full, 30);
    node.answer("p2-2", "NATS/1.0 429 Too Many Requests\r\n\r\n", "", 30);
    assert_eq!(node.outcomes(), [(1, false), (2, false)]);
}

/// A publication is not sent again when its stream may have forgotten it: it would be stored twice.
#[test]
fn short_histories_forget() {
    let mut node = Node::new(Duration::from_secs(3));
    (0..2).for_each(|id| node.publish(id, 0));
    node.sent();
    node.tick(1000);
    assert_eq!(node.sent(), ["p0-2"]);
    node.acknowledge("p0-2", 1100);
    node.tick(2000);
    node.connect(2100);
    assert_eq!(node.sent(), Vec::<String>::new());
    node.tick(4000);
    assert_eq!(node.outcomes(), [(0, true), (1, false)]);
}
