//! The router does not allocate for a message in the steady state.

use std::sync::Arc;

use allocation_counter::measure;
use murre_router::Member;
use murre_router::channels::{
    ChannelLimits, Channels, Form, Origin, Overrun, Payload, Publication, Publisher, Retention,
    Start, Subscribers, Taken,
};

const SUBSCRIBERS: Member = 100;
const HISTORY: u32 = 50;

/// Connections that take everything.
struct Taking(u64);

impl Subscribers<()> for Taking {
    fn offer(&mut self, _: Member, _: &Publication, (): &mut ()) -> Taken {
        self.0 += 1;
        Taken::Yes
    }

    fn overrun(&mut self, _: Member, _: &Arc<str>) -> Overrun {
        unreachable!("nobody is behind")
    }

    fn dropped(&mut self, _: Member, _: &Arc<str>, _: u64) {
        unreachable!("nobody is behind")
    }
}

/// Two shards: the second owns the channels and publishes, both have subscribers.
struct World {
    shards: [Channels; 2],
    channels: [String; 2],
    payload: Payload,
    taken: Taking,
}

impl World {
    fn new() -> Self {
        let rules = |channel: &str| {
            channel.starts_with("kept").then_some(Retention { size: HISTORY, ttl_ms: 1 << 40 })
        };
        let mut shards =
            [0, 1].map(|shard| Channels::<()>::new(shard, 2, 1, rules, ChannelLimits::default()));
        let channels = ["kept", "plain"].map(|namespace| {
            let mut names = (0..).map(|number| format!("{namespace}:{number}"));
            names.find(|name| shards[0].owner(name) == 1).expect("each shard owns some")
        });
        for shard in &mut shards {
            for member in 0..SUBSCRIBERS {
                for channel in &channels {
                    assert_eq!(shard.subscribe(member, channel, Start::Head, 0, 0), Ok(()));
                }
            }
        }
        let payload = Payload::new(Form::Json, *b"7");
        let mut world = World { shards, channels, payload, taken: Taking(0) };
        world.carry();
        world
    }

    /// Hands over all messages, as a caller does that keeps the room of their lists.
    fn carry(&mut self) {
        while self.shards.iter().any(|shard| shard.stats().messages_waiting > 0) {
            let [one, other] = &mut self.shards;
            one.messages(1).drain(..).for_each(|message| other.receive(0, message, 0));
            other.messages(0).drain(..).for_each(|message| one.receive(1, message, 0));
        }
        for shard in &mut self.shards {
            while shard.event().is_some() {}
        }
    }

    /// Publishes to both channels, once without a ticket and once with one, and delivers.
    fn publish(&mut self) {
        for channel in &self.channels {
            for ticket in [None, Some(7)] {
                let publisher = Publisher { origin: Origin(0), ticket, except: false };
                let payload = self.payload.clone();
                assert_eq!(self.shards[1].publish(channel, payload, publisher, 0), Ok(()));
            }
        }
        self.carry();
        for shard in &mut self.shards {
            while shard.deliver(64, 0, &mut self.taken) {}
        }
    }
}

/// Publishing, with history and without, passing publications to another shard and handing them to
/// subscribers there allocates nothing: queues keep their room, and publications share their bytes.
#[test]
fn publications_allocate_nothing() {
    let mut world = World::new();
    (0..2 * HISTORY).for_each(|_| world.publish());
    let before = world.taken.0;
    let allocations = measure(|| (0..100).for_each(|_| world.publish()));
    assert_eq!(world.taken.0 - before, 100 * 4 * 2 * u64::from(SUBSCRIBERS));
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}
