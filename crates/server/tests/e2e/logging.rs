//! Tests of the log: connections at `debug`, exceeded limits at `warn`, and shards that never wait
//! for it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::client::Client;
use crate::guarded::{Guarded, now, token};
use crate::server::{CLOSE, PING, Server, frame, murre};

const CONNECTIONS: &str = "--log-filter=info,murre::connections=debug";

/// Ends the server and returns the lines of its log.
fn lines(server: Server) -> Vec<Value> {
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    log.iter().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// The lines with this message.
fn with<'l>(log: &'l [Value], message: &str) -> Vec<&'l Value> {
    log.iter().filter(|line| line["message"] == message).collect()
}

/// Debug lines have the peer, the path, the transport, the user, the reason of the end and the
/// close code. All lines of a connection have its name. Without the filter there are no such lines.
#[test]
fn each_connection_is_logged() {
    for filter in [CONNECTIONS, "--log-filter=info"] {
        let guarded = Guarded::start(&[filter, "--namespace=kept,history-size=5"]);
        let token = token(&json!({"sub": "ann", "exp": now() + 60}));
        let mut late = guarded.server.raw_websocket("/ws");
        let peer = late.0.local_addr().expect("an address").to_string();
        let auth = json!({"action": "auth", "token": token}).to_string();
        let auth = auth.as_bytes();
        let mut long =
            vec![0x81, 0x80 | 126, (auth.len() >> 8) as u8, auth.len() as u8, 0, 0, 0, 0];
        long.extend_from_slice(auth);
        late.send(&long);
        late.send(&frame(CLOSE, &1001_u16.to_be_bytes()));
        late.rest();
        let url = format!("/sse?topic=kept&token={token}");
        let events = guarded.server.connect();
        (&events).send_request(&url);
        guarded.server.wait_until("it hears", |stats| stats["total"]["channels"] == 1);
        drop(events);
        assert_eq!(guarded.server.connect().get("/poll?topic=kept&token=x").status, 401);
        guarded.server.wait_until("all have gone", |stats| stats["connections"] == 0);
        let log = lines(guarded.server);
        if filter != CONNECTIONS {
            assert!(log.iter().all(|line| line["level"] == "INFO"), "{log:#?}");
            continue;
        }
        let begins = with(&log, "session begins");
        let of_late = begins.iter().find(|line| line["peer"] == *peer).expect("it is logged");
        assert_eq!((&of_late["path"], &of_late["transport"]), (&json!("/ws"), &json!("websocket")));
        let of_one = |message| -> &Value {
            let lines = with(&log, message);
            let found = lines.into_iter().find(|line| line["conn"] == of_late["conn"]);
            found.unwrap_or_else(|| panic!("no {message:?}: {log:#?}"))
        };
        assert_eq!(of_one("accepted")["peer"], *peer);
        assert_eq!(of_one("authenticated")["user"], "ann");
        let closed = of_one("closed");
        assert_eq!((&closed["code"], &closed["reason"]), (&json!(1001), &json!("finished")));
        assert_eq!(closed["peer"], *peer);
        let stream = begins.iter().find(|line| line["transport"] == "sse").expect("a stream");
        assert_eq!((&stream["user"], &stream["path"]), (&json!("ann"), &json!("/sse")));
        let refused = with(&log, "session refused");
        assert_eq!((refused.len(), &refused[0]["status"]), (1, &json!(401)));
        assert!(!log.iter().any(|line| line.to_string().contains(&token)), "tokens are secrets");
    }
}

/// A line has no more than the beginning of a path, whose length the client chooses.
#[test]
fn long_paths_are_cut() {
    let server = Server::start(&[CONNECTIONS]);
    let long = "x".repeat(20_000);
    assert_eq!(status(&server, &handshake("").replacen("/ws", &format!("/{long}"), 1)), 404);
    let log = lines(server);
    let refused = with(&log, "session refused");
    assert_eq!(refused[0]["path"], format!("/{}", &long[..199]));
}

/// What a test sends without waiting for an answer.
trait SendRequest {
    fn send_request(self, target: &str);
}

impl SendRequest for &crate::server::Client {
    fn send_request(self, target: &str) {
        use std::io::Write;
        let head = format!("GET {target} HTTP/1.1\r\nHost: murre\r\n\r\n");
        (&self.0).write_all(head.as_bytes()).expect("it reads");
    }
}

/// A valid handshake with these additional fields.
fn handshake(fields: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: murre\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

fn status(server: &Server, head: &str) -> u16 {
    let mut client = server.connect();
    client.send(head.as_bytes());
    client.answer().status
}

/// The log has one line a minute for each kind of exceeded limit, with the address, the flag and
/// the number of times.
#[test]
fn limits_in_force_are_logged_once_a_minute() {
    // The clients use a trusted proxy, so that their addresses count although the test runs on
    // loopback.
    let flags = [
        "--trusted-proxy=127.0.0.1",
        "--max-conns-per-address=1",
        "--max-pings-per-second=5",
        "--max-message-bytes=64",
        "--max-commands-per-second=1",
        "--allow-origin=https://app.example",
        "--max-conns=20",
        "--shards=1",
    ];
    let server = Server::spawn(murre().args(["serve", "--bench"]).args(flags));
    let from = "X-Forwarded-For: 203.0.113.7\r\n";
    let mut first = server.connect();
    first.send(handshake(from).as_bytes());
    assert_eq!(first.answer().status, 101);
    for _ in 0..5 {
        assert_eq!(status(&server, &handshake(from)), 429);
        let page = handshake("X-Forwarded-For: 203.0.113.8\r\nOrigin: https://evil.example\r\n");
        assert_eq!(status(&server, &page), 403);
        let page = "GET /sse?topic=a HTTP/1.1\r\nHost: m\r\nOrigin: https://evil.example\r\n\r\n";
        assert_eq!(status(&server, page), 403);
        let long = "x".repeat(31_000);
        let target = format!("GET /{long} HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(status(&server, &target), 414);
        let head = format!("GET / HTTP/1.1\r\nHost: m\r\nX: {long}{long}\r\n\r\n");
        assert_eq!(status(&server, &head), 431);
        let body = "POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 99999999\r\n\r\n";
        assert_eq!(status(&server, body), 413);
        for too_much in [frame(PING, b"").repeat(11), frame(0x81, &[b' '; 100])] {
            let mut client = server.raw_websocket("/echo");
            client.send(&too_much);
            client.rest();
        }
    }
    let mut fast = Client::of(&server);
    let answers = [(); 4].map(|()| fast.ask(json!({"action": "ping"})));
    assert_eq!(answers[3]["code"], "too_fast", "{answers:?}");
    // The server is full, and further connections wait until one has ended.
    let crowd: Vec<_> = (0..40).map(|_| server.connect()).collect();
    server.wait_until("full", |stats| stats["connections"] == 20);
    drop((crowd, first, fast));
    server.wait_until("all have gone", |stats| stats["connections"] == 0);
    let log = lines(server);
    let warnings: Vec<_> = log.iter().filter(|line| line["level"] == "WARN").collect();
    for (flag, peer) in [
        ("--max-conns-per-address", Some("203.0.113.7")),
        ("--allow-origin", Some("203.0.113.8")),
        ("--max-head-bytes, --max-header-fields", Some("127.0.0.1")),
        ("--max-target-bytes", Some("127.0.0.1")),
        ("--max-body-bytes", Some("127.0.0.1")),
        ("--max-pings-per-second", None),
        ("--max-message-bytes", None),
        ("--max-commands-per-second", None),
        ("--max-conns", None),
    ] {
        let of_flag: Vec<_> = warnings.iter().filter(|line| line["flag"] == flag).collect();
        // Two code paths refuse origins with the same line, and a slow machine may take more than a
        // minute.
        assert!(!of_flag.is_empty() && of_flag.len() < 5, "{flag}: {warnings:#?}");
        assert!(of_flag[0]["times"].as_u64() >= Some(1), "{flag}");
        if let Some(peer) = peer {
            let shown = of_flag[0]["peer"].as_str().expect("an address");
            assert!(shown.starts_with(peer), "{flag}: {shown}");
        }
    }
    let origin = warnings.iter().find(|line| line["flag"] == "--allow-origin").expect("one");
    assert_eq!(origin["origin"], "https://evil.example");
}

/// The log names a proxy that is not trusted, with `X-Forwarded-For` and with the PROXY protocol.
#[test]
fn unlisted_proxies_are_named() {
    let server = Server::start(&[]);
    let forwarded = "GET / HTTP/1.1\r\nHost: m\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    for _ in 0..5 {
        assert_eq!(status(&server, forwarded), 200);
        assert_eq!(status(&server, "PROXY TCP4 203.0.113.7 192.0.2.1 9 80\r\n\r\n"), 400);
    }
    let log = lines(server);
    let named: Vec<_> = log.iter().filter(|line| line["flag"] == "--trusted-proxy").collect();
    assert!((2..10).contains(&named.len()), "{log:#?}");
    assert!(named.iter().all(|line| line["peer"].as_str().expect("one").starts_with("127.0.0.1:")));
    assert_eq!(named[0]["forwarded_for"], "203.0.113.7");
}

/// While the log is not read, all clients are served. When it is read again, a line has the number
/// of dropped lines.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--log-format=json", CONNECTIONS]);
    command.args(["--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut start = String::new();
    log.read_line(&mut start).expect("a start line");
    let start: Value = serde_json::from_str(&start).expect("JSON");
    let data: SocketAddr = start["listen"].as_str().expect("listen").parse().expect("an address");
    // Each connection logs two lines. Together they are more than the pipe and the queue hold.
    for _ in 0..3000 {
        let stream = TcpStream::connect(data).expect("it listens");
        let mut client = crate::server::Client(stream);
        assert_eq!(client.get("/healthz").status, 200);
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("it runs");
    let mut text = String::new();
    log.read_to_string(&mut text).expect("text");
    assert_eq!(child.wait().expect("it is ours").code(), Some(0));
    assert!(text.contains("\"dropped\":"), "{} bytes of log", text.len());
}

/// The log of a server to which nobody can publish says so and names the flags; other servers log
/// who can publish.
#[test]
fn the_log_says_who_can_publish() {
    let key = std::env::temp_dir().join(format!("murre-publishers-{}", std::process::id()));
    std::fs::write(&key, "a secret of more than thirty-two bytes").expect("there is room");
    let [api, secret] =
        ["api-key-file", "jwt-hmac-secret-file"].map(|flag| format!("--{flag}={}", key.display()));
    for (flags, expected) in [
        (&[][..], None),
        (&["--namespace=chat,publish=authenticated"], None),
        (&[&*secret, "--namespace=default,publish=nobody"], None),
        (&["--namespace=chat,publish=anyone"], Some(("chat: anyone", false))),
        (&[&*api], Some(("none", true))),
        (&[&*secret], Some(("default: authenticated", false))),
    ] {
        let log = lines(Server::start(flags));
        let warned = log.iter().any(|line| line.to_string().contains("nobody can publish"));
        assert_eq!(warned, expected.is_none(), "{flags:?}: {log:#?}");
        if let Some((clients, api)) = expected {
            let said = with(&log, "who can publish");
            assert_eq!((&said[0]["clients"], &said[0]["api"]), (&json!(clients), &json!(api)));
        }
    }
    std::fs::remove_file(&key).expect("it was there");
}
