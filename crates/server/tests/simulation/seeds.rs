//! Runs of many seeds, and the report of the first that fails.

use std::sync::Mutex;
use std::time::Instant;

use murre_testing::{catch_panic, first_failure, seeds};

use super::model::Seen;
use super::plan::Plan;
use super::shrink;
use super::world::World;

/// Seeds, unless `SEEDS` in the environment says otherwise.
const SEEDS: u64 = 10_000;

/// What some of many runs must come to.
const EXPECTED: [&str; 39] = [
    "a WebSocket ended: token",
    "a WebSocket ended: too fast",
    "a WebSocket ended: drain",
    "a WebSocket ended: slow",
    "a WebSocket ended: administrator",
    "a stream ended: token",
    "a stream ended: administrator",
    "a stream ended: slow",
    "a stream ended: drain",
    "a poll ended: token",
    "a poll ended: administrator",
    "a Phoenix session ended",
    "an abrupt end",
    "a handshake refused",
    "publications dropped",
    "a publication refused",
    "an unnamed publication refused",
    "a recovery",
    "an empty poll",
    "a poll with publications",
    "an unreadable position",
    "a shard ended before others",
    "a response",
    "members told",
    "members changed",
    "members counted",
    "metadata replaced",
    "a member hidden",
    "a page of members",
    "a consent of the backend",
    "a refusal of the backend",
    "a prohibition of the backend",
    "a failure of the backend",
    "an overloaded backend",
    "an end by the backend",
    "too many commands for the backend",
    "a subscription ended by the server",
    "a Phoenix session that polls",
    "a Phoenix session that polls ended",
];

/// Whatever clients, networks and clocks do, each client hears what the model says, ends as the model
/// says, and leaves nothing behind.
#[test]
fn clients_get_what_the_model_says() {
    let seeds = seeds(SEEDS);
    let (started, count) = (Instant::now(), seeds.end - seeds.start);
    let all = Mutex::new(Seen::new());
    let failed = first_failure(seeds, |seed| match attempt(&Plan::of_seed(seed)) {
        Err(_) => true,
        Ok(seen) => {
            let mut all = all.lock().expect("nobody panics with it");
            seen.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
            false
        }
    });
    if let Some(seed) = failed {
        panic!("{}", explain(seed));
    }
    let all = all.into_inner().expect("nobody panics with it");
    for what in EXPECTED {
        assert!(all.contains_key(what) || count < 2000, "{what} never happened: {all:?}");
    }
    eprintln!("{all:#?}\n{count} seeds in {:.1} s", started.elapsed().as_secs_f64());
}

/// What fuzzing has kept.
#[test]
fn the_corpus() {
    crate::corpus::each("hub", super::check);
}

/// The shortest run that fails as this seed does.
fn explain(seed: u64) -> String {
    let plan = Plan::of_seed(seed);
    let Some(first) = failure(&plan) else {
        return format!(
            "SEED={seed} failed once and not again: the seed does not determine it all"
        );
    };
    let small = shrink::shrink(&plan, |plan| failure(plan).is_some());
    let last = failure(&small).unwrap_or_default();
    format!(
        "SEED={seed} fails: {first}\nThe shortest run found that fails:\n{small}\n{last}\n{} steps of {}. \
         Again: SEED={seed} cargo test --package murre --lib simulation",
        small.steps.len(),
        plan.steps.len()
    )
}

/// How a run fails, if it does.
fn failure(plan: &Plan) -> Option<String> {
    attempt(plan).err()
}

fn attempt(plan: &Plan) -> Result<Seen, String> {
    catch_panic(|| World::play(plan))
}
