//! `Channels` beside naive models of it: one shard, operation by operation, and several shards that
//! hear each other late, over many seeds.

mod cases;
mod oracles;

#[path = "../../../../fuzz/src/corpus.rs"]
mod corpus;

use proptest::collection::vec;
use proptest::prelude::*;

const SEEDS: u64 = 2000;
/// About 150 steps.
const BYTES: usize = 900;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// One shard does what a map of sets does, and holds nothing when everybody has left.
    #[test]
    fn one_shard_is_a_map_of_sets(commands in vec(any::<u8>(), 0..400)) {
        oracles::one_shard(&commands);
    }
}

/// Nothing is lost, nothing comes twice, all subscribers hear the owner's order, recovery is exact,
/// nobody hears who has left, and everything is given back, however late shards hear each other.
#[test]
fn shards_agree() {
    for seed in 0..SEEDS {
        let mut bytes = [0; BYTES];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        if let Err(panic) = std::panic::catch_unwind(|| oracles::several(&bytes)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// The same for what fuzzing has found.
#[test]
fn channels_of_the_corpus() {
    corpus::each("channels", oracles::check);
}
