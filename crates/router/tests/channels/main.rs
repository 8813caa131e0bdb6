//! `Channels` compared with naive models: one shard, operation by operation, and several shards whose
//! messages are late, over many seeds.

mod cases;
mod cluster;
mod oracles;

#[path = "../../../../fuzz/src/corpus.rs"]
mod corpus;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

const SEEDS: u64 = 2000;
const CLUSTER_SEEDS: u64 = 2000;

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

/// What a broker has ordered in a channel with history is heard on every node, once and in order, or the
/// member is told of a loss, whatever the broker delays, loses, repeats or forgets; nothing waits for ever, and
/// all memory is given back.
#[test]
fn nodes_agree() {
    let mut kinds = BTreeMap::new();
    for seed in 0..CLUSTER_SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; rng.usize(200..4000)];
        rng.fill(&mut bytes);
        let run = |bytes: &[u8]| std::panic::catch_unwind(|| cluster::run(bytes));
        match run(&bytes) {
            Ok(of_one) => of_one
                .into_iter()
                .for_each(|(kind, times)| *kinds.entry(kind).or_insert(0) += times),
            Err(_) => {
                let small = cluster::shrink(&bytes, |bytes| run(bytes).is_err());
                eprintln!("seed {seed}, {} bytes: {small:?}", small.len());
                cluster::run(&small);
                panic!("a smaller run fails otherwise");
            }
        }
    }
    println!("{kinds:?}");
    // An empty channel cannot always be told from one whose publications have expired, nor what is on its way
    // from what is lost.
    let false_alarms = kinds.remove("false alarm").unwrap_or(0);
    assert!(false_alarms * 100 < CLUSTER_SEEDS as u32, "{false_alarms}");
    assert!(kinds.len() == 10 && kinds.values().all(|times| *times > 200), "{kinds:?}");
}

/// The same for what fuzzing has found.
#[test]
fn channels_of_the_corpus() {
    corpus::each("channels", oracles::check);
}
