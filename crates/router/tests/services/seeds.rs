//! The oracles over many seeds, and over what fuzzing has found.

use std::collections::BTreeMap;

use murre_router::services::ServiceLimits;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::oracles::{self, ROOMY, TIGHT};

#[path = "../../../../fuzz/src/corpus.rs"]
mod corpus;

/// Runs with the bytes of many seeds, which are as many as for 50 to 400 steps.
fn with_seeds(seeds: u64, mut run: impl FnMut(&[u8])) {
    for seed in 0..seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; rng.usize(200..1600)];
        rng.fill(&mut bytes);
        let seed = Seed(seed);
        run(&bytes);
        drop(seed);
    }
}

/// Says which seed a panic belongs to.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn several(limits: ServiceLimits, kinds: &[&'static str]) {
    let mut outcomes = BTreeMap::new();
    with_seeds(1500, |bytes| {
        for (what, times) in oracles::several(bytes, limits) {
            *outcomes.entry(what).or_default() += times;
        }
    });
    let rare: Vec<_> = kinds.iter().filter(|what| outcomes.get(*what) < Some(&100)).collect();
    assert!(rare.is_empty(), "{rare:?} are rare in {outcomes:?}");
}

proptest! {
    /// Whatever members do, in whatever order, is refused or told as the model says, and nothing is
    /// left when they have gone.
    #[test]
    fn one_shard_is_as_its_model(steps in vec(any::<u8>(), 0..500)) {
        oracles::one_shard(&steps);
    }
}

/// Members come and go, their numbers are used again, messages are late: every request has one
/// outcome, for which there is a reason, is seen by one responder at most, and nothing is left.
#[test]
fn every_request_has_one_outcome() {
    let kinds =
        ["request", "response", "no responders", "responder gone", "responder failed", "timeout"];
    several(ROOMY, &kinds);
}

/// The same where there is too much of everything.
#[test]
fn within_tight_limits() {
    let kinds = ["request", "response", "no responders", "overloaded", "responder gone", "timeout"];
    several(TIGHT, &kinds);
}

/// While nothing changes, the members that offer a service get equally many requests, to within one,
/// wherever they and the requesters are.
#[test]
fn requests_are_spread_evenly() {
    with_seeds(500, oracles::evenly);
}

/// All of that for what fuzzing has found.
#[test]
fn services_of_the_corpus() {
    corpus::each("services", oracles::check);
}
