//! Every input that fuzzing has kept.

use crate::oracles::{frames, proxies, requests, responses, upgrades};

#[path = "../../../../fuzz/src/corpus.rs"]
mod files;

/// Frames from the corpus decode to the same items in any pieces, and as in tungstenite.
#[test]
fn frames_of_the_corpus() {
    files::each("frames", frames::check);
}

/// Requests from the corpus are accepted or refused by the rules.
#[test]
fn requests_of_the_corpus() {
    files::each("requests", requests::check);
}

/// Responses from the corpus are accepted or refused by the rules.
#[test]
fn responses_of_the_corpus() {
    files::each("responses", responses::check);
}

/// Handshakes from the corpus are accepted or refused by the rules.
#[test]
fn upgrades_of_the_corpus() {
    files::each("upgrades", upgrades::check);
}

/// PROXY protocol headers from the corpus parse to the same result in any cut, and as in another
/// parser.
#[test]
fn proxies_of_the_corpus() {
    files::each("proxies", proxies::check);
}
