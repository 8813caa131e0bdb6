//! Presence, as its caller sees it.

mod cases;
mod oracle;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever sessions do, on however many shards, and however late messages are: in the end every
    /// watcher knows exactly the members or their number, pages have each member once, and nothing is left
    /// when all have gone.
    #[test]
    fn watchers_know_exactly_the_members(steps in vec(any::<u8>(), 0..600)) {
        oracle::run(&steps);
    }
}

/// The same for longer runs of fixed seeds. Each kind of news is common in them.
#[test]
fn watchers_of_many_seeds() {
    let mut kinds = std::collections::BTreeMap::<&str, u32>::new();
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; rng.usize(500..4000)];
        rng.fill(&mut bytes);
        let told = std::panic::catch_unwind(|| oracle::run(&bytes));
        let told = told.unwrap_or_else(|_| panic!("seed {seed}"));
        told.into_iter().for_each(|(kind, times)| *kinds.entry(kind).or_default() += times);
    }
    for kind in ["members", "joins", "leaves", "updates", "counts", "behind", "page", "refused"] {
        assert!(kinds.get(kind) > Some(&100), "{kind} is rare in {kinds:?}");
    }
}
