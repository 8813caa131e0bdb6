//! A shard that does what bytes say: those that fuzzing has kept.

use crate::any_bytes;

#[path = "../../../../fuzz/src/corpus.rs"]
mod files;

/// Whatever is said, happens and goes wrong, nothing panics, nothing is left and all is counted.
#[test]
fn shards_of_the_corpus() {
    files::each("shard", any_bytes::check);
}
