//! Subscribers that are behind: how they catch up, and what the logs keep for them.

use murre_router::Member;
use murre_router::channels::{ChannelLimits, Overrun, Pulled, Stats};

use super::support::{
    Dropped, Heard, Number, SMALL, Shard, Sockets, carry, events, make_slow, publish,
    publish_large, shards, subscribe,
};
use crate::oracles::{payload, publisher};

/// A subscriber falls behind with the publication it does not take, and gets that and the following
/// ones, in order and once, when it pulls; then it has caught up, and nothing is kept.
#[test]
fn a_congested_subscriber_catches_up() {
    let [channels] = &mut shards::<1>(ChannelLimits::default());
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
    let limits =
        ChannelLimits { logs_bytes_max: 2000, slow_grace_ms: 100, ..ChannelLimits::default() };
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
    let limits =
        ChannelLimits { logs_bytes_max: 2000, slow_grace_ms: 100, ..ChannelLimits::default() };
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

/// A member that is behind in several channels reads them in turns.
#[test]
fn channels_take_turns() {
    let [channels] = &mut shards::<1>(ChannelLimits::default());
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
