//! Situations that the models do not look for: who is visited, who waits, who is refused.

use murre_router::channels::{Channels, Event, Limits, Refused};

use crate::oracles::{number, payload, rules};

/// So many shards, all with these limits.
fn shards<const N: usize>(limits: Limits) -> [Channels<u32>; N] {
    std::array::from_fn(|shard| Channels::new(shard as u16, N as u16, 1, rules, limits))
}

/// A channel of this namespace that the shard owns.
fn owned_by(channels: &Channels<u32>, shard: u16, namespace: &str) -> String {
    let mut names = (0..).map(|number| format!("{namespace}:{number}"));
    names.find(|name| channels.owner(name) == shard).expect("every shard owns some")
}

/// Carries all notes until there are none; returns how many there were to each shard.
fn carry<const N: usize>(shards: &mut [Channels<u32>; N]) -> [usize; N] {
    let mut carried = [0; N];
    while shards.iter().any(|channels| channels.stats().notes_waiting > 0) {
        for from in 0..N {
            for to in 0..N {
                for note in std::mem::take(shards[from].notes(to as u16)) {
                    shards[to].receive(from as u16, note, 0);
                    carried[to] += 1;
                }
            }
        }
    }
    carried
}

fn events(channels: &mut Channels<u32>) -> Vec<Event> {
    std::iter::from_fn(|| channels.event()).collect()
}

/// The numbers of the publications delivered, with who got them, in order.
fn deliveries(channels: &mut Channels<u32>, budget: usize) -> Vec<(u32, u32)> {
    let mut deliveries = Vec::new();
    channels.deliver(budget, |publication, _, subscribers| {
        let number = number(&publication.payload);
        deliveries.extend(subscribers.iter().map(|subscriber| (number, subscriber.member())));
    });
    deliveries
}

/// A publication goes to its owner and from there to the shards with subscribers, once to each; one
/// that nobody can hear goes no further than the owner.
#[test]
fn only_shards_that_care_are_visited() {
    let mut shards = shards::<5>(Limits::default());
    let channel = &owned_by(&shards[0], 1, "plain");
    assert_eq!(shards[0].publish(channel, payload(1), None, 0), Ok(()));
    assert_eq!(carry(&mut shards), [0, 1, 0, 0, 0]);

    for (shard, member) in [(2, 1), (2, 2), (4, 1)] {
        assert_eq!(shards[shard].subscribe(member, channel, None, 0, 0), Ok(()));
    }
    carry(&mut shards);
    assert_eq!(shards[0].publish(channel, payload(2), Some(7), 0), Ok(()));
    assert_eq!(carry(&mut shards), [1, 1, 1, 0, 1]);
    assert_eq!(events(&mut shards[0]), [Event::Published { ticket: 7, outcome: Ok(None) }]);
    assert_eq!(deliveries(&mut shards[2], 9), [(2, 1), (2, 2)]);
    assert_eq!(deliveries(&mut shards[4], 9), [(2, 1)]);

    shards[2].leave(1, |_| ());
    shards[2].leave(2, |_| ());
    carry(&mut shards);
    assert_eq!(shards[4].publish(channel, payload(3), None, 0), Ok(()));
    assert_eq!(carry(&mut shards), [0, 1, 0, 0, 1]);
}

/// Where a channel has subscribers and no history, more of them do not ask the owner; it is told how
/// many they are now and then.
#[test]
fn many_subscribers_are_few_notes() {
    let mut shards = shards::<2>(Limits::default());
    let channel = &owned_by(&shards[0], 1, "plain");
    assert_eq!(shards[0].subscribe(0, channel, None, 0, 0), Ok(()));
    carry(&mut shards);
    for member in 1..10_000 {
        assert_eq!(shards[0].subscribe(member, channel, None, 0, 0), Ok(()));
        let Event::Subscribed { .. } = events(&mut shards[0]).pop().expect("at once") else {
            panic!("not subscribed");
        };
    }
    let told = carry(&mut shards)[1];
    assert!(told < 100, "{told} notes");
    let info = shards[1].channel(channel).expect("it is owned");
    assert!((8_800..=10_000).contains(&info.subscribers), "{info:?}");
    (0..10_000).for_each(|member| shards[0].leave(member, |_| ()));
    let told = carry(&mut shards)[1];
    assert!(told < 100, "{told} notes");
    assert_eq!(shards[1].channel(channel), None);
}

/// A fan-out to many goes on over several calls, and one to few gets its turn meanwhile. What the
/// caller made of a publication is kept between the calls.
#[test]
fn small_fan_outs_do_not_wait_for_large_ones() {
    let [channels] = &mut shards::<1>(Limits::default());
    for member in 0..10_000 {
        assert_eq!(channels.subscribe(member, "plain:large", None, 0, 0), Ok(()));
    }
    assert_eq!(channels.subscribe(7, "plain:small", None, 0, 0), Ok(()));
    assert_eq!(channels.publish("plain:large", payload(1), None, 0), Ok(()));
    assert_eq!(channels.publish("plain:small", payload(2), None, 0), Ok(()));
    assert!(deliveries(channels, 1000).contains(&(2, 7)), "the small one waits for the large one");

    let (mut slices, mut delivered) = (0, 1000);
    while channels.deliver(1000, |_, form, subscribers| {
        slices += 1;
        *form += 1;
        assert_eq!(*form, slices, "the form is lost");
        delivered += subscribers.len();
    }) {}
    assert_eq!(delivered, 10_001);
}

/// A pending subscription is withdrawn and asked for again, and the member leaves and its number is
/// used again, before the owner answers: each answer is for its own question.
#[test]
fn answers_find_their_questions() {
    let mut shards = shards::<2>(Limits::default());
    let channel = &owned_by(&shards[0], 1, "long");
    assert_eq!(shards[0].subscribe(3, channel, None, 1, 0), Ok(()));
    assert_eq!(shards[0].subscribe(3, channel, None, 2, 0), Err(Refused::AlreadySubscribed));
    assert_eq!(shards[0].unsubscribe(3, channel), Ok(()));
    assert_eq!(events(&mut shards[0]), [Event::Withdrawn { member: 3, ticket: 1 }]);
    assert_eq!(shards[0].unsubscribe(3, channel), Err(Refused::NotSubscribed));
    assert_eq!(shards[0].subscribe(3, channel, None, 2, 0), Ok(()));
    let mut forgotten = Vec::new();
    shards[0].leave(3, |ticket| forgotten.push(ticket));
    assert_eq!(forgotten, [2]);
    assert_eq!(shards[0].subscribe(3, channel, None, 3, 0), Ok(()));
    assert_eq!(shards[0].stats().pending, 3);
    carry(&mut shards);
    let events = events(&mut shards[0]);
    assert!(matches!(events[..], [Event::Subscribed { member: 3, ticket: 3, .. }]), "{events:?}");
    assert_eq!(shards[1].channel(channel).map(|info| info.subscribers), Some(1));
}

/// While as many notes as may wait for a shard, what needs more is refused: by the publisher's shard
/// where it is the owner who is behind, by the owner where it is a shard with subscribers. Nothing of
/// it is numbered. Channels that the shard does not care about are not touched.
#[test]
fn who_is_behind_is_spared() {
    let mut shards = shards::<3>(Limits { notes_max: 2, ..Limits::default() });
    let [channel, other] = &["long", "plain"].map(|namespace| owned_by(&shards[0], 1, namespace));
    assert_eq!(shards[2].subscribe(0, channel, None, 0, 0), Ok(()));
    carry(&mut shards);

    // Shard 2 takes nothing; shard 1 owns the channel.
    for number in 1..=2 {
        assert_eq!(shards[1].publish(channel, payload(number), None, 0), Ok(()));
    }
    assert_eq!(shards[1].publish(channel, payload(3), None, 0), Err(Refused::Overloaded));
    assert_eq!(shards[1].publish(other, payload(4), None, 0), Ok(()));
    assert_eq!(shards[0].publish(channel, payload(5), Some(5), 0), Ok(()));
    for note in std::mem::take(shards[0].notes(1)) {
        shards[1].receive(0, note, 0);
    }
    for note in std::mem::take(shards[1].notes(0)) {
        shards[0].receive(1, note, 0);
    }
    let refused = Event::Published { ticket: 5, outcome: Err(Refused::Overloaded) };
    assert_eq!(events(&mut shards[0]), [refused]);
    assert_eq!(
        shards[1].channel(channel).and_then(|info| info.position).map(|at| at.offset),
        Some(2)
    );

    // Shard 1 takes nothing, either.
    for number in 6..=7 {
        assert_eq!(shards[0].publish(channel, payload(number), None, 0), Ok(()));
    }
    assert_eq!(shards[0].publish(channel, payload(8), None, 0), Err(Refused::Overloaded));
    assert_eq!(shards[0].subscribe(0, other, None, 0, 0), Err(Refused::Overloaded));
    assert_eq!(shards[0].history(channel, None, 9, 0, 0), Err(Refused::Overloaded));
    assert_eq!(shards[0].stats().channels, 0, "who is refused leaves nothing behind");

    for note in std::mem::take(shards[1].notes(2)) {
        shards[2].receive(1, note, 0);
    }
    carry(&mut shards);
    let heard = deliveries(&mut shards[2], 9);
    assert_eq!(heard, [1, 2, 6, 7].map(|number| (number, 0)));
}

/// A shard with as many deliveries waiting as there may be is spared by all owners, itself among
/// them, until half of them are made. Channels that it does not care about are not touched.
#[test]
fn who_has_much_to_deliver_is_spared() {
    let mut shards = shards::<2>(Limits { deliveries_max: 6, ..Limits::default() });
    let [here, there] = [0, 1].map(|owner| owned_by(&shards[0], owner, "plain"));
    let elsewhere = owned_by(&shards[0], 1, "long");
    for member in 0..3 {
        assert_eq!(shards[0].subscribe(member, &here, None, 0, 0), Ok(()));
        assert_eq!(shards[0].subscribe(member, &there, None, 0, 0), Ok(()));
    }
    carry(&mut shards);
    let publish = |shards: &mut [Channels<u32>; 2]| {
        let publish = |(owner, channel): (usize, &String)| {
            shards[owner].publish(channel, payload(1), None, 0)
        };
        let outcomes = [(0, &here), (1, &there), (1, &elsewhere)].map(publish);
        carry(shards);
        outcomes
    };
    let refused = Err(Refused::Overloaded);
    assert_eq!(publish(&mut shards), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(publish(&mut shards), [refused, refused, Ok(())]);
    assert_eq!(deliveries(&mut shards[0], 2).len(), 2);
    carry(&mut shards);
    assert_eq!(publish(&mut shards), [refused, refused, Ok(())]);

    assert_eq!(deliveries(&mut shards[0], 1).len(), 1);
    carry(&mut shards);
    assert_eq!(publish(&mut shards), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(publish(&mut shards), [refused, refused, Ok(())]);
    (0..3).for_each(|member| shards[0].leave(member, |_| ()));
    carry(&mut shards);
    assert_eq!(publish(&mut shards), [Ok(()), Ok(()), Ok(())]);
}

/// A member with very many subscriptions, each channel with very many subscribers: each ends alone.
#[test]
fn many_of_each() {
    let [channels] = &mut shards::<1>(Limits::default());
    let names: Vec<String> = (0..200).map(|channel| format!("plain:{channel}")).collect();
    for member in 0..300 {
        for name in &names {
            assert_eq!(channels.subscribe(member, name, None, 0, 0), Ok(()));
        }
    }
    for (at, name) in names.iter().enumerate() {
        assert_eq!(channels.unsubscribe(7, name), Ok(()));
        assert_eq!(channels.subscriptions(7).count(), names.len() - 1 - at);
    }
    assert_eq!((channels.stats().subscriptions, channels.stats().channels), (299 * 200, 200));
    assert_eq!(channels.publish(&names[5], payload(1), None, 0), Ok(()));
    let heard = deliveries(channels, 1000);
    assert!(heard.len() == 299 && !heard.contains(&(1, 7)));
}
