//! Runs the scenarios of channels against a small server of channels: a correct server passes, and the
//! scenarios find each of its mistakes.

use serde_json::Value;

use crate::hub::{self, Mistake};

#[track_caller]
fn passes(arguments: &str, mistake: Mistake) -> Value {
    crate::passes(&format!("{arguments} --timeout 180s --target {}", hub::start(mistake)))
}

/// Runs a scenario against a server with a mistake.
#[track_caller]
fn fails(arguments: &str, mistake: Mistake, why: &str) -> Value {
    println!("{arguments}: {mistake:?}");
    let timeout = if arguments.contains("--timeout") { "" } else { "--timeout 3s" };
    crate::fails(&format!("{arguments} {timeout} --target {}", hub::start(mistake)), why)
}

const PUBSUB: &str = "pubsub --conns 20 --duration 1s";
const REQUESTS: &str = "request-reply --conns 10 --duration 1s";
const FANOUT: &str = "fanout --conns 20 --duration 1s";
const RECOVER: &str = "recover --conns 20 --channels 4 --duration 2s --rate 200";
const CHURN: &str = "churn --conns 20 --channels 4 --idle 0.03-0.1 --duration 1s --rate 500";

/// Shows a small run of R3, with its columns, its file of columns and the figures of the article. A
/// publication of another identifier fails the run.
#[test]
fn messages_are_of_the_identifier_subscribed_to() {
    let csv = std::env::temp_dir().join(format!("murre-columns-{}", std::process::id()));
    let record = passes(&format!("{PUBSUB} --csv {}", csv.display()), Mistake::None);
    let columns = std::fs::read_to_string(&csv).expect("the columns");
    std::fs::remove_file(&csv).expect("it was there");
    assert!(columns.starts_with("connections,connected,average_response_ms,"), "{columns}");
    assert_eq!(columns.lines().count(), 2);
    let article = &record["article"];
    assert!(article["average_bytes"].as_f64() > Some(1350.0), "{article}");
    assert!(article["average_response_ms"].is_number() && article["ten_highest_ms"].is_number());
    assert_eq!(article["rows"][0]["connected"], 20);
    assert_eq!(record["latency_us"]["counted_from"], "sent-by-server");
    let record = fails(PUBSUB, Mistake::WrongIdentifier, "identifier 0 instead of ");
    assert_eq!(record["wrong"], 1);
}

/// Shows that a run fails without a feed, and without any answer.
#[test]
fn a_server_that_publishes_nothing_fails_the_run() {
    fails(PUBSUB, Mistake::NoFeed, "the server says unknown_action: not without --bench");
    let refused = "the server says not_allowed: no \"entry\"";
    for scenario in [PUBSUB, FANOUT, CHURN] {
        fails(scenario, Mistake::Refusing, refused);
        let record = fails(&format!("{scenario} --timeout 300ms"), Mistake::Silent, "timeout");
        assert!(record["hold"].is_null());
    }
}

/// Shows the second half of a small R3 run. A response to another request fails the run.
#[test]
fn requests_have_their_own_responses() {
    let record = passes(REQUESTS, Mistake::None);
    // The run has ten connections.
    assert!(record["hold"]["requests"].as_u64() >= Some(10), "{}", record["hold"]);
    assert!(record["article"]["average_bytes"].as_f64() > Some(50.0));
    fails(REQUESTS, Mistake::WrongResponse, "wrong: Response");
}

/// Shows that a fan-out passes with one channel and with several, with more publishers and shards,
/// on a schedule, and with pings beside it. Each delivery counts as an answer.
#[test]
fn every_subscriber_gets_everything() {
    let record = passes(&format!("{FANOUT} --beside 3"), Mistake::None);
    let (fanout, hold) = (&record["fanout"], &record["hold"]);
    let publications = fanout["publications"].as_u64().expect("a number");
    assert_eq!(record["answered"].as_u64(), Some(publications * 20));
    assert!(fanout["last_delivery_us"]["count"].as_u64() > Some(0), "{fanout}");
    assert!(fanout["beside_us"]["count"].as_u64() > Some(0), "{fanout}");
    assert!(hold["requests"].as_u64() > Some(20), "{hold}");
    assert_eq!(record["connect"]["connections"], 24);

    let several = "--channels 10 --kept --publishers 3 --pipeline 4 --shards 3 --payload 5000";
    let record = passes(&format!("{FANOUT} {several}"), Mistake::None);
    let publications = record["fanout"]["publications"].as_u64().expect("a number");
    assert_eq!(record["answered"].as_u64(), Some(publications * 2));

    let record = passes(&format!("{FANOUT} --channels 5 --rate 100 --shards 2"), Mistake::None);
    assert_eq!(record["latency_us"]["counted_from"], "due");
    let publications = record["fanout"]["publications"].as_u64().expect("a number");
    assert_eq!(record["answered"].as_u64(), Some(publications * 4));
    assert!(publications > 0, "{record}");
}

/// Shows that a lost delivery, a repeated one and one with a wrong byte each fail the run.
#[test]
fn a_delivery_that_is_not_the_next_is_found() {
    for (mistake, why) in [
        (Mistake::Lost, "answers never came"),
        (Mistake::Twice, "wrong: "),
        (Mistake::WrongByte, "expected \"opq"),
    ] {
        fails(FANOUT, mistake, why);
    }
    // On a schedule the next delivery reveals the missing one.
    fails(&format!("{FANOUT} --rate 200"), Mistake::Lost, "wrong: of fanout-0, publication 2");
    fails(&format!("{FANOUT} --rate 200"), Mistake::Twice, "wrong:");
}

/// Shows that no publication is lost while subscribers come and go, on one shard and several, with
/// history and without.
#[test]
fn a_subscriber_that_reconnects_misses_nothing() {
    for more in ["--shards 1", "--shards 3", "--kept 0", "--kept 4"] {
        let record = passes(&format!("{CHURN} {more}"), Mistake::None);
        let churn = &record["churn"];
        let count = |name: &str| churn[name].as_u64().expect("a number");
        assert!(count("unsubscribed") > 0 && count("reconnected") > 0, "{churn}");
        assert!(count("subscribed") > 20 && count("published") > 0, "{churn}");
        assert_eq!(count("recovered") > 0, more != "--kept 0", "{churn}");
        assert_eq!(count("unrecovered"), 0, "{churn}");
        assert_eq!(record["errors"]["lost"], 0);
    }
}

/// Shows that each of these fails the run: a lost and a repeated publication, a subscription that
/// begins too late, one that does not end, and a recovery with a gap. The record counts refused
/// recoveries.
#[test]
fn gaps_are_found_while_subscribers_come_and_go() {
    for (mistake, more, why) in [
        (Mistake::Lost, "--kept 0", "wrong: publication"),
        (Mistake::Twice, "--kept 4", "wrong: publication"),
        (Mistake::LateSubscription, "--kept 0", "wrong: publication"),
        (Mistake::StaysSubscribed, "--kept 0", "which was not expected"),
        (Mistake::HalfRecovered, "--kept 4", "wrong: publication"),
    ] {
        fails(&format!("{CHURN} {more}"), mistake, why);
    }
    let record = passes(&format!("{CHURN} --kept 4"), Mistake::NoHistory);
    let churn = &record["churn"];
    assert!(churn["unrecovered"].as_u64() > Some(0) && churn["recovered"] == 0, "{churn}");
}

#[track_caller]
fn recovers(more: &str, mistake: Mistake) -> Value {
    let target = hub::start_nodes(mistake);
    crate::passes(&format!("{RECOVER} {more} --timeout 180s --target {target}"))
}

/// Shows that subscribers whose connections end recover on the other node, that each outage is in the record, and
/// that a loss is none that the server tells.
#[test]
fn subscribers_recover_on_another_node() {
    for more in ["--shards 1", "--shards 3 --publishers 4"] {
        let record = recovers(more, Mistake::None);
        let recover = &record["recover"];
        let count = |name: &str| recover[name].as_u64().expect("a number");
        assert!(count("published") > 0 && count("recovered_publications") > 0, "{recover}");
        assert!(count("ended") >= 20 && count("ended") == count("recovered"), "{recover}");
        assert_eq!((count("told"), count("missing"), count("repeated")), (0, 0, 0), "{recover}");
        assert_eq!(recover["away_us"]["count"], recover["ended"]);
        let first = &recover["outages"][0];
        assert!(first["seconds"].as_f64() > Some(0.0) && first["recovered"] == first["ended"]);
        assert!(record["latency_us"]["count"].as_u64() > Some(0), "{record}");
        assert_eq!(record["errors"]["lost"], 0);
    }
    let record = recovers("", Mistake::NoHistory);
    let recover = &record["recover"];
    assert!(recover["told"].as_u64() > Some(0) && recover["missing"] == 0, "{recover}");
}

/// Shows that channels without history are heard, and that what is missing in them is counted.
#[test]
fn without_history_what_is_missing_is_counted() {
    let record = passes(&format!("{RECOVER} --plain"), Mistake::None);
    let recover = &record["recover"];
    assert!(recover["published"].as_u64() > Some(0) && recover["missing"] == 0, "{recover}");
    let target = hub::start(Mistake::Lost);
    let record = crate::passes(&format!("{RECOVER} --plain --timeout 10s --target {target}"));
    assert!(record["recover"]["missing"].as_u64() > Some(0), "{record}");
}

/// Shows that each of these fails the run: a publication that is lost, comes twice or is stored twice, and a
/// recovery with a gap.
#[test]
fn mistakes_of_a_recovery_are_found() {
    for (mistake, why) in [
        (Mistake::Lost, "were not delivered and not said to be lost"),
        (Mistake::Twice, "twice, or late"),
        (Mistake::StoredTwice, "are stored twice"),
        (Mistake::HalfRecovered, "were not delivered and not said to be lost"),
    ] {
        println!("{mistake:?}");
        let target = hub::start_nodes(mistake);
        crate::fails(&format!("{RECOVER} --timeout 3s --target {target}"), why);
    }
}

/// Shows that subscriptions end and begin again beside pings, and that a refusal, silence and a channel that does
/// not end each fail the run.
#[test]
fn subscriptions_change() {
    const INTEREST: &str = "interest --conns 5 --channels 130 --rate 200 --duration 1s --shards 2";
    let record = passes(&format!("{INTEREST} --beside 2 --every 100ms"), Mistake::None);
    let interest = &record["interest"];
    let changed = interest["changed"].as_u64().expect("a number");
    assert_eq!(
        (&interest["channels"], 2 * changed),
        (&650.into(), record["answered"].as_u64().unwrap())
    );
    assert!(changed > 0 && interest["beside_us"]["count"].as_u64() > Some(0), "{interest}");
    fails(INTEREST, Mistake::Refusing, "the server says not_allowed");
    fails(INTEREST, Mistake::Silent, "timeout");
}
