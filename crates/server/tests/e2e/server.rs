//! A server process for tests, and a plain HTTP client for it.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tungstenite::WebSocket;

/// The longest wait for an event that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    log: Receiver<String>,
    /// The start line of the log.
    pub(crate) start: Value,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// The binary, without the variables of this process that it would read. `MURRE_IO` stays, because
/// `scripts/test` runs most of these tests with it. Other programs of the machine that take memory do
/// not make it refuse connections.
pub(crate) fn murre() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_murre"));
    command.env_clear();
    command.envs(env::vars_os().filter(|(name, _)| name == "MURRE_IO"));
    command.env("MURRE_MEMORY_FLOOR_BYTES", "1").env("MURRE_MAX_MEMORY_PRESSURE", "100");
    command
}

impl Server {
    /// Starts `murre serve --bench` with these flags and room for 1000 connections, on free ports.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut command = murre();
        command.args(["serve", "--bench", "--max-conns=1000"]);
        Self::spawn(command.args(flags))
    }

    /// Starts `command` on free ports and waits until it serves.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_at(Ipv4Addr::LOCALHOST.into(), command)
    }

    /// [`spawn`](Self::spawn) with the data port at this address.
    pub(crate) fn spawn_at(ip: IpAddr, command: &mut Command) -> Self {
        command.arg(format!("--listen={}", SocketAddr::new(ip, 0)));
        Self::spawn_on(command.arg("--admin=127.0.0.1:0"))
    }

    /// [`spawn`](Self::spawn) with the admin port at this address.
    pub(crate) fn spawn_with_admin(admin: &str, command: &mut Command) -> Self {
        Self::spawn_on(command.args(["--listen=127.0.0.1:0", "--admin", admin]))
    }

    /// [`spawn`](Self::spawn) with the addresses that `command` names.
    pub(crate) fn spawn_on(command: &mut Command) -> Self {
        command.arg("--log-format=json");
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("piped");
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = log.recv_timeout(PATIENCE).expect("a start line");
        let start: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        let addresses = |key: &str| start[key].as_str().expect(key).split(',');
        let address = |key| addresses(key).find_map(|one| one.parse().ok()).expect("TCP");
        let (data, admin) = (address("listen"), address("admin"));
        Server { child, log, start, data, admin }
    }

    /// A new connection to the data port.
    pub(crate) fn connect(&self) -> Client {
        Client::to(self.data)
    }

    /// An open WebSocket to `path`, with tungstenite.
    pub(crate) fn websocket(&self, path: &str) -> WebSocket<TcpStream> {
        let url = format!("ws://{}{path}", self.data);
        tungstenite::client(url, self.connect().0).expect("a WebSocket").0
    }

    /// An open WebSocket to `path`, as a connection for raw frames.
    pub(crate) fn raw_websocket(&self, path: &str) -> Client {
        let (client, answer) = self.upgrade(path);
        assert_eq!(answer.status, 101);
        // The example of RFC 6455 section 1.3.
        let accept = answer.header("sec-websocket-accept");
        assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        client
    }

    /// A new connection that asks for a WebSocket, and the answer.
    pub(crate) fn upgrade(&self, path: &str) -> (Client, Answer) {
        let mut client = self.connect();
        client.send(
            format!(
                "GET {path} HTTP/1.1\r\nHost: murre\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .as_bytes(),
        );
        let answer = client.answer();
        (client, answer)
    }

    /// A new connection to the admin port.
    pub(crate) fn admin_connection(&self) -> Client {
        Client::to(self.admin)
    }

    /// The answer of the admin port to `GET path`.
    pub(crate) fn admin(&self, path: &str) -> Answer {
        self.admin_connection().get(path)
    }

    /// The answer of `/stats`.
    pub(crate) fn stats(&self) -> Value {
        serde_json::from_slice(&self.admin("/stats").body).expect("JSON")
    }

    /// Waits until `condition` holds for the statistics.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Value) -> bool) {
        let start = Instant::now();
        loop {
            let stats = self.stats();
            if condition(&stats) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "not {what} in time: {stats:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a log line with this text, and returns the lines up to it.
    pub(crate) fn log_until(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(text)) {
            let line = self.log.recv_timeout(PATIENCE);
            lines.push(line.unwrap_or_else(|_| panic!("no {text:?} in {lines:?}")));
        }
        lines
    }

    /// Waits until so many subscriptions have begun. A pending one counts as a subscription, but its command
    /// waits.
    pub(crate) fn wait_for_subscriptions(&self, count: usize) {
        self.wait_until("subscribed", |stats| {
            stats["total"]["subscriptions"] == count && stats["total"]["commands_waiting"] == 0
        });
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Waits for the end of the process; returns its exit status and the remaining lines of its
    /// log.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        // The pipe ends with the process, and the channel with the pipe.
        (status, self.log.iter().collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In some tests the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP connection to the server.
pub(crate) struct Client(pub(crate) TcpStream);

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client(stream)
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("it reads");
    }

    /// Sends a GET request and returns the answer.
    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: murre\r\n\r\n").as_bytes());
        self.answer()
    }

    /// The next answer, with its body.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// The next answer, which has no body if the method was HEAD.
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.bytes(1));
        }
        let head = String::from_utf8(head).expect("an ASCII head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let status = status.parse().expect("a status");
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method != "HEAD" && !matches!(status, 100..=199 | 204) {
            let length = answer.header("content-length").expect("a length");
            answer.body = self.bytes(length.parse().expect("a number"));
        }
        answer
    }

    /// Reads exactly `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("more bytes");
        bytes
    }

    /// Reads all bytes until the server closes. A reset also counts as the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no end of the connection: {error}"),
        }
        bytes
    }

    /// Sends FIN; the server's answers still arrive.
    pub(crate) fn half_close(&mut self) {
        self.0.shutdown(Shutdown::Write).expect("it is open");
    }
}

/// A frame of a client, masked with zeros. `first_byte` is the final bit and the opcode.
pub(crate) fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short frames only");
    let mut frame = vec![first_byte, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// First bytes of final frames.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
