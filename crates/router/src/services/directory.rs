//! Who offers the services that a shard owns, and whose turn it is.

use std::collections::HashMap;
use std::sync::Arc;

use super::Failure;
use super::entries::Key;
use crate::Shard;
use crate::memory::Trim;

/// Offers of all shards, by service.
#[derive(Default)]
pub(super) struct Directory {
    services: HashMap<Arc<str>, Rota>,
    places: HashMap<Name, Place>,
}

/// An offer, by the shard it is on and its name there. The generation is for that shard: a request
/// is for this offer and not for the next one in its slot, whoever makes it.
#[derive(Clone, Copy)]
pub(super) struct Address {
    pub(super) shard: Shard,
    pub(super) offer: Key,
}

/// What an offer is called when notes tell of it. The slot is enough: notes of one shard come in
/// their order, so an offer's end comes before the next offer in the same slot.
type Name = (Shard, u32);

/// One service.
#[derive(Default)]
struct Rota {
    /// First those that take requests, then those that rest.
    offers: Vec<Address>,
    active: usize,
    /// The next one's place, unless it is past the active ones.
    turn: usize,
}

struct Place {
    service: Arc<str>,
    index: usize,
}

impl Directory {
    /// Somebody on `shard` offers `service`.
    pub(super) fn add(&mut self, shard: Shard, offer: Key, service: Arc<str>) {
        let rota = self.services.entry(Arc::clone(&service)).or_default();
        let index = rota.offers.len();
        rota.offers.push(Address { shard, offer });
        let before = self.places.insert((shard, offer.index), Place { service, index });
        assert!(before.is_none(), "an offer ends before its slot is used again");
        self.wake(shard, offer.index);
    }

    /// The offer has ended.
    pub(super) fn remove(&mut self, shard: Shard, offer: u32) {
        let (rota, places, index) = self.find(shard, offer);
        if index < rota.active {
            rota.active -= 1;
            rota.swap(places, index, rota.active);
        }
        let last = rota.offers.len() - 1;
        let index = index.max(rota.active);
        rota.swap(places, index, last);
        rota.offers.pop();
        rota.offers.trim();
        let is_last = rota.offers.is_empty();
        let place = self.places.remove(&(shard, offer)).expect("it was found");
        self.places.trim();
        if is_last {
            self.services.remove(&place.service);
            self.services.trim();
        }
    }

    /// The offer takes no requests for now.
    pub(super) fn rest(&mut self, shard: Shard, offer: u32) {
        let (rota, places, index) = self.find(shard, offer);
        assert!(index < rota.active, "it rests already");
        rota.active -= 1;
        rota.swap(places, index, rota.active);
    }

    /// The offer takes requests again.
    pub(super) fn wake(&mut self, shard: Shard, offer: u32) {
        let (rota, places, index) = self.find(shard, offer);
        assert!(index >= rota.active, "it does not rest");
        rota.swap(places, index, rota.active);
        rota.active += 1;
    }

    /// Whose turn it is to take a request.
    pub(super) fn next(&mut self, service: &str) -> Result<Address, Failure> {
        let rota = self.services.get_mut(service).ok_or(Failure::NoResponders)?;
        if rota.active == 0 {
            return Err(Failure::Overloaded);
        }
        if rota.turn >= rota.active {
            rota.turn = 0;
        }
        rota.turn += 1;
        Ok(rota.offers[rota.turn - 1])
    }

    fn find(&mut self, shard: Shard, offer: u32) -> (&mut Rota, &mut HashMap<Name, Place>, usize) {
        let place = self.places.get(&(shard, offer)).expect("notes are in order");
        let rota = self.services.get_mut(&place.service).expect("it has this offer");
        let index = place.index;
        (rota, &mut self.places, index)
    }

    /// How many services are offered.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }
}

impl Rota {
    fn swap(&mut self, places: &mut HashMap<Name, Place>, one: usize, other: usize) {
        self.offers.swap(one, other);
        for index in [one, other] {
            let Address { shard, offer } = self.offers[index];
            let place = places.get_mut(&(shard, offer.index)).expect("each offer has its place");
            place.index = index;
        }
    }
}
