//! Publications that owners refuse.

use murre_router::channels::{
    ChannelError, ChannelLimits, Direction, Event, HistoryQuery, Origin, Publisher, Pulled, Start,
};

use super::support::{
    Number, SMALL, Shard, Sockets, carry, deliveries, events, owned_by, publish, publish_large,
    shards, subscribe,
};
use crate::oracles::payload;

/// While as many messages as may wait for a shard, what needs more is refused: by the publisher's shard
/// where the owner is behind, by the owner where a shard with subscribers is. The publisher is told so,
/// also without a ticket. Nothing of it is numbered. Other channels are not touched.
#[test]
fn a_shard_that_is_behind_is_spared() {
    let mut shards = shards::<3>(ChannelLimits { messages_max: 2, ..ChannelLimits::default() });
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
    let mut shards = shards::<2>(ChannelLimits { deliveries_max: 6, ..ChannelLimits::default() });
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
