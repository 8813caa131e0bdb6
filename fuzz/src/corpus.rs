//! What fuzzing has found worth keeping, for the tests of the crates: each includes this file.

use std::fs;
use std::path::Path;

/// Holds every file of a target's corpus against its oracle.
pub(crate) fn each(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{corpus:?}: {error}"));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "{corpus:?} has {} files", paths.len());
    for path in paths {
        // Shown if it fails.
        println!("{}", path.display());
        check(&fs::read(&path).expect("a file"));
    }
}
