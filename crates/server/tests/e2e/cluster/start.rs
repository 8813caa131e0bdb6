//! The start of a node: what it refuses, and what it waits for.

use std::fs;
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
    let alone = Nats::start();
    let sentence = refusal(&alone, &[WITH_HISTORY, "--cluster-replicas=3"]);
    assert!(
        sentence.contains("is in no cluster") && sentence.contains("--cluster-replicas=1"),
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

/// A connection over TLS to a server that knows a user's key. A server whose certificate nobody has signed that the node
/// trusts is not connected to, and a user with another key is refused.
#[test]
fn tls_and_a_user_with_a_key() {
    let folder = std::env::temp_dir().join(format!("murre-nats-keys-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).expect("there is room for a file");
        path.display().to_string()
    };
    let certificate = file("cert.pem", include_str!("../keys/localhost.certificate.pem"));
    let key = file("key.pem", include_str!("../keys/localhost.private.pem"));
    // The seeds of the bytes 0 to 31 and 1 to 32, and the public key of the first.
    let seed = file("seed", "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y\n");
    let public = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
    let config = format!(
        "tls {{ cert_file: '{certificate}', key_file: '{key}' }}\n\
         authorization {{ users: [ {{ nkey: {public} }} ] }}\n"
    );
    let config = format!("--config={}", file("nats.conf", &config));
    let nats = Nats::spawn("nats-server", &[&config]);
    let address = format!("--cluster-nats=tls://localhost:{}", nats.port);
    let ca = format!("--cluster-tls-ca={certificate}");
    let credentials = format!("--cluster-credentials={seed}");
    let spawn = |flags: &[&str]| {
        let mut command = murre();
        command.args(["serve", "--max-conns=100"]).args(flags);
        Server::spawn(&mut command)
    };
    let server = spawn(&[&address, &ca, &credentials]);
    server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
    let server = spawn(&[&address, &credentials]);
    server.log_until("no TLS connection");
    let plain = format!("--cluster-nats=localhost:{}", nats.port);
    let (status, log) = spawn(&[&plain, &credentials]).end();
    assert_eq!(status.code(), Some(1));
    assert!(log.last().is_some_and(|line| line.contains("write tls://")), "{log:?}");
    let (status, log) = spawn(&[&address, &ca]).end();
    assert_eq!(status.code(), Some(1));
    assert!(log.last().is_some_and(|line| line.contains("--cluster-credentials")), "{log:?}");
    fs::remove_dir_all(&folder).expect("it was there");
}

/// A stream follows the settings of the namespace. Where NATS keeps it cannot be changed: the node says so and uses it.
#[test]
fn streams_follow_the_settings() {
    let nats = Nats::start();
    let start = |flags: &[&str]| {
        let address = format!("--cluster-nats={}", nats.address());
        let mut command = murre();
        command.args(["serve", "--max-conns=100", "--shards=1", &address]).args(flags);
        Server::spawn(&mut command)
    };
    start(&["--namespace=chat,history-size=10"]).log_until("made a stream");
    let streams = nats.streams();
    let changed = start(&["--namespace=chat,history-size=20"]).log_until("changed a stream");
    assert!(
        changed.last().is_some_and(|line| line.contains("max_msgs_per_subject")),
        "{changed:?}"
    );
    let flags = ["--namespace=chat,history-size=20", "--cluster-storage=memory"];
    let lines = start(&flags).log_until("keeps its messages elsewhere");
    assert!(lines.iter().all(|line| !line.contains("changed a stream")), "{lines:?}");
    assert_eq!(nats.streams(), streams);
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
