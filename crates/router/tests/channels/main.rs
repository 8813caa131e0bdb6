//! `Channels` compared with naive models: one shard, operation by operation, and several shards whose
//! messages are late, over many seeds.

mod cases;
mod oracles;

#[path = "../../../../fuzz/src/corpus.rs"]
mod corpus;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

const SEEDS: u64 = 2000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// One shard does what a map of sets does, and holds nothing when everybody has left.
    #[test]
    fn one_shard_is_a_map_of_sets(commands in vec(any::<u8>(), 0..400)) {
        oracles::one_shard(&commands);
    }
}

/// However late messages between shards are: no publication is lost or comes twice, or the member is told
/// how many are missing; all subscribers get the owner's order, recovery is exact, publishers do not wait
/// for ever, logs are bounded, and all memory is given back.
#[test]
fn shards_agree() {
    let mut kinds = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        // For 50 to 800 steps.
        let mut bytes = vec![0; rng.usize(200..3000)];
        rng.fill(&mut bytes);
        match std::panic::catch_unwind(|| oracles::several(&bytes)) {
            Ok(of_one) => of_one
                .into_iter()
                .for_each(|(kind, times)| *kinds.entry(kind).or_insert(0) += times),
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{kinds:?}");
    assert!(kinds.len() == 9 && kinds.values().all(|times| *times > 200), "{kinds:?}");
}

/// The same for what fuzzing has found.
#[test]
fn channels_of_the_corpus() {
    corpus::each("channels", oracles::check);
}
