//! The start of a node: what it refuses, and what it waits for.

use std::process::Stdio;

use super::nats::Nats;
use crate::server::{Server, murre};

/// The error of a node that does not start with this NATS server.
fn refusal(nats: &Nats, flags: &[&str]) -> String {
    let mut command = murre();
    command.args([
        "serve",
        "--max-conns=100",
        "--shards=1",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
    ]);
    command.arg(format!("--cluster-nats={}", nats.address())).args(flags);
    let ended = command.stdout(Stdio::null()).output().expect("the binary starts");
    assert_eq!(ended.status.code(), Some(1));
    let log = String::from_utf8(ended.stderr).expect("text");
    log.lines().last().expect("a sentence").to_owned()
}

const WITH_HISTORY: &str = "--namespace=chat,publish=anyone,history-size=10";

/// A server that cannot do what a node needs is refused with a sentence that says what to do.
#[test]
fn servers_that_are_refused() {
    let old = Nats::spawn("nats-server-old", &["--jetstream"]);
    let sentence = refusal(&old, &[]);
    assert!(
        sentence.contains("has version 2.10.26, and murre needs 2.11 or later: update it"),
        "{sentence}"
    );
    let without_streams = Nats::spawn("nats-server", &[]);
    let sentence = refusal(&without_streams, &[WITH_HISTORY]);
    assert!(
        sentence.contains("has no JetStream") && sentence.contains("--jetstream"),
        "{sentence}"
    );
    let with_password = Nats::spawn("nats-server", &["--user=ann", "--pass=hushhush"]);
    let sentence = refusal(&with_password, &[]);
    assert!(sentence.contains("NATS refuses this node (Authorization Violation)"), "{sentence}");
    assert!(!sentence.contains("hushhush"));
    let sentence = refusal(
        &with_password,
        &["--max-publication-bytes=16777216", "--max-message-bytes=33554432"],
    );
    assert!(sentence.contains("raise its max_payload to 16781312"), "{sentence}");
}

/// A node without history needs no JetStream, and an address may have the user and the password, which nothing
/// shows.
#[test]
fn a_user_with_a_password() {
    let nats = Nats::spawn("nats-server", &["--user=ann", "--pass=hushhush"]);
    let mut command = murre();
    command.args(["serve", "--max-conns=100"]);
    command.arg(format!("--cluster-nats=nats://ann:hushhush@{}", nats.address()));
    let server = Server::spawn(&mut command);
    server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
    assert_eq!(server.admin("/readyz").status, 200);
    assert!(!server.start.to_string().contains("hushhush"));
}

/// Without NATS a node starts but is not ready; once it was connected it stays ready, whatever becomes of NATS.
#[test]
fn readiness_waits_for_nats_once() {
    let mut nats = Nats::start();
    nats.kill();
    let server = Server::start(&[&format!("--cluster-nats={}", nats.address()), WITH_HISTORY]);
    server.log_until("cannot connect to NATS");
    let answer = server.admin("/readyz");
    assert_eq!((answer.status, &answer.body[..]), (503, &b"not connected to NATS yet\n"[..]));
    nats.restart();
    server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
    assert_eq!(server.admin("/readyz").status, 200);
    nats.kill();
    server.wait_until("disconnected", |stats| stats["nats"]["nats_up"] == 0);
    assert_eq!(server.admin("/readyz").status, 200);
    nats.restart();
    server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
}

/// Settings that cannot be used are named, with what helps.
#[test]
fn settings_that_are_refused() {
    let error = |flags: &[&str]| {
        let ended = murre().args(["serve"]).args(flags).output().expect("the binary starts");
        assert!(!ended.status.success());
        String::from_utf8(ended.stderr).expect("text")
    };
    for (flags, sentence) in [
        (&["--cluster-nats=http://a"][..], "it is HOST:PORT, nats://HOST:PORT"),
        (&["--cluster-nats=a", "--cluster-name=a.b"], "letters, digits, hyphens and"),
        (&["--cluster-nats=a", "--cluster-replicas=2"], "it is 1 or 3"),
        (&["--cluster-nats=a", "--cluster-storage=disk"], "one of memory, file"),
        (&["--cluster-credentials=a"], "--cluster-nats"),
        (&["--cluster-nats=a", "--cluster-tls-cert=a"], "--cluster-tls-key"),
        (&["--cluster-nats=a", "--cluster-credentials=/nowhere"], "/nowhere: No such file"),
        (
            &["--cluster-nats=a", "--cluster-credentials=/dev/null"],
            "no seed of a user; write it with",
        ),
        (
            &["--cluster-nats=a", "--cluster-tls-ca=/dev/null"],
            "/dev/null cannot be used for TLS to NATS",
        ),
    ] {
        let error = error(flags);
        assert!(error.contains(sentence), "{flags:?}: {error}");
    }
}
