//! Everything that fuzzing has kept.

use crate::oracles::{frames, proxies, requests, responses, upgrades};

#[path = "../../../../fuzz/src/corpus.rs"]
mod files;

/// Frames that fuzzing has found are heard alike in any pieces, and as by tungstenite.
#[test]
fn frames_of_the_corpus() {
    files::each("frames", frames::check);
}

/// Requests that fuzzing has found are judged by the rules.
#[test]
fn requests_of_the_corpus() {
    files::each("requests", requests::check);
}

/// Responses that fuzzing has found are judged by the rules.
#[test]
fn responses_of_the_corpus() {
    files::each("responses", responses::check);
}

/// Handshakes that fuzzing has found are judged by the rules.
#[test]
fn upgrades_of_the_corpus() {
    files::each("upgrades", upgrades::check);
}

/// Headers of proxies that fuzzing has found are read alike in any cut, and as by another reader.
#[test]
fn proxies_of_the_corpus() {
    files::each("proxies", proxies::check);
}
