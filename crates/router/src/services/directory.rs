//! The offers of the services that a shard owns, and their turns.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entries::Key;
use super::event::RequestError;
use crate::memory::Trim;
use crate::names::Shard;

/// Offers of all shards, by service.
#[derive(Default)]
pub(super) struct Directory {
    services: HashMap<Arc<str>, Rota>,
    places: HashMap<ResponderName, ResponderPlace>,
}

/// An offer: its shard, and its key there. The generation tells the shard whether a request is for this
/// offer or for an earlier one in the same slot.
#[derive(Clone, Copy)]
pub(super) struct Address {
    pub(super) shard: Shard,
    pub(super) offer: Key,
}

/// Identifies an offer in messages by shard and slot. That is enough: messages of one shard come in
/// their order, so an offer's end comes before the next offer in the same slot.
type ResponderName = (Shard, u32);

/// Whether an offer gets requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Readiness {
    /// It gets requests.
    #[default]
    Active,
    /// The connection of its member is congested: it gets requests only if no offer is active.
    Congested,
    /// Its member has reached its bound of requests: it gets none.
    Full,
}

/// One service.
#[derive(Default)]
struct Rota {
    /// Active offers first, then congested ones, then full ones.
    offers: Vec<Address>,
    active: usize,
    congested: usize,
    /// The index of the next offer, or one past the offers that take turns.
    turn: usize,
}

struct ResponderPlace {
    service: Arc<str>,
    index: usize,
}

impl Directory {
    /// Adds an offer of `service` on `shard`. Returns whether it is the first one.
    pub(super) fn add(&mut self, shard: Shard, offer: Key, service: Arc<str>) -> bool {
        let rota = self.services.entry(Arc::clone(&service)).or_default();
        let index = rota.offers.len();
        rota.offers.push(Address { shard, offer });
        let before = self.places.insert((shard, offer.index), ResponderPlace { service, index });
        assert!(before.is_none(), "an offer ends before its slot is used again");
        self.set(shard, offer.index, Readiness::Active);
        index == 0
    }

    /// Removes an offer. Returns its service if that was the last one.
    pub(super) fn remove(&mut self, shard: Shard, offer: u32) -> Option<Arc<str>> {
        self.set(shard, offer, Readiness::Full);
        let (rota, places, index) = self.find(shard, offer);
        let last = rota.offers.len() - 1;
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
        is_last.then_some(place.service)
    }

    /// Sets the readiness of an offer.
    pub(super) fn set(&mut self, shard: Shard, offer: u32, readiness: Readiness) {
        let (rota, places, mut index) = self.find(shard, offer);
        loop {
            let now = rota.readiness(index);
            // Move it across one border between two zones.
            let border = match (now, now.cmp(&readiness)) {
                (_, Ordering::Equal) => return,
                (Readiness::Active, _) => {
                    rota.active -= 1;
                    rota.congested += 1;
                    rota.active
                }
                (Readiness::Congested, Ordering::Less) => {
                    rota.congested -= 1;
                    rota.active + rota.congested
                }
                (Readiness::Congested, _) => {
                    rota.active += 1;
                    rota.congested -= 1;
                    rota.active - 1
                }
                (Readiness::Full, _) => {
                    rota.congested += 1;
                    rota.active + rota.congested - 1
                }
            };
            rota.swap(places, index, border);
            index = border;
        }
    }

    /// The offer for the next request, and whether it is active. Active offers take turns; without any,
    /// congested ones do.
    ///
    /// # Errors
    /// `NoResponders` without offers, `Overloaded` if all offers are full.
    pub(super) fn next(&mut self, service: &str) -> Result<(Address, bool), RequestError> {
        let rota = self.services.get_mut(service).ok_or(RequestError::NoResponders)?;
        let takers = if rota.active > 0 { rota.active } else { rota.congested };
        if takers == 0 {
            return Err(RequestError::Overloaded);
        }
        if rota.turn >= takers {
            rota.turn = 0;
        }
        rota.turn += 1;
        Ok((rota.offers[rota.turn - 1], rota.active > 0))
    }

    fn find(
        &mut self,
        shard: Shard,
        offer: u32,
    ) -> (&mut Rota, &mut HashMap<ResponderName, ResponderPlace>, usize) {
        let place = self.places.get(&(shard, offer)).expect("messages are in order");
        let rota = self.services.get_mut(&place.service).expect("it has this offer");
        let index = place.index;
        (rota, &mut self.places, index)
    }

    /// Number of services that are offered.
    pub(super) fn len(&self) -> usize {
        self.services.len()
    }
}

impl Rota {
    fn readiness(&self, index: usize) -> Readiness {
        match index {
            _ if index < self.active => Readiness::Active,
            _ if index < self.active + self.congested => Readiness::Congested,
            _ => Readiness::Full,
        }
    }

    fn swap(
        &mut self,
        places: &mut HashMap<ResponderName, ResponderPlace>,
        one: usize,
        other: usize,
    ) {
        self.offers.swap(one, other);
        for index in [one, other] {
            let Address { shard, offer } = self.offers[index];
            let place = places.get_mut(&(shard, offer.index)).expect("each offer has its place");
            place.index = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Active offers take turns; only if there are none do congested ones; full ones never do.
    #[test]
    fn readiness_decides() {
        let mut directory = Directory::default();
        let mut states = [Readiness::Active; 5];
        let mut rng = fastrand::Rng::with_seed(4);
        for offer in 0..5 {
            let is_first = directory.add(0, Key { index: offer, generation: 1 }, "time".into());
            assert_eq!(is_first, offer == 0);
        }
        let all = [Readiness::Active, Readiness::Congested, Readiness::Full];
        for _ in 0..2000 {
            let offer = rng.usize(0..5);
            states[offer] = all[rng.usize(0..3)];
            directory.set(0, offer as u32, states[offer]);
            let best = states.iter().min().expect("five");
            let takers = states.iter().filter(|state| *state == best).count();
            let mut taken = [0; 5];
            for _ in 0..takers {
                match directory.next("time") {
                    Ok((address, is_active)) => {
                        assert_eq!(is_active, *best == Readiness::Active);
                        taken[address.offer.index as usize] += 1;
                    }
                    Err(why) => {
                        assert_eq!((why, *best), (RequestError::Overloaded, Readiness::Full))
                    }
                }
            }
            if *best != Readiness::Full {
                assert!((0..5).all(|at| taken[at] == u32::from(states[at] == *best)));
            }
        }
        for offer in 0..5 {
            assert_eq!(directory.remove(0, offer).is_some(), offer == 4);
        }
        assert_eq!(
            (directory.next("time").err(), directory.len()),
            (Some(RequestError::NoResponders), 0)
        );
    }
}
