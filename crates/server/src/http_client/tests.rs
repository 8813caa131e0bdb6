//! Tests of the client against servers that answer well, slowly, too much, or not at all.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::http_request::read_request;
use super::*;

#[path = "../../tests/e2e/http_request.rs"]
mod http_request;

/// Longer than any test should need, and short enough to end one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const BODY_MAX: usize = 1000;

/// A server that hands each connection, with its number, to `serve`.
struct Server {
    url: Uri,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(serve: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/call?x=1", listener.local_addr().expect("an address"));
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, serve) = (Arc::clone(&connections), Arc::new(serve));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(number, &mut stream));
            }
        });
        Server { url: url.parse().expect("a URL"), connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn answer(stream: &mut TcpStream, body: &str) {
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

async fn post(endpoint: &Endpoint) -> Result<Answer, HttpError> {
    endpoint.post(HeaderMap::new(), Bytes::from_static(b"{}"), deadline()).await
}

/// Requests one after the other share a connection, and have the fields of the endpoint.
#[test]
fn connections_are_kept() {
    let server = Server::start(|_, stream| {
        while let Some((head, body)) = read_request(stream) {
            assert!(head.starts_with("post /call?x=1 http/1.1\r\n"), "{head}");
            assert!(head.contains("\r\nhost: 127.0.0.1:") && head.contains("\r\nx-one: 1\r\n"));
            assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
            answer(stream, str::from_utf8(&body).expect("text"));
        }
    });
    let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
    run(async {
        for number in 0..5 {
            let mut fields = HeaderMap::new();
            fields.insert("x-one", HeaderValue::from_static("1"));
            let body = Bytes::from(format!("[{number}]"));
            let answer = endpoint.post(fields, body.clone(), deadline()).await.expect("an answer");
            assert_eq!((answer.status, answer.body), (StatusCode::OK, body));
        }
    });
    assert_eq!(server.connections(), 1);
}

/// A request on a kept connection that the server closes at that moment is sent again, once, on a new
/// one; a new connection that is closed is an error.
#[test]
fn a_closed_connection_is_replaced_once() {
    let server = Server::start(|number, stream| {
        let _ = read_request(stream);
        if number == 0 {
            answer(stream, "first");
            // The second request is read and not answered.
            let _ = read_request(stream);
        } else if number == 1 {
            answer(stream, "second");
        }
    });
    let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
    run(async {
        assert_eq!(post(&endpoint).await.expect("an answer").body, "first");
        assert_eq!(post(&endpoint).await.expect("an answer").body, "second");
        // The third connection is new, or comes after the second, which the server has closed.
        assert_eq!(post(&endpoint).await.expect_err("it is closed"), HttpError::Closed);
    });
    assert_eq!(server.connections(), 3);
}

/// A connection that is closed in the head of its answer is not tried again.
#[test]
fn a_request_is_not_repeated_after_a_byte() {
    let server = Server::start(|_, stream| {
        let _ = read_request(stream);
        answer(stream, "first");
        let _ = read_request(stream);
        let _ = stream.write_all(b"HTTP/1.1 2");
        let _ = stream.shutdown(Shutdown::Both);
    });
    let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
    run(async {
        assert_eq!(post(&endpoint).await.expect("an answer").body, "first");
        let why = post(&endpoint).await.expect_err("half an answer");
        assert!(matches!(why, HttpError::Closed | HttpError::Malformed(_)), "{why:?}");
    });
    assert_eq!(server.connections(), 1);
}

/// The answers that a server should not give: each is an error of its kind, and its connection is not
/// kept.
#[test]
fn bad_answers() {
    let long_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MAX + 1));
    let endless_fields = "HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(10_000);
    for (text, kind) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "TooLong"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", "TooLong"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", "Malformed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", "Malformed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Malformed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour", "Closed"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfour", "Closed"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "Closed"),
        ("SSH-2.0-OpenSSH_9.9\r\n", "Malformed"),
        (&long_head, "Malformed"),
        (&endless_fields, "Malformed"),
    ] {
        let text = text.to_owned();
        let server = Server::start(move |_, stream| {
            let _ = read_request(stream);
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0]);
        });
        let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
        let why = run(post(&endpoint)).expect_err("no answer");
        assert!(format!("{why:?}").starts_with(kind), "{why:?} is not {kind}");
        assert!(endpoint.lock().is_empty());
    }
}

const HEAD_MAX: usize = 16 << 10;

/// A body without a length that does not end is cut off at the bound.
#[test]
fn an_endless_body() {
    let server = Server::start(|_, stream| {
        let _ = read_request(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(b"4\r\nmore\r\n").is_ok() {}
    });
    let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
    assert_eq!(run(post(&endpoint)).expect_err("no end"), HttpError::TooLong(BODY_MAX));
}

/// Nothing takes longer than the deadline: neither a server that says nothing, nor one that sends a byte
/// now and then.
#[test]
fn deadlines() {
    for trickles in [false, true] {
        let server = Server::start(move |_, stream| {
            let _ = read_request(stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
            while trickles && stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
            let _ = stream.read(&mut [0]);
        });
        let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
        let soon = Instant::now() + Duration::from_millis(100);
        let why = run(endpoint.get(soon)).expect_err("no answer");
        assert_eq!(why, HttpError::Timeout);
        assert!(Instant::now() >= soon && endpoint.lock().is_empty());
    }
}

/// Answers of HTTP/1.0, which end with the connection, as simple servers give them.
#[test]
fn old_servers() {
    let server = Server::start(|_, stream| {
        let _ = read_request(stream);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nServer: BaseHTTP\r\n\r\n{\"a\":\n1}");
        let _ = stream.shutdown(Shutdown::Both);
    });
    let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
    run(async {
        for _ in 0..3 {
            assert_eq!(post(&endpoint).await.expect("an answer").body, "{\"a\":\n1}");
        }
    });
    assert_eq!(server.connections(), 3);
}

/// Statuses and redirections are the caller's, and a server that is not there is an error.
#[test]
fn statuses() {
    let server = Server::start(|_, stream| {
        let _ = read_request(stream);
        let _ = stream
            .write_all(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
    });
    let endpoint = Endpoint::new(server.url.clone(), BODY_MAX);
    assert_eq!(run(post(&endpoint)).expect("an answer").status, StatusCode::FOUND);
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one").port();
    let nobody = Endpoint::new(format!("http://127.0.0.1:{port}/").parse().expect("a URL"), 10);
    let why = run(post(&nobody)).expect_err("nobody listens");
    assert!(matches!(why, HttpError::Connect(_)), "{why:?}");
}
