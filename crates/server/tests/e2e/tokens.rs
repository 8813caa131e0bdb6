//! Tests of the rights of clients with tokens, of the expiry of tokens, and of their keys.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::O_NONBLOCK;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::Client;
use crate::guarded::{Guarded, SECRET, now, signed, token};
use crate::server::{PATIENCE, Server, murre};

/// A flag for a namespace with history, which polls need.
const KEPT: &str = "--namespace=kept,history-size=5";

fn publish() -> Value {
    json!({"action": "publish", "identifier": "news", "data": 1})
}

/// A token in the handshake, or later in `auth`, allows a client to publish where anonymous clients
/// may not.
#[test]
fn a_token_lets_its_bearer_publish() {
    let guarded = Guarded::start(&[KEPT]);
    let token = token(&json!({"sub": "ann", "exp": now() + 60}));
    let mut ann = Client::at(&guarded.server, &format!("/ws?token={token}"));
    assert_eq!(ann.ask(publish())["type"], "published");
    let mut late = Client::of(&guarded.server);
    assert_eq!(late.error(publish()), "not_allowed");
    let answer = late.ask(json!({"action": "auth", "token": token}));
    assert_eq!((&answer["type"], &answer["user"]), (&json!("authenticated"), &json!("ann")));
    assert_eq!(late.ask(publish())["type"], "published");
    guarded.server.wait_until("known", |stats| stats["total"]["connections_authenticated"] == 2);
}

/// A token with another signature or an expired token gives no rights, and removes none.
#[test]
fn a_bad_token_opens_nothing() {
    let guarded = Guarded::start(&[KEPT]);
    let forged = signed(&json!({"sub": "ann"}), "another secret of more than thirty-two bytes");
    let over = token(&json!({"sub": "ann", "exp": now() - 60}));
    for bad in [&forged, &over] {
        let answer = guarded.server.connect().get(&format!("/sse?topic=news&token={bad}"));
        assert_eq!(answer.status, 401);
        let url = format!("ws://{}/ws?token={bad}", guarded.server.data);
        assert!(tungstenite::client(url, guarded.server.connect().0).is_err());
        let mut client = Client::of(&guarded.server);
        assert_eq!(client.error(json!({"action": "auth", "token": bad})), "bad_token");
        assert_eq!(client.error(publish()), "not_allowed");
        client.subscribe("news");
    }
}

/// A token with an expiry beyond every clock counts as a token without an expiry, in each of the
/// four ways to send it.
#[test]
fn a_far_expiry_is_none() {
    let guarded = Guarded::start(&[KEPT]);
    for exp in [json!(1e19), json!(1e300), json!(u64::MAX), json!(u64::MAX - 5), json!(1_u64 << 63)]
    {
        let token = token(&json!({"sub": "ann", "exp": exp}));
        let mut ann = Client::at(&guarded.server, &format!("/ws?token={token}"));
        let answer = ann.ask(json!({"action": "auth", "token": token}));
        assert_eq!((&answer["type"], &answer["expires"]), (&json!("authenticated"), &Value::Null));
        let mut events = guarded.server.connect();
        let target = format!("/sse?topic=news&token={token}");
        events.send(format!("GET {target} HTTP/1.1\r\nHost: murre\r\n\r\n").as_bytes());
        let target = format!("/poll?topic=kept:news&token={token}");
        let mut poll = guarded.server.connect();
        let answer = poll.get(&target);
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let [epoch, offset] = ["epoch", "offset"].map(|part| &answer["position"][part]);
        let target = format!("{target}&position={epoch}-{offset}");
        poll.send(format!("GET {target} HTTP/1.1\r\nHost: murre\r\n\r\n").as_bytes());
        ann.ask(json!({"action": "publish", "identifier": "kept:news", "data": 1}));
        let answer: Value = serde_json::from_slice(&poll.answer().body).expect("JSON");
        assert_eq!(answer["publications"].as_array().map(Vec::len), Some(1), "{answer}");
        guarded
            .server
            .wait_until("two users", |stats| stats["total"]["connections_authenticated"] == 2);
        drop((ann, events, poll));
        guarded
            .server
            .wait_until("nobody", |stats| stats["total"]["connections_authenticated"] == 0);
    }
}

/// The error for a claim of the wrong type names the claim.
#[test]
fn a_claim_of_the_wrong_type_is_named() {
    let guarded = Guarded::start(&[KEPT]);
    for (claims, named) in [
        (json!({"sub": 42}), "`sub` in a token is a string"),
        (json!({"sub": "ann", "exp": "123"}), "`exp` in a token is a number"),
        (json!({"sub": "ann", "nbf": null}), "`nbf` in a token is a number"),
    ] {
        let token = token(&claims);
        let answer = guarded.server.connect().get(&format!("/sse?topic=news&token={token}"));
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 401 && body.contains(named), "{} {body}", answer.status);
        let answer = Client::of(&guarded.server).ask(json!({"action": "auth", "token": token}));
        assert_eq!(answer["code"], "bad_token");
        assert!(answer["message"].as_str().is_some_and(|message| message.contains(named)));
    }
}

/// When its token expires, a connection gets an error and is closed, unless the client has sent a
/// new token. This also holds on a server without other traffic.
#[test]
fn a_token_that_is_over_ends_the_connection() {
    let (guarded, quiet) = (Guarded::start(&[KEPT]), Guarded::start(&[KEPT]));
    // With the leeway of 10 s for clocks that differ, the token expires in two or three seconds.
    let soon = token(&json!({"sub": "ann", "exp": now() - 7}));
    let mut silent = Client::at(&quiet.server, &format!("/ws?token={soon}"));
    let mut leaving = Client::at(&guarded.server, &format!("/ws?token={soon}"));
    let mut staying = Client::at(&guarded.server, &format!("/ws?token={soon}"));
    let fresh = token(&json!({"sub": "ann", "exp": now() + 60}));
    staying.ask(json!({"action": "auth", "token": fresh}));
    assert_eq!(leaving.receive()["code"], "token_expired");
    let Ok(Message::Close(Some(frame))) = leaving.0.read() else { panic!("not closed") };
    assert_eq!(u16::from(frame.code), 1008);
    assert_eq!(staying.ask(publish())["type"], "published");
    assert_eq!(silent.receive()["code"], "token_expired");
}

/// SIGHUP reads the keys again on every shard: tokens of the former key are refused and tokens of
/// the new key are accepted. Open sessions stay. A file that cannot be used changes nothing.
#[test]
fn keys_are_read_again() {
    let guarded = Guarded::start(&["--shards=2"]);
    let claims = json!({"sub": "ann"});
    let next = "another secret of more than thirty-two bytes";
    let (former, new) = (token(&claims), signed(&claims, next));
    // More connections than shards, so that each shard gets a token.
    let all = |token: &str, kind: &str| {
        (0..8).all(|_| {
            let auth = json!({"action": "auth", "token": token});
            Client::of(&guarded.server).ask(auth)["type"] == kind
        })
    };
    let mut open = Client::at(&guarded.server, &format!("/ws?token={former}"));
    assert!(all(&former, "authenticated") && all(&new, "error"));
    guarded.replace_secret("too short");
    guarded.server.signal(Signal::SIGHUP);
    guarded.server.log_until("at least 32 bytes");
    assert!(all(&former, "authenticated"));
    guarded.replace_secret(next);
    guarded.server.signal(Signal::SIGHUP);
    let start = Instant::now();
    while !(all(&new, "authenticated") && all(&former, "error")) {
        assert!(start.elapsed() < PATIENCE, "the new key is not in force");
    }
    assert_eq!(open.ask(publish())["type"], "published");
    guarded.server.signal(Signal::SIGTERM);
    let (status, log) = guarded.server.end();
    assert_eq!(status.code(), Some(0));
    let again = log.iter().filter(|line| line.contains("keys of tokens are read again"));
    assert_eq!(again.count(), 1, "{log:?}");
}

/// A pipe, removed when dropped.
struct Pipe(PathBuf);

impl Pipe {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("murre-{name}-{}", std::process::id()));
        mkfifo(&path, Mode::S_IRWXU).expect("room");
        Pipe(path)
    }

    /// Waits until the server reads, and leaves it waiting for bytes as long as the file is open.
    fn hold(&self) -> File {
        let begun = Instant::now();
        loop {
            // Without a reader this is an error (fifo(7)).
            match File::options().write(true).custom_flags(O_NONBLOCK).open(&self.0) {
                Ok(file) => return file,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody reads: {error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// While a key file that gives no bytes is read at start, SIGTERM ends the process.
#[test]
fn a_key_that_does_not_come_can_be_given_up() {
    let pipe = Pipe::new("key-at-start");
    let mut command = murre();
    command.args(["serve", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
    command.arg(format!("--jwt-hmac-secret-file={}", pipe.0.display()));
    let mut server = command.stderr(Stdio::null()).spawn().expect("the binary starts");
    let _held = pipe.hold();
    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).expect("it runs");
    assert_eq!(server.wait().expect("it ends").signal(), Some(Signal::SIGTERM as i32));
}

/// While a key file that gives no bytes is read again, the server works, and SIGTERM drains it.
#[test]
fn a_key_that_does_not_come_blocks_nothing() {
    let pipe = Pipe::new("key-again");
    let path = pipe.0.clone();
    let key = thread::spawn(move || fs::write(path, SECRET).expect("it reads"));
    let file = format!("--jwt-hmac-secret-file={}", pipe.0.display());
    let server = Server::start(&[&file, "--drain-timeout=0.2"]);
    key.join().expect("no panic");
    server.signal(Signal::SIGHUP);
    let _held = pipe.hold();
    server.signal(Signal::SIGUSR1);
    server.log_until("SIGUSR1");
    let token = token(&json!({"sub": "ann"}));
    let auth = json!({"action": "auth", "token": token});
    assert_eq!(Client::of(&server).ask(auth)["type"], "authenticated");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
}

/// `aud` and `iss` are required where the flags say so, and the error names the claim.
#[test]
fn audience_and_issuer_are_required() {
    let guarded = Guarded::start(&["--jwt-audience=chat", "--jwt-issuer=https://id.example"]);
    let mut client = Client::of(&guarded.server);
    let mut auth = |claims: &Value| {
        let answer = client.ask(json!({"action": "auth", "token": token(claims)}));
        (answer["type"].clone(), answer.to_string())
    };
    let good = json!({"sub": "ann", "aud": ["chat"], "iss": "https://id.example"});
    assert_eq!(auth(&good).0, "authenticated");
    for claim in ["aud", "iss"] {
        let mut other = good.clone();
        other[claim] = json!("other");
        let (kind, text) = auth(&other);
        assert!(kind == "error" && text.contains(&format!("`{claim}`")), "{text}");
    }
}
