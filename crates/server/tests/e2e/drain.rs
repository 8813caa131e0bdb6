//! Tests of the drain after SIGTERM and SIGINT.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::Client as Subscriber;
use crate::guarded::Guarded;
use crate::reader::Events;
use crate::server::{CLOSE, Client, PATIENCE, Server, TEXT, frame, murre};

/// The code of a close frame, and the seconds after which the client should come back.
fn goodbye(frame: &[u8]) -> (u16, u32) {
    assert_eq!((frame[0], usize::from(frame[1])), (CLOSE, frame.len() - 2), "one frame: {frame:?}");
    let words = std::str::from_utf8(&frame[4..]).expect("text");
    let retry = words.split_once("retry=").and_then(|(_, seconds)| seconds.parse().ok());
    (u16::from_be_bytes([frame[2], frame[3]]), retry.unwrap_or_else(|| panic!("no hint: {words}")))
}

fn hear_goodbye(socket: &mut Client) -> (u16, u32) {
    let mut frame = socket.bytes(2);
    frame.extend(socket.bytes(usize::from(frame[1])));
    goodbye(&frame)
}

/// On SIGTERM and on SIGINT, the server accepts no new connections, sends every WebSocket 1012 with
/// a time to come back, and exits with 0 in time.
#[test]
fn a_signal_drains() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(&["--drain-timeout=1", "--retry-after=7", "--shards=2"]);
        let mut sockets: Vec<_> = (0..50).map(|_| server.raw_websocket("/echo")).collect();
        let mut resting = server.connect();
        assert_eq!(resting.get("/healthz").status, 200);
        assert_eq!(server.admin("/readyz").status, 200);

        let start = Instant::now();
        server.signal(signal);
        while TcpStream::connect(server.data).is_ok() {
            assert!(start.elapsed() < PATIENCE, "it still listens");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(server.admin("/readyz").status, 503);
        assert_eq!(server.admin("/healthz").status, 200, "it is alive");
        let mut hints = [0; 8];
        for socket in &mut sockets {
            let (code, retry) = hear_goodbye(socket);
            assert_eq!(code, 1012);
            hints[retry as usize] += 1;
            socket.send(&frame(CLOSE, &1012u16.to_be_bytes()));
        }
        assert!(hints[0] == 0 && hints[1..].iter().all(|&told| told > 0), "{hints:?}");
        assert!(resting.rest().is_empty());
        drop((sockets, resting));
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(log.iter().any(|line| line.contains("draining") && line.contains(signal.as_str())));
    }
}

/// During a drain, `/healthz` on the data port answers 503 on open connections, and every answer
/// ends its connection.
#[test]
fn health_is_told_on_the_data_port() {
    let server = Server::start(&["--drain-timeout=60", "--shards=1"]);
    let mut checker = server.connect();
    server.wait_until("there", |stats| stats["connections"] == 1);
    server.signal(Signal::SIGTERM);
    let start = Instant::now();
    while TcpStream::connect(server.data).is_ok() {
        assert!(start.elapsed() < PATIENCE, "it still listens");
    }
    let health = checker.get("/healthz");
    assert_eq!((health.status, health.text()), (503, "draining\n"));
    assert_eq!(health.header("connection"), Some("close"));
    assert!(health.header("retry-after").is_some(), "{health:?}");
    assert!(checker.rest().is_empty());
}

/// Waiting polls get an answer with their position, and streams get a time to come back.
#[test]
fn polls_and_streams_come_to_an_end() {
    let server = Server::start(&["--drain-timeout=0.5", "--namespace=default,history-size=5"]);
    let (mut poll, mut stream) = (server.connect(), server.connect());
    let first: Value = serde_json::from_slice(&poll.get("/poll?topic=a").body).expect("JSON");
    let position = |answer: &Value| {
        let position = &answer["position"];
        format!("{}-{}", position["epoch"], position["offset"])
    };
    poll.send(
        format!("GET /poll?topic=a&position={} HTTP/1.1\r\nHost: m\r\n\r\n", position(&first))
            .as_bytes(),
    );
    stream.send(b"GET /sse?topic=a HTTP/1.1\r\nHost: m\r\n\r\n");
    server.wait_until("both wait", |stats| stats["total"]["subscriptions"] == 2);
    server.signal(Signal::SIGTERM);
    let answer = poll.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let last: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(position(&last), position(&first));
    assert_eq!(last["publications"], Value::Array(Vec::new()));
    assert!(poll.rest().is_empty());
    assert!(answer.header("date").is_some(), "{answer:?}");
    let mut events = Events::read(stream);
    assert_eq!(events.next().expect("an event").name, "subscribed");
    let retry = events.next().expect("an event").retry.expect("a hint");
    assert!((1000..=5000).contains(&retry), "{retry}");
    assert!(events.next().is_none() && events.is_whole());
    drop((poll, events));
    assert_eq!(server.end().0.code(), Some(0));
}

/// A drain under load closes thousands of WebSockets in random order, and answers every client that
/// waits: those with half of a request, those that read a large file, and those that poll.
#[test]
fn a_drain_under_load_loses_nothing() {
    const FILE_BYTES: usize = 16 << 20;
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, files, files).expect("the soft limit may be the hard one");
    let count = 5000.min((files as usize - 300) / 2);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("drain");
    fs::create_dir_all(&folder).expect("room");
    fs::write(folder.join("large"), vec![b'm'; FILE_BYTES]).expect("room");
    let mut command = murre();
    command.args(["serve", "--bench", "--drain-timeout=3", "--shards=2"]);
    command.arg("--files").arg(folder);
    let conns = format!("--max-conns={}", count + 200);
    // Long timeouts keep a slow machine from closing connections for another reason.
    command.args([&conns, "--ping-interval=600", "--handshake-timeout=600"]);
    let server = Server::spawn(command.arg("--namespace=default,history-size=5"));

    let mut sockets: Vec<_> = (0..count).map(|_| server.raw_websocket("/echo")).collect();
    let ask = |request: &str| {
        let mut client = server.connect();
        client.send(request.as_bytes());
        client
    };
    let position = server.connect().get("/poll?topic=a");
    let position: Value = serde_json::from_slice(&position.body).expect("JSON");
    let position = &position["position"];
    let poll = format!("/poll?topic=a&position={}-{}", position["epoch"], position["offset"]);
    let of = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n");
    let mut polls: Vec<_> = (0..50).map(|_| ask(&of(&poll))).collect();
    let mut halves: Vec<_> = (0..50).map(|_| ask("GET /?length=9999 HTTP/1.1\r\nHo")).collect();
    let mut readers: Vec<_> = (0..5).map(|_| ask(&of("/large"))).collect();
    server.wait_until("all under way", |stats| {
        let total = &stats["total"];
        // One of the requests was the first poll, which has been answered. Each half of a request
        // is one more receive.
        stats["connections"].as_u64() >= Some(count as u64 + 105)
            && total["subscriptions"] == 50
            && total["http_requests"].as_u64() >= Some(count as u64 + 56)
            && total["receives"].as_u64() >= Some(count as u64 + 106)
    });

    server.signal(Signal::SIGTERM);
    for half in &mut halves {
        half.send(b"st: m\r\n\r\n");
        assert_eq!(half.answer().body.len(), 9999);
    }
    for reader in &mut readers {
        assert_eq!(reader.answer().body.len(), FILE_BYTES);
    }
    let left = hear_goodbyes(&mut sockets);
    let early = left[..count / 2].iter().filter(|&&index| index < count / 2).count();
    // In random order this is a quarter of all, with a standard deviation of a quarter of a
    // percent. In the order of arrival it would be half of all.
    assert!(early.abs_diff(count / 4) < count / 20, "{early} of {count} came and left early");
    for poll in &mut polls {
        assert_eq!(poll.answer().status, 200);
    }
    drop((polls, halves, readers, sockets));
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    let last = log.last().expect("a last line");
    assert!(!log.iter().any(|line| line.contains("not drained in time")), "{log:?}");
    assert!(last.contains("ended") && last.contains("\"connections_cut_off\":0"), "{last}");
}

/// Waits until each of these WebSockets has got its close frame; returns their indices in that
/// order. Each round reads them in random order, so that the order of reading does not decide.
fn hear_goodbyes(sockets: &mut [Client]) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut heard: Vec<Vec<u8>> = sockets.iter().map(|_| Vec::new()).collect();
    let mut waiting: Vec<usize> = (0..sockets.len()).collect();
    let mut left = Vec::new();
    let start = Instant::now();
    for socket in &*sockets {
        socket.0.set_nonblocking(true).expect("possible");
    }
    while !waiting.is_empty() {
        assert!(start.elapsed() < PATIENCE, "{} were told nothing", waiting.len());
        rng.shuffle(&mut waiting);
        waiting.retain(|&index| {
            let mut bytes = [0; 128];
            match sockets[index].0.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Ok(len @ 1..) => heard[index].extend(&bytes[..len]),
                end => panic!("no goodbye: {end:?} after {:?}", heard[index]),
            }
            let frame = &heard[index];
            if frame.len() < 2 || frame.len() < 2 + usize::from(frame[1]) {
                return true;
            }
            let (code, retry) = goodbye(frame);
            assert_eq!((code, (1..=5).contains(&retry)), (1012, true));
            // The server may have closed it already.
            let _ = sockets[index].0.shutdown(std::net::Shutdown::Write);
            left.push(index);
            false
        });
        thread::sleep(Duration::from_millis(5));
    }
    left
}

/// Requests that were sent before the signal are still answered in full.
#[test]
fn answers_are_finished() {
    let server = Server::start(&["--drain-timeout=1"]);
    let mut client = server.connect();
    let mut echo = server.raw_websocket("/echo");
    client.send(&b"GET /?length=10240 HTTP/1.1\r\nHost: m\r\n\r\n".repeat(10));
    echo.send(&frame(TEXT, b"last words"));
    thread::sleep(Duration::from_millis(100));
    server.signal(Signal::SIGTERM);
    for _ in 0..10 {
        assert_eq!(client.answer().body.len(), 10_240);
    }
    assert_eq!(echo.bytes(12), b"\x81\x0alast words");
    drop((client, echo));
    assert_eq!(server.end().0.code(), Some(0));
}

/// Clients that do not close cannot delay the end of the process beyond the drain timeout.
#[test]
fn stubborn_clients_do_not_hold_the_process() {
    let server = Server::start(&["--drain-timeout=0.2"]);
    let stubborn: Vec<_> = (0..10).map(|_| server.raw_websocket("/echo")).collect();
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    drop(stubborn);
}

/// A second signal, more than a second after the first, ends the process at once.
#[test]
fn a_second_signal_does_not_wait() {
    let server = Server::start(&["--drain-timeout=600"]);
    let _open = server.raw_websocket("/echo");
    server.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(1500));
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(1), "{log:?}");
    assert!(log.last().is_some_and(|line| line.contains("second signal")), "{log:?}");
}

/// All shards work as long as one has clients: publications to channels of every shard, by the
/// client and by the API, are answered to the end.
#[test]
fn shards_without_clients_work_on() {
    // The turn of the connection in the drain is random, and may be the first.
    for io in ["--io=auto", "--io=epoll"] {
        assert!((0..20).any(|_| published_while_draining(io) > 8), "{io}: it was always the first");
    }

    /// How many publications a client got answers to before its connection was closed.
    fn published_while_draining(io: &str) -> u64 {
        let open = "--namespace=default,publish=anyone,history-size=5";
        let guarded = Guarded::start(&["--shards=2", "--drain-timeout=2", io, open]);
        let mut client = Subscriber::of(&guarded.server);
        client.subscribe("c0");
        guarded.server.signal(Signal::SIGTERM);
        guarded.server.wait_until("draining", |stats| stats["draining"] == true);
        let (mut asked, mut answered) = (0, 0);
        let code = 'told: loop {
            // Both shards own some of the eight channels.
            asked += 1;
            let channel = format!("c{}", 1 + asked % 8);
            let publish =
                json!({"action": "publish", "identifier": channel, "data": 1, "id": asked});
            client.0.send(Message::text(publish.to_string())).expect("sent");
            while answered < asked {
                match client.0.read().expect("an answer or the end") {
                    Message::Text(text) => {
                        let answer: Value = serde_json::from_str(&text).expect("JSON");
                        answered += 1;
                        assert_eq!(
                            (&answer["type"], &answer["id"]),
                            (&json!("published"), &json!(answered))
                        );
                    }
                    Message::Close(frame) => break 'told frame.map(|frame| u16::from(frame.code)),
                    _ => {}
                }
            }
            let body = json!({"identifier": channel, "data": 2}).to_string();
            let (status, answer) = guarded.post("/api/publish", body);
            assert_eq!(status, 200, "{answer}");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(code, Some(1012));
        assert!(asked - answered <= 1, "{answered} of {asked}");
        answered
    }
}
