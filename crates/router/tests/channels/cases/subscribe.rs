//! Subscriptions: their messages between shards, and their answers.

use murre_router::channels::{ChannelError, ChannelLimits, Event, Start};

use super::support::{carry, events, owned_by, publish, shards, subscribe};

/// Where a channel has subscribers and no history, more of them do not ask the owner; it is told how
/// many they are now and then.
#[test]
fn many_subscribers_are_few_messages() {
    let mut shards = shards::<2>(ChannelLimits::default());
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

/// A pending subscription is withdrawn and asked for again, and the member leaves and its number is
/// used again, before the owner answers: each answer is for its own question.
#[test]
fn answers_find_their_questions() {
    let mut shards = shards::<2>(ChannelLimits::default());
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
