//! A backplane that appends publications later.

use std::sync::{Arc, Mutex};

use murre_router::channels::{
    Append, AppendId, Backplane, ChannelError, ChannelLimits, Event, Interest, Payload, Position,
};

use super::support::{Shard, carry, deliveries, events, owned_by, shards, subscribe};
use crate::oracles::{number, payload, publisher};

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
    let mut shards = shards::<2>(ChannelLimits::default());
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
