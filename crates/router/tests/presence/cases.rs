//! One behaviour a test.

use std::sync::{Arc, Mutex};

use murre_router::channels::{Interest, Origin};
use murre_router::presence::{
    Changes, Count, Departure, Meta, Presence, PresenceBackplane, PresenceEvent, PresenceQuery,
    PresenceRules, PresentMember, RemoteEvent, Stats, WINDOW_MS, Watch,
};

use crate::world::{Known, World};

const RULES: PresenceRules =
    PresenceRules { lists: true, push_max: 4, interval_ms: 1000, grace_ms: 500 };
const WATCHER: u32 = 9;

/// One shard and a connection that watches the channel `c`.
struct One(World);

impl One {
    fn watched(watch: Watch) -> Self {
        let mut one = One(World::new(1, 10, |_| Some(RULES)));
        one.watch(watch);
        one
    }

    fn watch(&mut self, watch: Watch) {
        self.0.shards[0].watch(WATCHER, "c", watch, self.0.now).expect("room");
        self.0.connections[0].known.insert((WATCHER, "c".into()), Known::Nothing);
        self.0.settle();
    }

    fn join(&mut self, origin: u64, user: &str) {
        self.meta(origin, user, None);
    }

    fn meta(&mut self, origin: u64, user: &str, meta: Option<Meta>) {
        let now = self.0.now;
        self.0.shards[0].join("c", Origin(origin), &user.into(), meta, now).expect("room");
    }

    fn leave(&mut self, origin: u64, how: Departure) {
        self.0.shards[0].leave("c", Origin(origin), how, self.0.now);
    }

    fn pass(&mut self, ms: u64) {
        self.0.now += ms;
        self.0.settle();
    }

    fn told(&self, kind: &str) -> u32 {
        self.0.connections[0].told.get(kind).copied().unwrap_or(0)
    }

    fn known(&self) -> &Known {
        &self.0.connections[0].known[&(WATCHER, "c".into())]
    }

    fn members(&self) -> Vec<u64> {
        let Known::Members(members) = self.known() else { panic!("{:?}", self.known()) };
        members.keys().map(|(_, origin)| *origin).collect()
    }

    fn count(&self) -> (u64, u64) {
        let Known::Count(count) = self.known() else { panic!("{:?}", self.known()) };
        (count.clients, count.users)
    }
}

/// Joins and leaves are told once a window. A member that came and went within one is left out.
#[test]
fn a_window_gathers_changes() {
    let mut one = One::watched(Watch::Members);
    (0..4).for_each(|origin| one.join(origin, "u"));
    one.leave(2, Departure::Left);
    one.pass(WINDOW_MS - 1);
    assert_eq!((one.members(), one.told("joins")), (vec![], 0));
    one.pass(1);
    assert_eq!((one.members(), one.told("joins"), one.told("leaves")), (vec![0, 1, 3], 3, 0));
    one.leave(0, Departure::Left);
    one.join(5, "u");
    one.leave(5, Departure::Left);
    one.pass(WINDOW_MS);
    assert_eq!((one.members(), one.told("joins"), one.told("leaves")), (vec![1, 3], 3, 1));
}

/// A member that joins and is seen by a new watcher before it leaves within the same window is told as a
/// leave, because that watcher knows it.
#[test]
fn a_watcher_in_the_middle_of_a_window() {
    let mut one = One::watched(Watch::Members);
    one.join(1, "u");
    one.watch(Watch::Members);
    assert_eq!(one.members(), [1]);
    one.leave(1, Departure::Left);
    one.pass(WINDOW_MS);
    assert_eq!((one.members(), one.told("leaves")), (vec![], 1));
}

/// A user who comes back within the grace has not left: the new connection takes the place of the lost
/// one in one window. A user who does not leaves when the grace is over.
#[test]
fn grace() {
    let mut one = One::watched(Watch::Members);
    one.join(1, "u");
    one.join(2, "v");
    one.pass(WINDOW_MS);
    one.leave(1, Departure::Lost);
    one.leave(2, Departure::Lost);
    one.pass(499);
    assert_eq!(one.members(), [1, 2]);
    one.join(3, "u");
    one.pass(1);
    assert_eq!(one.members(), [1, 2], "the window is open");
    one.pass(WINDOW_MS);
    assert_eq!((one.members(), one.told("leaves")), (vec![3], 2));
    // The same connection comes back, as one that polls does.
    one.leave(3, Departure::Lost);
    one.pass(400);
    one.join(3, "u");
    one.pass(1000);
    assert_eq!((one.members(), one.told("leaves")), (vec![3], 2));
    one.leave(3, Departure::Lost);
    one.leave(3, Departure::Lost);
    one.leave(3, Departure::Left);
    one.pass(WINDOW_MS);
    assert_eq!(one.members(), [0_u64; 0]);
}

/// An update is told with the version that it replaces. The same metadata again is no update.
#[test]
fn updates() {
    let mut one = One::watched(Watch::Members);
    one.join(1, "u");
    one.pass(WINDOW_MS);
    for meta in [b"1", b"1", b"2"] {
        one.meta(1, "u", Some(Meta::new(meta)));
    }
    one.pass(WINDOW_MS);
    assert_eq!((one.told("updates"), one.told("leaves")), (1, 1));
    let Known::Members(members) = one.known() else { panic!() };
    assert_eq!(members[&(0, 1)].meta, Some(Meta::new(b"2")));
    one.meta(1, "u", Some(Meta::new(b"2")));
    one.pass(WINDOW_MS);
    assert_eq!(one.told("updates"), 1);
}

/// A channel with more than `push_max` members is large, at once: watchers get counts, at most one in an
/// interval. With less than half of it they get all members again.
#[test]
fn crossing_the_bound() {
    let mut one = One::watched(Watch::Members);
    (0..4).for_each(|origin| one.join(origin, "u"));
    one.pass(WINDOW_MS);
    assert_eq!(one.members(), [0, 1, 2, 3]);
    one.join(4, "v");
    one.pass(0);
    assert_eq!((one.count(), one.told("counts")), ((5, 2), 1));
    for origin in 5..15 {
        one.join(origin, "v");
        one.pass(99);
    }
    assert_eq!((one.count(), one.told("counts")), ((5, 2), 1));
    one.pass(10);
    assert_eq!((one.count(), one.told("counts")), ((15, 2), 2));
    (2..15).for_each(|origin| one.leave(origin, Departure::Left));
    one.pass(999);
    assert_eq!(one.told("counts"), 2, "two members are half of the bound");
    one.pass(1);
    assert_eq!((one.count(), one.told("counts")), ((2, 1), 3));
    one.leave(1, Departure::Left);
    one.pass(0);
    assert_eq!(one.members(), [0]);
}

/// Watchers of counts get them at most once an interval, and none when nothing has changed.
#[test]
fn counts_are_rare() {
    let mut one = One::watched(Watch::Counts);
    assert_eq!((one.count(), one.told("counts")), ((0, 0), 1));
    for origin in 0..30 {
        one.join(origin, "u");
        one.pass(100);
    }
    assert!((3..=4).contains(&one.told("counts")), "{}", one.told("counts"));
    one.pass(1000);
    let told = one.told("counts");
    assert_eq!(one.count(), (30, 1));
    one.pass(5000);
    assert_eq!(one.told("counts"), told);
}

/// Queries with the largest and smallest numbers have pages that make sense.
#[test]
fn extremes_of_queries() {
    let mut one = One::watched(Watch::Counts);
    for (origin, user) in ["", "__proto__", &"é".repeat(127)].into_iter().enumerate() {
        one.meta(origin as u64, user, Some(Meta::new(&[b'1'; 1024])));
    }
    for (from, limit, bytes_max, members, more) in [
        (0, 0, 0, 0, false),
        (0, 1, 0, 1, true),
        (0, u32::MAX, u32::MAX, 3, false),
        (0, u32::MAX, 2300, 2, true),
        (1, u32::MAX, 1, 1, true),
        (u32::MAX, u32::MAX, u32::MAX, 0, false),
    ] {
        let query = PresenceQuery { from: u64::from(from), limit, bytes_max };
        one.0.shards[0].read("c", query, 1, 0).expect("room");
        let Some(PresenceEvent::Page { page, .. }) = one.0.shards[0].event() else { panic!() };
        assert_eq!(page.count, Count { clients: 3, users: 3 });
        assert_eq!((page.members.len(), page.next.is_some()), (members, more), "{query:?}");
    }
}

/// A backplane that records what it is told.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<String>>>);

impl Recorded {
    fn add(&self, text: String) {
        self.0.lock().expect("no panic").push(text);
    }
}

impl PresenceBackplane for Recorded {
    fn exchanges(&self) -> bool {
        true
    }

    fn interest(&mut self, channel: &str, interest: Interest) {
        self.add(format!("{channel} {interest:?}"));
    }

    fn changes(&mut self, channel: &str, changes: &Changes, left: usize) {
        let Changes { joins, leaves } = changes;
        self.add(format!("{channel} +{} -{} ={left}", joins.len(), leaves.len()));
    }

    fn members(&mut self, channel: &str, members: &[PresentMember]) {
        self.add(format!("{channel} ={}", members.len()));
    }

    fn count(&mut self, channel: &str, count: Count) {
        self.add(format!("{channel} {}/{}", count.clients, count.users));
    }
}

/// The members of a dead node leave many channels, a bounded number of them in each call; those that the node
/// has anew, because it is back, stay.
#[test]
fn a_dead_node_has_many_channels() {
    const CHANNELS: u64 = 100_000;
    let mut shard: Presence = Presence::new(0, 1, 7, |_| Some(RULES), 10);
    shard = shard.with_backplane(Box::new(Recorded::default()));
    let event = |channel: u64, origin| RemoteEvent::Members {
        node: 2,
        channel: channel.to_string().into(),
        members: vec![PresentMember {
            node: 2,
            origin: Origin(origin),
            stamp: 1,
            replaces: 0,
            user: "far".into(),
            meta: None,
        }],
    };
    for channel in 0..CHANNELS {
        shard.watch(WATCHER, &channel.to_string(), Watch::Counts, 0).expect("room");
        shard.remote(event(channel, channel), 0);
    }
    assert_eq!(shard.stats().members, CHANNELS);
    shard.remote(RemoteEvent::Gone { node: 2 }, 0);
    let mut left = shard.stats().members;
    assert!((CHANNELS - 1500..CHANNELS).contains(&left), "{left} after the first call");
    let back = [0, CHANNELS - 1];
    back.into_iter().for_each(|channel| shard.remote(event(channel, CHANNELS), 0));
    while left > back.len() as u64 {
        assert_eq!(shard.next_expiry(), Some(0), "there is more to do");
        shard.expire(0);
        let before = std::mem::replace(&mut left, shard.stats().members);
        assert!(before - left <= 1500 && before >= left, "{before} - {left} in one call");
    }
    shard.expire(0);
    assert_eq!(shard.stats().members, back.len() as u64, "only what it has anew");
    for channel in back {
        let query = PresenceQuery { from: 0, limit: 9, bytes_max: 1000 };
        let page = shard.page(&channel.to_string(), query);
        assert_eq!(
            (page.count, page.members),
            (Count::default(), vec![]),
            "a page is of this node"
        );
    }
}

/// What other nodes say is told to watchers as if it were of here, counts for the bound, and ends with
/// the node. Other nodes are told this node's members only.
#[test]
fn other_nodes() {
    let recorded = Recorded::default();
    let shard = Presence::new(0, 1, 7, |_| Some(RULES), 10);
    let mut one = One(World::new(1, 10, |_| None));
    one.0.shards[0] = shard.with_backplane(Box::new(recorded.clone()));
    let member = |node, origin| PresentMember {
        node,
        origin: Origin(origin),
        stamp: 1,
        replaces: 0,
        user: "far".into(),
        meta: None,
    };
    let channel = || Arc::<str>::from("c");
    let changes = |joins, leaves| RemoteEvent::Changes {
        node: 2,
        channel: channel(),
        changes: Changes { joins, leaves },
    };
    one.0.shards[0].remote(changes(vec![member(2, 1)], vec![]), 0);
    assert_eq!(one.0.shards[0].stats().members, 0, "nobody watches");
    one.watch(Watch::Members);
    one.join(1, "near");
    one.0.shards[0].remote(changes(vec![member(2, 1), member(2, 7)], vec![member(2, 7)]), 0);
    one.pass(WINDOW_MS);
    assert_eq!(one.members(), [1, 1, 7], "one is of here, two of the other node");
    one.0.shards[0].remote(changes(vec![], vec![member(2, 1), member(2, 8)]), 0);
    let members = vec![member(3, 3), member(3, 4)];
    one.0.shards[0].remote(RemoteEvent::Members { node: 3, channel: channel(), members }, 0);
    one.pass(WINDOW_MS);
    assert_eq!(one.members(), [1, 7, 3, 4]);
    let members = vec![member(3, 4)];
    one.0.shards[0].remote(RemoteEvent::Members { node: 3, channel: channel(), members }, 0);
    one.0.shards[0].remote(RemoteEvent::Gone { node: 2 }, 0);
    one.pass(WINDOW_MS);
    assert_eq!(one.members(), [1, 4]);
    let count = Count { clients: u64::MAX, users: 3 };
    one.0.shards[0].remote(RemoteEvent::Count { node: 3, channel: channel(), count }, 0);
    one.pass(0);
    assert_eq!(one.count(), (u64::MAX, 4), "the sum does not overflow");
    one.0.shards[0].remote(RemoteEvent::Gone { node: 3 }, 0);
    one.pass(WINDOW_MS);
    assert_eq!(one.members(), [1]);
    one.0.shards[0].tell("c");
    one.0.shards[0].unwatch(WATCHER, "c", 0);
    one.leave(1, Departure::Left);
    one.pass(1000);
    assert_eq!(one.0.shards[0].stats(), Stats::default());
    let told = recorded.0.lock().expect("no panic").clone();
    let all = ["c First", "c +1 -0 =1", "c 1/1", "c =1", "c =1", "c Last", "c +0 -1 =0"];
    assert_eq!(told, all);
}
