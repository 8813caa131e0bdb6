//! Publications on their way to the shards that have subscribers.

use std::sync::Arc;

use murre_router::Member;
use murre_router::channels::{
    ChannelLimits, Event, Origin, Overrun, Publication, Publisher, Pulled, Start, Subscribers,
    Taken,
};

use super::support::{carry, deliveries, events, owned_by, publish, shards, subscribe};
use crate::oracles::payload;

/// A publication goes to its owner and from there to the shards with subscribers, once to each; one
/// without subscribers and history goes no further than the owner.
#[test]
fn only_interested_shards_are_visited() {
    let mut shards = shards::<5>(ChannelLimits::default());
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

/// The publisher is not offered what history has of it, but the mark of a live publication is there
/// for the caller; history forgets it.
#[test]
fn the_publisher_may_be_left_out() {
    let [channels] = &mut shards::<1>(ChannelLimits::default());
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
