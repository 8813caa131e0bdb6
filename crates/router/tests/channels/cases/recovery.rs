//! Recovery from history, and what the owner keeps for readers.

use murre_router::channels::{
    ChannelLimits, Direction, Event, HistoryQuery, Position, Pulled, Start,
};

use super::support::{
    Dropped, Heard, Number, SMALL, Shard, Sockets, carry, events, make_slow, owned_by, publish,
    publish_large, shards, subscribe,
};

/// A recovery of more than a slice is read slice after slice from an owner on another shard, while
/// publications go on beyond what history may keep, and misses nothing.
#[test]
fn a_recovery_misses_nothing() {
    for owner in [0, 1] {
        let limits = ChannelLimits { slice_bytes: 1, ..ChannelLimits::default() };
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

/// A position of another channel of the same owner recovers nothing, and the reader is told so, for a
/// subscription and for a page of history.
#[test]
fn a_position_belongs_to_its_channel() {
    let [channels] = &mut shards::<1>(ChannelLimits::default());
    for channel in ["long:a", "long:b"] {
        for number in 1..=3 {
            assert_eq!(publish(channels, channel, number), Ok(()));
        }
    }
    let position = |channels: &Shard, channel| {
        channels.channel(channel).and_then(|info| info.position).expect("it has history")
    };
    let [a, b] = ["long:a", "long:b"].map(|channel| position(channels, channel));
    assert_eq!(a.offset, b.offset);
    for (member, of, recovered) in [(1, a, true), (2, b, false)] {
        let start = Start::After(Position { offset: 1, ..of });
        let query =
            HistoryQuery { start, limit: 9, bytes_max: u32::MAX, direction: Direction::Forward };
        assert_eq!(channels.subscribe(member, "long:a", start, 9, 0), Ok(()));
        assert_eq!(channels.history("long:a", query, 9, 0), Ok(()));
        let told: Vec<_> = events(channels)
            .into_iter()
            .map(|event| match event {
                Event::Subscribed { recovery, .. } => recovery.and_then(|told| told.recovered),
                Event::History { page, .. } => page.recovered,
                event => panic!("{event:?}"),
            })
            .collect();
        assert_eq!(told, [Some(recovered); 2]);
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

/// A member whose subscription ends while it waits for a slice gets an event to pull: it may be behind
/// elsewhere.
#[test]
fn nobody_waits_for_a_slice_that_is_off() {
    let mut shards = shards::<2>(ChannelLimits::default());
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
