//! The examples, unchanged: each test starts one in this process and uses it over sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use murre_core::host::{self, Wanted};
use murre_core::{Listener, Server, ServerConfig, ServerError};

#[path = "../examples/chat.rs"]
mod chat;
#[path = "../examples/computed.rs"]
mod computed;

/// The time limit of each step of a test.
const PATIENCE: Duration = Duration::from_secs(180);

/// A server of two shards on a free port.
fn config() -> (SocketAddr, ServerConfig) {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = listener.address().expect("bound");
    let wanted = Wanted { shards: Some(2), max_conns: Some(100), ..Wanted::default() };
    let plan = host::plan(&wanted).expect("a small one");
    (address, ServerConfig::with_plan(plan, listener).expect("a running process"))
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("possible");
    stream
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("it answers");
    bytes
}

/// Reads the head of a response.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(stream, 1));
    }
    String::from_utf8(head).expect("ASCII")
}

/// Drains the server, and returns the thread that waits for its end.
fn drain<M: Send + 'static>(server: Server<M>) -> thread::JoinHandle<Result<(), ServerError>> {
    let handle = server.handle();
    let ended = thread::spawn(move || server.run());
    handle.drain();
    ended
}

/// A member of the chat room.
struct Member(TcpStream);

impl Member {
    fn join(to: SocketAddr, name: &str) -> Self {
        let mut stream = connect(to);
        let request = format!(
            "GET /?name={name} HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
        Member(stream)
    }

    fn say(&mut self, line: &str) {
        // A mask of zeros leaves the payload unchanged (RFC 6455 section 5.3).
        let frame = [&[0x81, 0x80 | line.len() as u8, 0, 0, 0, 0], line.as_bytes()].concat();
        self.0.write_all(&frame).expect("it reads");
    }

    /// Reads the next frame: its first byte, and its payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let start = read(&mut self.0, 2);
        (start[0], read(&mut self.0, usize::from(start[1])))
    }

    fn hear(&mut self, line: &str) {
        let (start, payload) = self.frame();
        assert_eq!((start, String::from_utf8_lossy(&payload)), (0x81, line.into()));
    }
}

/// A message of one member of the chat room reaches the members on all shards.
#[test]
fn chat() {
    const NAMES: [&str; 6] = ["ada", "grace", "edith", "jean", "radia", "frances"];
    let (to, mut config) = config();
    config.drain_timeout = Duration::from_secs(1);
    let server = chat::start(config, None).expect("it starts");
    let mut members: Vec<Member> = Vec::new();
    for name in NAMES {
        let mut newcomer = Member::join(to, name);
        for member in members.iter_mut().chain([&mut newcomer]) {
            member.hear(&format!("{name} is here"));
        }
        members.push(newcomer);
    }
    let counts = server.shards().iter().map(|shard| shard.counters.open.get());
    assert_eq!(counts.sum::<u64>(), NAMES.len() as u64);
    members[0].say("hello");
    members.iter_mut().for_each(|member| member.hear("ada: hello"));
    drop(members.pop());
    members.iter_mut().for_each(|member| member.hear("frances is gone"));

    let ended = drain(server);
    for member in &mut members {
        // Members that leave earlier may cause messages before the one expected here.
        let goodbye = loop {
            let (start, payload) = member.frame();
            if start == 0x88 {
                break payload;
            }
        };
        assert_eq!(goodbye[..2], 1012_u16.to_be_bytes());
    }
    drop(members);
    ended.join().expect("no panic").expect("it drains");
}

/// The example computes responses on another thread; meanwhile the shards serve other connections,
/// and a drain waits for the responses.
#[test]
fn computed() {
    let (to, mut config) = config();
    // Even a slow machine computes all responses in this time.
    config.drain_timeout = PATIENCE;
    let server = computed::start(config, None).expect("it starts");
    let ask = |stream: &mut TcpStream, query: &str| {
        let request = format!("GET /primes?{query} HTTP/1.1\r\nHost: m\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
    };
    let answer = |stream: &mut TcpStream| {
        let head = head(stream);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let body = read(stream, length.expect("a length").parse().expect("a number"));
        (head[9..12].to_owned(), String::from_utf8(body).expect("ASCII"))
    };
    let mut client = connect(to);
    for (query, status, body) in [
        ("below=10", "200", "4\n"),
        ("below=0", "200", "0\n"),
        ("below=many", "400", "?below= is a number up to 100 million\n"),
        ("below=1000", "200", "168\n"),
    ] {
        ask(&mut client, query);
        assert_eq!(answer(&mut client), (status.to_owned(), body.to_owned()), "{query}");
    }

    // The first request keeps the only worker busy for a while.
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| connect(to)).collect();
    waiting.iter_mut().for_each(|client| ask(client, "below=1000000"));
    ask(&mut client, "below=-1");
    assert_eq!(answer(&mut client).0, "400");
    // A drain resets connections that no shard has accepted yet, so wait until every request was
    // read.
    let started = Instant::now();
    while server.shards().iter().map(|shard| shard.serve.requests.get()).sum::<u64>() < 9 {
        assert!(started.elapsed() < PATIENCE, "the requests are read");
        thread::sleep(Duration::from_millis(1));
    }
    let mut gone = connect(to);
    ask(&mut gone, "below=1000000");
    drop(gone);
    let ended = drain(server);
    for client in &mut waiting {
        assert_eq!(answer(client), ("200".into(), "78498\n".into()));
    }
    drop((waiting, client));
    ended.join().expect("no panic").expect("it drains");
}
