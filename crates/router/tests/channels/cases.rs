//! Situations that the models do not look for: which shards are visited, which readers wait, which
//! publications are refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use murre_router::Member;
use murre_router::channels::{
    Append, AppendId, Backplane, ChannelError, Channels, Direction, Event, HistoryQuery, Interest,
    Limits, Origin, Overrun, Payload, Position, Publication, Publisher, Pulled, Start, Stats,
    Subscribers, Taken,
};

use crate::oracles::{number, payload, publisher, rules};

type Shard = Channels<Option<u32>>;

/// So many shards, all with these limits.
fn shards<const N: usize>(limits: Limits) -> [Shard; N] {
    std::array::from_fn(|shard| Channels::new(shard as u16, N as u16, 1, rules, limits))
}

/// A channel of this namespace that the shard owns.
fn owned_by(channels: &Shard, shard: u16, namespace: &str) -> String {
    let mut names = (0..).map(|number| format!("{namespace}:{number}"));
    names.find(|name| channels.owner(name) == shard).expect("every shard owns some")
}

/// Carries all messages until there are none; returns how many there were to each shard.
fn carry<const N: usize>(shards: &mut [Shard; N]) -> [usize; N] {
    let mut carried = [0; N];
    while shards.iter().any(|channels| channels.stats().messages_waiting > 0) {
        for from in 0..N {
            for to in 0..N {
                for message in std::mem::take(shards[from].messages(to as u16)) {
                    shards[to].receive(from as u16, message, 0);
                    carried[to] += 1;
                }
            }
        }
    }
    carried
}

fn events(channels: &mut Shard) -> Vec<Event> {
    std::iter::from_fn(|| channels.event()).collect()
}

fn subscribe(channels: &mut Shard, member: Member, channel: &str) {
    assert_eq!(channels.subscribe(member, channel, Start::Head, 0, 0), Ok(()));
}

fn publish(channels: &mut Shard, channel: &str, number: u32) -> Result<(), ChannelError> {
    channels.publish(channel, payload(number), publisher(None), 0)
}

/// Connections that take as many publications as they have room for.
struct Sockets {
    room: BTreeMap<Member, usize>,
    rule: Overrun,
    conflates: bool,
    heard: Vec<(Member, Heard)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Heard {
    Number(u32),
    Dropped(u64),
    Overrun,
}
use Heard::{Dropped, Number};

impl Sockets {
    /// All have room for whatever comes.
    fn new() -> Self {
        let (room, rule) = (BTreeMap::new(), Overrun::SkipToOldest);
        Sockets { room, rule, conflates: false, heard: Vec::new() }
    }

    /// What was heard since it was last asked.
    fn heard(&mut self) -> Vec<(Member, Heard)> {
        std::mem::take(&mut self.heard)
    }

    /// The same of the only member.
    fn of_one(&mut self) -> Vec<Heard> {
        self.heard().into_iter().map(|(_, heard)| heard).collect()
    }
}

impl Subscribers<Option<u32>> for Sockets {
    fn offer(&mut self, member: Member, publication: &Publication, _: &mut Option<u32>) -> Taken {
        if let Some(room) = self.room.get_mut(&member) {
            let Some(left) = room.checked_sub(1) else { return Taken::Full };
            *room = left;
        }
        self.heard.push((member, Number(number(&publication.payload))));
        Taken::Yes
    }

    fn overrun(&mut self, member: Member, _: &Arc<str>) -> Overrun {
        self.heard.push((member, Heard::Overrun));
        self.rule
    }

    fn dropped(&mut self, member: Member, _: &Arc<str>, count: u64) {
        self.heard.push((member, Dropped(count)));
    }

    fn conflates(&self, _: &str) -> bool {
        self.conflates
    }
}

/// The numbers of the publications delivered, with who got them, in order.
fn deliveries(channels: &mut Shard, budget: usize) -> Vec<(u32, u32)> {
    let mut sockets = Sockets::new();
    channels.deliver(budget, 0, &mut sockets);
    let number = |(member, heard)| match heard {
        Number(number) => (number, member),
        heard => panic!("{heard:?}"),
    };
    sockets.heard().into_iter().map(number).collect()
}

/// A publication goes to its owner and from there to the shards with subscribers, once to each; one
/// that nobody can hear goes no further than the owner.
#[test]
fn only_interested_shards_are_visited() {
    let mut shards = shards::<5>(Limits::default());
    let channel = &owned_by(&shards[0], 1, "plain");
    assert_eq!(publish(&mut shards[0], channel, 1), Ok(()));
    assert_eq!(carry(&mut shards), [0, 1, 0, 0, 0]);

    for (shard, member) in [(2, 1), (2, 2), (4, 1)] {
        subscribe(&mut shards[shard], member, channel);
    }
    carry(&mut shards);
    let with_ticket = Publisher { origin: Origin(5), ticket: Some(7), except: false };
    assert_eq!(shards[0].publish(channel, payload(2), with_ticket, 0), Ok(()));
    assert_eq!(carry(&mut shards), [1, 1, 1, 0, 1]);
    let (ticket, origin, outcome) = (Some(7), Origin(5), Ok(None));
    let published = Event::Published { ticket, origin, channel: channel.as_str().into(), outcome };
    assert_eq!(events(&mut shards[0]), [published]);
    assert_eq!(deliveries(&mut shards[2], 9), [(2, 1), (2, 2)]);
    assert_eq!(deliveries(&mut shards[4], 9), [(2, 1)]);

    shards[2].leave(1, |_| ());
    shards[2].leave(2, |_| ());
    carry(&mut shards);
    assert_eq!(publish(&mut shards[4], channel, 3), Ok(()));
    assert_eq!(carry(&mut shards), [0, 1, 0, 0, 1]);
}

/// Where a channel has subscribers and no history, more of them do not ask the owner; it is told how
/// many they are now and then.
#[test]
fn many_subscribers_are_few_messages() {
    let mut shards = shards::<2>(Limits::default());
    let channel = &owned_by(&shards[0], 1, "plain");
    subscribe(&mut shards[0], 0, channel);
    carry(&mut shards);
    for member in 1..10_000 {
        subscribe(&mut shards[0], member, channel);
        let Event::Subscribed { .. } = events(&mut shards[0]).pop().expect("at once") else {
            panic!("not subscribed");
        };
    }
    let told = carry(&mut shards)[1];
    assert!(told < 100, "{told} messages");
    let info = shards[1].channel(channel).expect("it is owned");
    assert!((8_800..=10_000).contains(&info.subscribers), "{info:?}");
    (0..10_000).for_each(|member| shards[0].leave(member, |_| ()));
    let told = carry(&mut shards)[1];
    assert!(told < 100, "{told} messages");
    assert_eq!(shards[1].channel(channel), None);
}

/// Counts the offers of one publication in what the caller makes of it.
struct Counting {
    delivered: usize,
    shown: u32,
}

impl Subscribers<Option<u32>> for Counting {
    fn offer(&mut self, _: Member, _: &Publication, encoded: &mut Option<u32>) -> Taken {
        self.delivered += 1;
        self.shown = encoded.map_or(1, |shown| shown + 1);
        *encoded = Some(self.shown);
        Taken::Yes
    }

    fn overrun(&mut self, _: Member, _: &Arc<str>) -> Overrun {
        panic!("nobody is slow")
    }

    fn dropped(&mut self, _: Member, _: &Arc<str>, _: u64) {
        panic!("nobody is slow")
    }
}

/// A fan-out to many goes on over several calls, and one to few gets its turn meanwhile. What the
/// caller made of a publication is kept between the calls.
#[test]
fn small_fan_outs_do_not_wait_for_large_ones() {
    let [channels] = &mut shards::<1>(Limits::default());
    for member in 0..10_000 {
        subscribe(channels, member, "plain:large");
    }
    subscribe(channels, 7, "plain:small");
    assert_eq!(publish(channels, "plain:large", 1), Ok(()));
    assert_eq!(publish(channels, "plain:small", 2), Ok(()));
    assert!(deliveries(channels, 1000).contains(&(2, 7)), "the small one waits for the large one");
    let mut to = Counting { delivered: 0, shown: 0 };
    while channels.deliver(1000, 0, &mut to) {}
    assert_eq!((to.delivered, to.shown), (9001, 9001), "each is offered once, with the same value");
}

/// A pending subscription is withdrawn and asked for again, and the member leaves and its number is
/// used again, before the owner answers: each answer is for its own question.
#[test]
fn answers_find_their_questions() {
    let mut shards = shards::<2>(Limits::default());
    let channel = &owned_by(&shards[0], 1, "long");
    let start = Start::AfterOffset(0);
    assert_eq!(publish(&mut shards[1], channel, 1), Ok(()));
    assert_eq!(shards[0].subscribe(3, channel, start, 1, 0), Ok(()));
    let again = shards[0].subscribe(3, channel, start, 2, 0);
    assert_eq!(again, Err(ChannelError::AlreadySubscribed));
    assert_eq!(shards[0].unsubscribe(3, channel), Ok(()));
    assert_eq!(events(&mut shards[0]), [Event::Withdrawn { member: 3, ticket: 1 }]);
    assert_eq!(shards[0].unsubscribe(3, channel), Err(ChannelError::NotSubscribed));
    assert_eq!(shards[0].subscribe(3, channel, start, 2, 0), Ok(()));
    let mut forgotten = Vec::new();
    shards[0].leave(3, |ticket| forgotten.push(ticket));
    assert_eq!(forgotten, [2]);
    assert_eq!(shards[0].subscribe(3, channel, start, 3, 0), Ok(()));
    assert_eq!(shards[0].stats().pending, 3);
    carry(&mut shards);
    let events = events(&mut shards[0]);
    assert!(matches!(events[..], [Event::Subscribed { member: 3, ticket: 3, .. }]), "{events:?}");
    assert_eq!(shards[1].channel(channel).map(|info| info.subscribers), Some(1));
    assert_eq!(shards[1].stats().holds, 1, "those that were withdrawn hold nothing");
}

/// While as many messages as may wait for a shard, what needs more is refused: by the publisher's shard
/// where the owner is behind, by the owner where a shard with subscribers is. The publisher is told so,
/// also without a ticket. Nothing of it is numbered. Other channels are not touched.
#[test]
fn a_shard_that_is_behind_is_spared() {
    let mut shards = shards::<3>(Limits { messages_max: 2, ..Limits::default() });
    let [channel, other] = &["long", "plain"].map(|namespace| owned_by(&shards[0], 1, namespace));
    subscribe(&mut shards[2], 0, channel);
    carry(&mut shards);

    // Shard 2 takes nothing; shard 1 owns the channel.
    for number in 1..=2 {
        assert_eq!(publish(&mut shards[1], channel, number), Ok(()));
    }
    assert_eq!(publish(&mut shards[1], channel, 3), Err(ChannelError::Overloaded));
    assert_eq!(publish(&mut shards[1], other, 4), Ok(()));
    for (number, ticket) in [(5, Some(5)), (6, None)] {
        let publisher = Publisher { origin: Origin(9), ticket, except: false };
        assert_eq!(shards[0].publish(channel, payload(number), publisher, 0), Ok(()));
    }
    for message in std::mem::take(shards[0].messages(1)) {
        shards[1].receive(0, message, 0);
    }
    for message in std::mem::take(shards[1].messages(0)) {
        shards[0].receive(1, message, 0);
    }
    let refused = [Some(5), None].map(|ticket| {
        let (origin, outcome) = (Origin(9), Err(ChannelError::Overloaded));
        Event::Published { ticket, origin, channel: channel.as_str().into(), outcome }
    });
    assert_eq!(events(&mut shards[0]), refused);
    let position = shards[1].channel(channel).and_then(|info| info.position);
    assert_eq!(position.map(|at| at.offset), Some(2));

    // Shard 1 takes nothing, either.
    for number in 6..=7 {
        assert_eq!(publish(&mut shards[0], channel, number), Ok(()));
    }
    assert_eq!(publish(&mut shards[0], channel, 8), Err(ChannelError::Overloaded));
    let overloaded = Err(ChannelError::Overloaded);
    assert_eq!(shards[0].subscribe(0, other, Start::Head, 0, 0), overloaded);
    let query =
        HistoryQuery { start: Start::Head, limit: 9, bytes_max: 9, direction: Direction::Forward };
    assert_eq!(shards[0].history(channel, query, 0, 0), overloaded);
    assert_eq!(shards[0].stats().channels, 0, "a refusal leaves nothing behind");

    for message in std::mem::take(shards[1].messages(2)) {
        shards[2].receive(1, message, 0);
    }
    carry(&mut shards);
    let heard = deliveries(&mut shards[2], 9);
    assert_eq!(heard, [1, 2, 6, 7].map(|number| (number, 0)));
}

/// A shard with as many deliveries waiting as there may be is spared by all owners, itself among
/// them, until half of them are made. Channels that it does not care about are not touched.
#[test]
fn a_shard_with_much_to_deliver_is_spared() {
    let mut shards = shards::<2>(Limits { deliveries_max: 6, ..Limits::default() });
    let [here, there] = [0, 1].map(|owner| owned_by(&shards[0], owner, "plain"));
    let elsewhere = owned_by(&shards[0], 1, "long");
    for member in 0..3 {
        subscribe(&mut shards[0], member, &here);
        subscribe(&mut shards[0], member, &there);
    }
    carry(&mut shards);
    let publish_all = |shards: &mut [Shard; 2]| {
        let publish = |(owner, channel): (usize, &String)| publish(&mut shards[owner], channel, 1);
        let outcomes = [(0, &here), (1, &there), (1, &elsewhere)].map(publish);
        carry(shards);
        outcomes
    };
    let refused = Err(ChannelError::Overloaded);
    assert_eq!(publish_all(&mut shards), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(publish_all(&mut shards), [refused, refused, Ok(())]);
    assert_eq!(deliveries(&mut shards[0], 2).len(), 2);
    carry(&mut shards);
    assert_eq!(publish_all(&mut shards), [refused, refused, Ok(())]);

    assert_eq!(deliveries(&mut shards[0], 1).len(), 1);
    carry(&mut shards);
    assert_eq!(publish_all(&mut shards), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(publish_all(&mut shards), [refused, refused, Ok(())]);
    (0..3).for_each(|member| shards[0].leave(member, |_| ()));
    carry(&mut shards);
    assert_eq!(publish_all(&mut shards), [Ok(()), Ok(()), Ok(())]);
}

/// A member with very many subscriptions, each channel with very many subscribers: each ends alone.
#[test]
fn many_of_each() {
    let [channels] = &mut shards::<1>(Limits::default());
    let names: Vec<String> = (0..200).map(|channel| format!("plain:{channel}")).collect();
    for member in 0..300 {
        names.iter().for_each(|name| subscribe(channels, member, name));
    }
    for (at, name) in names.iter().enumerate() {
        assert_eq!(channels.unsubscribe(7, name), Ok(()));
        assert_eq!(channels.subscriptions(7).count(), names.len() - 1 - at);
    }
    assert_eq!((channels.stats().subscriptions, channels.stats().channels), (299 * 200, 200));
    assert_eq!(publish(channels, &names[5], 1), Ok(()));
    let heard = deliveries(channels, 1000);
    assert!(heard.len() == 299 && !heard.contains(&(1, 7)));
}

/// Two thirds of a log's bound at most.
fn large(number: u32) -> Payload {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(240, 0);
    Payload::new(murre_router::channels::Form::Binary, bytes)
}

/// A log of two large publications, and a grace time of 100 ms.
const SMALL: fn() -> Limits =
    || Limits { log_bytes_max: 900, slow_grace_ms: 100, ..Limits::default() };

/// Publishes the large one with this number at that time.
fn publish_large(
    channels: &mut Shard,
    channel: &str,
    number: u32,
    now: u64,
) -> Result<(), ChannelError> {
    channels.publish(channel, large(number), publisher(None), now)
}

/// A subscriber falls behind with the publication it does not take, and gets that and the following
/// ones, in order and once, when it pulls; then it has caught up, and nothing is kept.
#[test]
fn a_congested_subscriber_catches_up() {
    let [channels] = &mut shards::<1>(Limits::default());
    let mut sockets = Sockets::new();
    (1..=3).for_each(|member| subscribe(channels, member, "plain:a"));
    (1..=3).for_each(|number| assert_eq!(publish(channels, "plain:a", number), Ok(())));
    sockets.room.insert(2, 1);
    while channels.deliver(2, 0, &mut sockets) {}
    assert!(channels.is_behind(2) && !channels.is_behind(1));
    assert_eq!(sockets.heard().iter().filter(|(member, _)| *member == 2).count(), 1);
    assert_eq!(channels.stats().log_publications, 2);
    // What it gets while others have yet to get it does not come again.
    assert_eq!(publish(channels, "plain:a", 4), Ok(()));
    sockets.room.insert(2, 1);
    assert_eq!(channels.pull(2, 0, &mut sockets), Pulled::Full);
    sockets.room.remove(&2);
    assert_eq!(channels.pull(2, 0, &mut sockets), Pulled::CaughtUp);
    assert_eq!(sockets.of_one(), [2, 3, 4].map(Number));
    assert!(channels.nobody_behind());
    assert_eq!(publish(channels, "plain:a", 5), Ok(()));
    while channels.deliver(2, 0, &mut sockets) {}
    let heard = sockets.heard();
    assert_eq!(heard.len(), 5, "{heard:?}");
    assert_eq!((channels.stats().log_publications, channels.stats().log_bytes), (0, 0));
}

/// While a log is full of what a reader that is not slow has yet to take, publishers are refused, until
/// it has taken half. Another channel is not touched.
#[test]
fn publishers_wait_for_fast_readers() {
    let mut shards = shards::<2>(SMALL());
    let [channel, other] = &["plain", "long"].map(|namespace| owned_by(&shards[0], 1, namespace));
    let mut sockets = Sockets::new();
    sockets.room.insert(1, 0);
    subscribe(&mut shards[0], 1, channel);
    subscribe(&mut shards[0], 2, other);
    carry(&mut shards);
    for number in 1..=3 {
        assert_eq!(publish_large(&mut shards[1], channel, number, 0), Ok(()));
        carry(&mut shards);
        shards[0].deliver(9, 0, &mut sockets);
    }
    carry(&mut shards);
    assert_eq!(publish_large(&mut shards[1], channel, 4, 0), Err(ChannelError::Overloaded));
    assert_eq!(publish_large(&mut shards[1], other, 5, 0), Ok(()));
    sockets.room.insert(1, 1);
    assert_eq!(shards[0].pull(1, 0, &mut sockets), Pulled::Full);
    carry(&mut shards);
    assert_eq!(publish_large(&mut shards[1], channel, 4, 0), Err(ChannelError::Overloaded));
    sockets.room.insert(1, 1);
    assert_eq!(shards[0].pull(1, 0, &mut sockets), Pulled::Full);
    carry(&mut shards);
    assert_eq!(publish_large(&mut shards[1], channel, 4, 0), Ok(()));
    carry(&mut shards);
    sockets.room.clear();
    assert_eq!(shards[0].pull(1, 0, &mut sockets), Pulled::CaughtUp);
    assert_eq!(sockets.of_one(), [1, 2, 3, 4].map(Number));
}

/// Makes `member` fall behind, publishes until its log is full, and lets it become slow. Returns the
/// number of the last publication.
fn make_slow(channels: &mut Shard, channel: &str, sockets: &mut Sockets) -> u32 {
    sockets.room.insert(1, 0);
    for number in 1..=3 {
        assert_eq!(publish_large(channels, channel, number, 0), Ok(()));
        channels.deliver(9, 0, sockets);
    }
    assert_eq!(publish_large(channels, channel, 4, 0), Err(ChannelError::Overloaded));
    assert_eq!(channels.next_expiry(), Some(20), "a turn is needed to see who is slow");
    (0..2).for_each(|_| _ = channels.deliver(9, 20, sockets));
    channels.deliver(9, 100, sockets);
    assert_eq!(publish_large(channels, channel, 4, 100), Err(ChannelError::Overloaded));
    channels.deliver(9, 120, sockets);
    assert_eq!(publish_large(channels, channel, 4, 120), Ok(()));
    while channels.deliver(9, 120, sockets) {}
    4
}

/// A reader that lets the server wait for too long does not hold up publishers: the oldest
/// publications go, in a bounded log, and the reader is asked about at once.
#[test]
fn slow_readers_are_overrun() {
    for (rule, conflates, overruns, expected) in [
        // The second time when 2 goes.
        (Overrun::SkipToOldest, false, 2, vec![Dropped(2), Number(3), Number(4)]),
        // 3 was the newest when 1 went.
        (Overrun::SkipToNewest, false, 1, vec![Dropped(2), Number(3), Number(4)]),
        (Overrun::SkipToOldest, true, 2, vec![Dropped(3), Number(4)]),
        (Overrun::End, false, 1, vec![]),
    ] {
        let [channels] = &mut shards::<1>(SMALL());
        let mut sockets = Sockets { rule, conflates, ..Sockets::new() };
        subscribe(channels, 1, "plain:a");
        let newest = make_slow(channels, "plain:a", &mut sockets);
        assert!(channels.stats().log_bytes <= 900, "{:?}", channels.stats());
        assert_eq!(sockets.of_one(), vec![Heard::Overrun; overruns], "{rule:?}");
        sockets.room.clear();
        assert_eq!(channels.pull(1, 121, &mut sockets), Pulled::CaughtUp);
        assert_eq!(sockets.of_one(), expected, "{rule:?} of {newest}");
        assert_eq!(channels.is_behind(1), rule == Overrun::End);
        if rule == Overrun::End {
            // It is not asked again, holds nothing and hears nothing.
            assert_eq!(publish_large(channels, "plain:a", 5, 121), Ok(()));
            while channels.deliver(9, 121, &mut sockets) {}
            assert_eq!(sockets.of_one(), []);
            assert_eq!(channels.stats().log_publications, 0);
        }
        channels.leave(1, |_| ());
        events(channels);
        assert_eq!(channels.stats(), Stats::default());
    }
}

/// A reader that reads a little now and then becomes slow all the same, and stays so until it has
/// caught up.
#[test]
fn reading_slowly_protects_nothing() {
    let [channels] = &mut shards::<1>(SMALL());
    let mut sockets = Sockets::new();
    sockets.room.insert(1, 0);
    subscribe(channels, 1, "plain:a");
    let (mut now, mut refused) = (0, 0);
    for number in 0..400 {
        let outcome = channels.publish("plain:a", payload(number), publisher(None), now);
        refused += u32::from(outcome.is_err());
        if number % 2 == 0 {
            continue;
        }
        (0..3).for_each(|_| _ = channels.deliver(1000, now, &mut sockets));
        now += 11;
        sockets.room.insert(1, 1);
        channels.pull(1, now, &mut sockets);
    }
    assert!(refused < 20, "{refused} publications were refused for a reader that is slow");
    assert!(channels.stats().log_bytes <= 900);
}

/// All logs of a shard have a bound, too: the oldest publications go first, in whatever channel, and
/// publishers wait for readers that are not slow.
#[test]
fn all_logs_are_bounded() {
    let limits = Limits { logs_bytes_max: 2000, slow_grace_ms: 100, ..Limits::default() };
    let mut shards = shards::<2>(limits);
    let mut sockets = Sockets::new();
    let names: Vec<String> = (0..9).map(|number| format!("plain:{number}")).collect();
    for (member, name) in names.iter().enumerate() {
        sockets.room.insert(member as Member, 0);
        subscribe(&mut shards[0], member as Member, name);
    }
    carry(&mut shards);
    let mut publish_all = |shards: &mut [Shard; 2], now, number| {
        let mut taken = 0;
        for name in &names {
            taken += u32::from(publish_large(&mut shards[1], name, number, now).is_ok());
            carry(shards);
            while shards[0].deliver(9, now, &mut sockets) {}
            carry(shards);
        }
        (taken, sockets.heard().len())
    };
    // The other shard hears it after the sixth.
    let (taken, asked) = publish_all(&mut shards, 0, 1);
    assert_eq!(asked, 0);
    let owned = names.iter().filter(|name| shards[0].owner(name) == 0).count() as u32;
    assert!((5..=5 + owned).contains(&taken), "{taken} of {owned}");
    for now in [150, 170] {
        (0..3).for_each(|_| _ = shards[0].deliver(9, now, &mut Sockets::new()));
        carry(&mut shards);
    }
    let (taken, asked) = publish_all(&mut shards, 170, 2);
    assert!(taken >= 5 && asked > 0, "{taken} {asked}");
    assert!(shards[0].stats().log_bytes <= 2000 + 500);
    (0..9).for_each(|member| shards[0].leave(member, |_| ()));
    carry(&mut shards);
    assert_eq!(publish_all(&mut shards, 170, 3).0, 9);
    assert_eq!(shards[0].stats().log_bytes, 0);
}

/// What only slow readers have yet to take goes at once, in the order in which it came, and no publisher
/// is refused for it.
#[test]
fn slow_readers_hold_up_nobody() {
    let limits = Limits { logs_bytes_max: 2000, slow_grace_ms: 100, ..Limits::default() };
    let [channels] = &mut shards::<1>(limits);
    let mut sockets = Sockets::new();
    for (member, name) in [(1, "plain:a"), (2, "plain:b")] {
        sockets.room.insert(member, 0);
        subscribe(channels, member, name);
        assert_eq!(publish_large(channels, name, 0, 0), Ok(()));
        channels.deliver(9, 0, &mut sockets);
    }
    (0..3).for_each(|_| _ = channels.deliver(9, 150, &mut sockets));
    for number in 1..=20 {
        for name in ["plain:a", "plain:b"] {
            assert_eq!(publish_large(channels, name, number, 150), Ok(()));
            while channels.deliver(9, 150, &mut sockets) {}
            assert!(channels.stats().log_bytes <= 2000);
        }
    }
    sockets.heard();
    sockets.room.clear();
    for member in [1, 2] {
        assert_eq!(channels.pull(member, 150, &mut sockets), Pulled::CaughtUp);
    }
    // Five fit: the newest ones.
    let of = |member, heard: &[Heard]| heard.iter().map(|heard| (member, *heard)).collect();
    let first: Vec<_> = of(1, &[Dropped(19), Number(19), Number(20)]);
    let second: Vec<_> = of(2, &[Dropped(18), Number(18), Number(19), Number(20)]);
    assert_eq!(sockets.heard(), [first, second].concat());
}

/// A recovery of more than a slice is read slice after slice from an owner on another shard, while
/// publications go on beyond what history may keep, and misses nothing.
#[test]
fn a_recovery_misses_nothing() {
    for owner in [0, 1] {
        let limits = Limits { slice_bytes: 1, ..Limits::default() };
        let mut shards = shards::<2>(limits);
        let channel = &owned_by(&shards[0], owner, "brief");
        let owner = usize::from(owner);
        for number in 1..=3 {
            assert_eq!(publish(&mut shards[owner], channel, number), Ok(()));
        }
        assert_eq!(shards[0].subscribe(1, channel, Start::AfterOffset(0), 9, 0), Ok(()));
        carry(&mut shards);
        let subscribed = events(&mut shards[0]).pop();
        let Some(Event::Subscribed { recovery: Some(recovery), .. }) = subscribed else {
            panic!("{subscribed:?}")
        };
        assert_eq!((recovery.recovered, recovery.position.offset), (Some(true), 3));
        let mut sockets = Sockets::new();
        let mut pulls = 0;
        loop {
            pulls += 1;
            sockets.room.insert(1, 1);
            let pulled = shards[0].pull(1, 0, &mut sockets);
            // Two come while it takes one at most.
            for number in 2 * pulls + 2..2 * pulls + 4 {
                if pulls < 20 {
                    assert_eq!(publish(&mut shards[owner], channel, number), Ok(()));
                }
            }
            carry(&mut shards);
            let events = events(&mut shards[0]);
            match pulled {
                Pulled::CaughtUp => break,
                Pulled::Full => assert_eq!(events, []),
                Pulled::Waiting => assert_eq!(events, [Event::Readable { member: 1 }]),
            }
        }
        let heard = sockets.of_one();
        assert_eq!(heard, (1..=41).map(Number).collect::<Vec<_>>(), "{owner}");
        assert_eq!((shards[owner].stats().holds, shards[owner].stats().kept), (0, 3));
    }
}

/// Publishers wait for a recovering reader only while what is kept for it is beyond a bound, and only
/// for the grace time.
#[test]
fn holds_are_bounded() {
    let [channels] = &mut shards::<1>(SMALL());
    for number in 1..=3 {
        assert_eq!(publish_large(channels, "brief:a", number, 0), Ok(()));
    }
    assert_eq!(channels.subscribe(1, "brief:a", Start::AfterOffset(0), 9, 0), Ok(()));
    let mut number = 3;
    let mut publish_all = |channels: &mut Shard, now| {
        let before = number;
        while number < before + 20 && publish_large(channels, "brief:a", number + 1, now).is_ok() {
            number += 1;
        }
        number - before
    };
    // 240 bytes each: the fourth one beyond the size of 3 is too much.
    assert_eq!(publish_all(channels, 99), 4);
    assert_eq!(channels.stats().kept, 7);
    channels.expire(99);
    assert_eq!((channels.stats().kept, channels.next_expiry()), (7, Some(100)));
    assert_eq!(publish_all(channels, 100), 20);
    let mut sockets = Sockets::new();
    assert_eq!(channels.pull(1, 100, &mut sockets), Pulled::CaughtUp);
    assert!(matches!(sockets.of_one()[..], [Heard::Overrun, Dropped(_), Number(_), ..]));
}

/// A reader that is slow goes on in history where the log has dropped what it has yet to get; what
/// history has lost, too, is counted.
#[test]
fn history_stands_behind_the_log() {
    for (namespace, expected) in [
        ("long", [1, 2, 3, 4].map(Number).to_vec()),
        ("brief", [Heard::Overrun, Dropped(1), Number(2), Number(3), Number(4)].to_vec()),
    ] {
        let [channels] = &mut shards::<1>(SMALL());
        let channel = &format!("{namespace}:a");
        let mut sockets = Sockets::new();
        subscribe(channels, 1, channel);
        make_slow(channels, channel, &mut sockets);
        assert_eq!(sockets.of_one(), [], "history has it");
        sockets.room.clear();
        assert_eq!(channels.pull(1, 121, &mut sockets), Pulled::CaughtUp);
        assert_eq!(sockets.of_one(), expected);
    }
}

/// A member whose subscription ends while it waits for a slice is told to pull: it may be behind
/// elsewhere.
#[test]
fn nobody_waits_for_a_slice_that_is_off() {
    let mut shards = shards::<2>(Limits::default());
    let channel = &owned_by(&shards[0], 1, "long");
    assert_eq!(publish(&mut shards[1], channel, 1), Ok(()));
    assert_eq!(shards[0].subscribe(1, channel, Start::AfterOffset(0), 9, 0), Ok(()));
    carry(&mut shards);
    events(&mut shards[0]);
    assert_eq!(shards[0].pull(1, 0, &mut Sockets::new()), Pulled::Waiting);
    assert_eq!(shards[0].unsubscribe(1, channel), Ok(()));
    assert_eq!(events(&mut shards[0]), [Event::Readable { member: 1 }]);
    carry(&mut shards);
    assert_eq!((events(&mut shards[0]), shards[1].stats().holds), (vec![], 0));
}

/// A member that is behind in several channels reads them in turns.
#[test]
fn channels_take_turns() {
    let [channels] = &mut shards::<1>(Limits::default());
    let mut sockets = Sockets::new();
    sockets.room.insert(1, 0);
    for (at, channel) in ["plain:a", "plain:b", "plain:c"].iter().enumerate() {
        subscribe(channels, 1, channel);
        (0..3).for_each(|number| {
            assert_eq!(publish(channels, channel, 10 * at as u32 + number), Ok(()));
        });
    }
    while channels.deliver(9, 0, &mut sockets) {}
    for _ in 0..9 {
        sockets.room.insert(1, 1);
        channels.pull(1, 0, &mut sockets);
    }
    let heard = sockets.of_one();
    assert_eq!(heard, [0, 10, 20, 1, 11, 21, 2, 22, 12].map(Number));
}

/// The publisher is not offered what history has of it, but the mark of a live publication is there
/// for the caller; history forgets it.
#[test]
fn the_publisher_may_be_left_out() {
    let [channels] = &mut shards::<1>(Limits::default());
    struct Excepts(Vec<Option<Origin>>);
    impl Subscribers<Option<u32>> for Excepts {
        fn offer(&mut self, _: Member, publication: &Publication, _: &mut Option<u32>) -> Taken {
            self.0.push(publication.except);
            Taken::Gone
        }
        fn overrun(&mut self, _: Member, _: &Arc<str>) -> Overrun {
            panic!("nobody is slow")
        }
        fn dropped(&mut self, _: Member, _: &Arc<str>, _: u64) {
            panic!("nobody is slow")
        }
    }
    let mut to = Excepts(Vec::new());
    subscribe(channels, 1, "long:a");
    let publisher = Publisher { origin: Origin(8), ticket: None, except: true };
    assert_eq!(channels.publish("long:a", payload(1), publisher, 0), Ok(()));
    assert_eq!(publish(channels, "long:a", 2), Ok(()));
    channels.deliver(9, 0, &mut to);
    assert_eq!(channels.subscribe(2, "long:a", Start::AfterOffset(0), 0, 0), Ok(()));
    assert_eq!(channels.pull(2, 0, &mut to), Pulled::CaughtUp);
    assert_eq!(to.0, [Some(Origin(8)), None, None, None]);
}

/// A backplane that answers later, and what it was asked.
#[derive(Clone, Default)]
struct Later(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    appends: Vec<(AppendId, u32)>,
    interests: Vec<(String, Interest)>,
}

impl Backplane for Later {
    fn append(&mut self, id: AppendId, _: &str, payload: &Payload, _: u64) -> Append {
        self.0.lock().expect("one thread").appends.push((id, number(payload)));
        Append::Later
    }

    fn interest(&mut self, channel: &str, interest: Interest) {
        self.0.lock().expect("one thread").interests.push((channel.into(), interest));
    }
}

/// A backplane orders the publications of a channel: they are numbered, delivered and told in the order
/// of its answers. What it refuses is told, too.
#[test]
fn the_backplane_orders() {
    let backplane = Later::default();
    let mut shards = shards::<2>(Limits::default());
    shards = shards.map(|channels| channels.with_backplane(Box::new(backplane.clone())));
    let channel = &owned_by(&shards[0], 1, "long");
    for shard in [0, 1] {
        subscribe(&mut shards[shard], 1, channel);
    }
    carry(&mut shards);
    for (shard, number) in [(0, 1), (1, 2), (0, 3)] {
        let publisher = publisher(Some(number));
        assert_eq!(shards[shard].publish(channel, payload(number), publisher, 0), Ok(()));
    }
    carry(&mut shards);
    assert_eq!(shards[1].stats().appends_waiting, 3);
    assert_eq!(deliveries(&mut shards[0], 9), []);
    let mut appends = std::mem::take(&mut backplane.0.lock().expect("one thread").appends);
    appends.sort_by_key(|(_, number)| [9, 1, 0, 2][*number as usize]);
    for (id, number) in appends {
        let outcome = if number == 1 { Err(ChannelError::Overloaded) } else { Ok(()) };
        shards[1].appended(id, outcome, 0);
    }
    carry(&mut shards);
    let told = |channels: &mut Shard| -> Vec<_> {
        let outcome = |event| match event {
            Event::Published { ticket, outcome, .. } => {
                Some((ticket, outcome.map(|at: Option<Position>| at.expect("history").offset)))
            }
            _ => None,
        };
        events(channels).into_iter().filter_map(outcome).collect()
    };
    assert_eq!(told(&mut shards[0]), [(Some(1), Err(ChannelError::Overloaded)), (Some(3), Ok(2))]);
    assert_eq!(told(&mut shards[1]), [(Some(2), Ok(1))]);
    for channels in &mut shards {
        assert_eq!(deliveries(channels, 9), [(2, 1), (3, 1)]);
        channels.leave(1, |_| ());
    }
    carry(&mut shards);
    assert_eq!(shards[1].stats().appends_waiting, 0);
    let interests = &backplane.0.lock().expect("one thread").interests;
    let expected = [Interest::First, Interest::Last].map(|interest| (channel.clone(), interest));
    assert_eq!(*interests, expected);
}
