//! Deliveries to subscribers that have caught up.

use std::sync::Arc;

use murre_router::Member;
use murre_router::channels::{ChannelLimits, Overrun, Publication, Subscribers, Taken};

use super::support::{deliveries, publish, shards, subscribe};

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
    let [channels] = &mut shards::<1>(ChannelLimits::default());
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

/// A member with very many subscriptions, each channel with very many subscribers: each ends alone.
#[test]
fn many_of_each() {
    let [channels] = &mut shards::<1>(ChannelLimits::default());
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
