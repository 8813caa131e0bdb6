//! Responders take turns.

use std::collections::BTreeMap;

use murre_router::services::ServiceEvent;

use super::ROOMY;
use super::world::{Payload, World};

/// While nothing changes, the members that offer a service get equally many requests, to within one,
/// wherever they and the requesters are.
pub(crate) fn evenly(bytes: &[u8]) {
    let mut world = World::new(bytes, ROOMY);
    // Some come and go before.
    for member in 0..1 + world.choices.number(19) {
        let shard = world.any();
        world.shards[shard].serve(member, "one").expect("is new");
        if member > 0 && world.choices.number(3) == 0 {
            world.shards[shard].leave(member, |_| ());
        }
    }
    world.calm_down();
    let count = world.choices.number(100);
    for ticket in 0..count {
        let (from, to) = (world.any(), world.any());
        world.shards[from]
            .request(50, ticket, "one", Payload(ticket, 0), 10)
            .expect("there is room");
        world.hand_over(from, to);
        world.arrive(from, to, 2);
    }
    world.calm_down();
    let mut asked = BTreeMap::new();
    for services in &mut world.shards {
        while let Some(event) = services.event(|_| true) {
            let ServiceEvent::Request { member, .. } = event else { panic!("{event:?}") };
            *asked.entry(member).or_insert(0) += 1;
        }
    }
    let offers: usize = world.shards.iter().map(|services| services.stats().offers).sum();
    let least = if asked.len() < offers { 0 } else { *asked.values().min().expect("one") };
    assert_eq!(asked.values().sum::<u32>(), count);
    assert!(asked.values().all(|times| *times <= least + 1), "{asked:?}");
}
