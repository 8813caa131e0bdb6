//! A shard driven by the inputs that fuzzing has kept.

use crate::any_bytes;

#[path = "../../../../fuzz/src/corpus.rs"]
mod files;

/// No input panics, leaves anything behind, or escapes the counters.
#[test]
fn shards_of_the_corpus() {
    files::each("shard", any_bytes::check);
}
