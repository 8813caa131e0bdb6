//! The inputs that fuzzing has kept, for the tests of the crates: each includes this file.

use std::fs;
use std::path::Path;

/// Runs `check` on every file of a target's corpus.
pub(crate) fn each(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{corpus:?}: {error}"));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "{corpus:?} has {} files", paths.len());
    for path in paths {
        // The test harness shows the path if the check fails.
        println!("{}", path.display());
        check(&fs::read(&path).expect("a file"));
    }
}
