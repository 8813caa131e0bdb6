//! Runs `phoenix` and `presence` against a small server of members, which is right or makes one mistake.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::members::{self, Mistake, Protocol};

/// The files with the secret for tokens and the key of the API.
fn files() -> [PathBuf; 2] {
    ["secret", "key"].map(|name| {
        let path = std::env::temp_dir().join(format!("murre-load-{name}-{}", std::process::id()));
        fs::write(&path, "what the test and its server know\n").expect("a file");
        path
    })
}

fn arguments(scenario: &str, protocol: Protocol, mistake: Mistake) -> String {
    let (address, admin) = members::start(protocol, mistake);
    let [secret, key] = files().map(|path| path.display().to_string());
    format!(
        "{scenario} --target {address} --admin {admin} --token-secret-file {secret} --api-key-file {key}"
    )
}

#[track_caller]
fn passes(scenario: &str, protocol: Protocol) -> Value {
    crate::passes(&arguments(scenario, protocol, Mistake::None))
}

#[track_caller]
fn fails(scenario: &str, protocol: Protocol, mistake: Mistake, why: &str) {
    println!("{scenario}: {mistake:?}");
    let scenario = format!("{scenario} --timeout 2s");
    crate::fails(&arguments(&scenario, protocol, mistake), why);
}

const PHOENIX: &str = "phoenix --conns 20 --topics 3 --every 200ms --duration 1s --shards 2";
const MEMBERS: &str = "presence --conns 30 --channels 4 --rate 20 --duration 1s --shards 2";
const COUNTS: &str = "presence --conns 30 --rate 20 --duration 1s --watch counts --beside 2";

/// Shows that each client joins and beats, and that the server's members are counted in all topics.
#[test]
fn clients_join_and_beat() {
    let record = passes(PHOENIX, Protocol::Phoenix);
    let phoenix = &record["phoenix"];
    assert_eq!((&phoenix["topics"], &phoenix["users"]), (&3.into(), &true.into()));
    assert_eq!(phoenix["members"]["clients"], 20);
    assert_eq!(phoenix["members"]["users"], 20);
    assert!(record["latency_us"]["count"].as_u64() >= Some(20), "{record}");
    assert_eq!(record["latency_us"]["counted_from"], "due");
}

/// Shows that each of these fails the run: a join or a heartbeat that is refused, not answered or answered to
/// another ref, news of another topic, and a wrong count of members.
#[test]
fn mistakes_of_a_phoenix_server_are_found() {
    for (mistake, why) in [
        (Mistake::Refuses, "wrong: `phx_reply` of room:"),
        (Mistake::Silent, "no reply to a heartbeat"),
        (Mistake::WrongAnswer, "wrong: `phx_reply`"),
        (Mistake::OtherChannel, "wrong: `presence_diff` of elsewhere"),
        (Mistake::Miscounts, "the server counts"),
    ] {
        fails(PHOENIX, Protocol::Phoenix, mistake, why);
    }
}

/// Shows that members come and go on their schedule, and that all watchers know them at the end: by changes
/// in several channels, and by counts in one, with pings beside them.
#[test]
fn members_are_known_at_the_end() {
    let record = passes(MEMBERS, Protocol::MurreV1);
    let presence = &record["presence"];
    let count = |name: &str| presence[name].as_u64().expect(name);
    assert!(count("joins") > 5 && count("leaves") > 5, "{presence}");
    assert!(count("states") >= 30 && count("diffs") > 0 && count("changes") > 0, "{presence}");
    assert_eq!(presence["members"]["clients"], count("exact"), "everybody watches");
    assert!((26..30).contains(&count("exact")), "{presence}");

    let record = passes(COUNTS, Protocol::MurreV1);
    let presence = &record["presence"];
    assert!(presence["counts"].as_u64() > Some(30) && presence["diffs"] == 0, "{presence}");
    assert!(presence["beside_us"]["count"].as_u64() > Some(0), "{presence}");
}

/// Shows that each of these fails the run: changes that do not come, that are of another channel, or that
/// have an old state or another connection; and wrong counts.
#[test]
fn mistakes_about_members_are_found() {
    for (mistake, why) in [
        (Mistake::Refuses, "refused here"),
        (Mistake::Silent, "no answer to a join or a leave"),
        (Mistake::WrongAnswer, "unexpected"),
        (Mistake::OtherChannel, "`presence_diff` of `elsewhere`"),
        (Mistake::Loses, "answers never came"),
        (Mistake::OldMeta, "behind its join"),
        (Mistake::OtherConnection, "of another connection than before"),
        (Mistake::Miscounts, "the server counts"),
    ] {
        fails(MEMBERS, Protocol::MurreV1, mistake, why);
    }
    fails(COUNTS, Protocol::MurreV1, Mistake::Loses, "answers never came");
}
