//! A broker that orders the publications of channels without history.

use std::sync::{Arc, Mutex};

use murre_router::channels::{
    Append, AppendId, Arrived, Backplane, ChannelError, ChannelLimits, Event, Fetch, FetchId,
    Interest, Outgoing, Payload,
};

use super::support::{Shard, carry, deliveries, events, owned_by, shards, subscribe};
use crate::oracles::{number, payload, publisher};

/// A broker that answers later, and what it was asked.
#[derive(Clone, Default)]
struct Later(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    appends: Vec<(AppendId, Payload)>,
    interests: Vec<(String, Interest, bool)>,
}

impl Backplane for Later {
    fn orders(&self) -> bool {
        true
    }

    fn append(&mut self, id: AppendId, outgoing: Outgoing<'_>) -> Append {
        if number(outgoing.payload) == 9 {
            return Append::Refuse;
        }
        self.0.lock().expect("one thread").appends.push((id, outgoing.payload.clone()));
        Append::Later
    }

    fn interest(&mut self, channel: &str, interest: Interest, keeps_history: bool) {
        let interests = &mut self.0.lock().expect("one thread").interests;
        interests.push((channel.into(), interest, keeps_history));
    }

    fn fetch(&mut self, _: FetchId, fetch: Fetch<'_>) {
        panic!("{fetch:?}: there is no history");
    }
}

/// A broker orders the publications of a channel: they are delivered in its order, and their publishers are
/// told its answers. What it refuses, at once or later, is told, too.
#[test]
fn the_broker_orders() {
    let broker = Later::default();
    let mut shards = shards::<2>(ChannelLimits::default());
    shards = shards.map(|channels| channels.with_backplane(Box::new(broker.clone())));
    let channel = &owned_by(&shards[0], 1, "plain");
    for shard in [0, 1] {
        subscribe(&mut shards[shard], 1, channel);
    }
    carry(&mut shards);
    for (shard, number) in [(0, 1), (1, 2), (0, 3), (0, 9)] {
        let publisher = publisher(Some(number));
        assert_eq!(shards[shard].publish(channel, payload(number), publisher, 0), Ok(()));
    }
    carry(&mut shards);
    assert_eq!(shards[1].stats().appends_waiting, 3);
    assert_eq!(deliveries(&mut shards[0], 9), []);
    let mut appends = std::mem::take(&mut broker.0.lock().expect("one thread").appends);
    appends.sort_by_key(|(_, payload)| [9, 1, 0, 2][number(payload) as usize]);
    for (id, payload) in appends {
        if number(&payload) == 1 {
            shards[1].appended(id, Err(ChannelError::Overloaded));
            continue;
        }
        shards[1].appended(id, Ok(None));
        shards[1].arrived(channel, Arrived { payload, except: None, place: None }, 0, 0);
    }
    carry(&mut shards);
    let told = |channels: &mut Shard| -> Vec<_> {
        let outcome = |event| match event {
            Event::Published { ticket, outcome, .. } => Some((ticket, outcome)),
            _ => None,
        };
        events(channels).into_iter().filter_map(outcome).collect()
    };
    let refused = Err(ChannelError::Overloaded);
    assert_eq!(told(&mut shards[0]), [(Some(9), refused), (Some(1), refused), (Some(3), Ok(None))]);
    assert_eq!(told(&mut shards[1]), [(Some(2), Ok(None))]);
    for channels in &mut shards {
        assert_eq!(deliveries(channels, 9), [(2, 1), (3, 1)]);
        channels.leave(1, |_| ());
    }
    carry(&mut shards);
    assert_eq!(shards[1].stats().appends_waiting, 0);
    let interests = &broker.0.lock().expect("one thread").interests;
    let expected =
        [Interest::First, Interest::Last].map(|interest| (channel.clone(), interest, false));
    assert_eq!(*interests, expected);
}
