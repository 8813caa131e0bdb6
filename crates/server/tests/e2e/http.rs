//! Tests of HTTP/1.1 on the data port.

use std::thread;
use std::time::Duration;

use crate::server::{Server, murre};

/// The first `length` characters of the text of which every body is a prefix.
fn text(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}

/// Bodies of any length arrive exactly, one after the other on one connection.
#[test]
fn bodies_are_exact_on_a_kept_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for length in [1, 2, 1024, 4095, 4096, 9999, 10_240] {
        let answer = client.get(&format!("/?length={length}"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")));
        assert_eq!(answer.body, text(length));
    }
    assert_eq!(client.get("/").body, text(1024));
    assert_eq!(client.get("/?length=0").body, text(1));
    assert_eq!(client.get("/?length=99999").body, text(10_240));
    assert_eq!(client.get("/?length=many").status, 400);
    assert_eq!(client.get("/scenario").status, 200);
    assert_eq!(server.stats()["total"]["connections_accepted"], 1);
}

/// Requests in one packet are answered in order, and a request that arrives byte by byte is
/// answered, too.
#[test]
fn requests_are_pipelined_and_cut_anywhere() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let requests: String = (1..=100)
        .map(|length| format!("GET /?length={length} HTTP/1.1\r\nHost: murre\r\n\r\n"))
        .collect();
    client.send(requests.as_bytes());
    for length in 1..=100 {
        assert_eq!(client.answer().body, text(length));
    }
    for byte in b"POST /healthz HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\n\r\nhelloGET /healthz "
    {
        client.send(&[*byte]);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.answer().status, 405);
    client.send(b"HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

/// Pipelined answers that together exceed the send limit all arrive.
#[test]
fn answers_larger_than_the_queue_bound_arrive() {
    let server = Server::start(&["--max-send-bytes=131072"]);
    let mut client = server.connect();
    let request = b"GET /?length=10240 HTTP/1.1\r\nHost: murre\r\n\r\n";
    client.send(&request.repeat(1000));
    for _ in 0..1000 {
        assert_eq!(client.answer().body.len(), 10_240);
    }
}

/// A client that sends many requests at once and reads all answers does not count as slow, even
/// with the smallest send limit.
#[test]
fn pipelining_is_not_slow() {
    let server = Server::start(&["--max-send-bytes=1024"]);
    let mut client = server.connect();
    client.send(&b"GET /?length=2000 HTTP/1.1\r\nHost: murre\r\n\r\n".repeat(100));
    for _ in 0..100 {
        assert_eq!(client.answer().body.len(), 2000);
    }
    assert_eq!(server.stats()["closed"]["slow_consumer"], 0);
}

/// Unknown paths and methods get a status and a text with the reason, and the connection continues.
#[test]
fn what_is_not_served_says_why() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.get("/nowhere").status, 404);
    for path in ["/ws", "/echo"] {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.header("upgrade")), (426, Some("websocket")));
    }
    for path in ["/", "/healthz", "/scenario", "/echo", "/ws"] {
        client.send(
            format!("DELETE {path} HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n{{}}")
                .as_bytes(),
        );
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    client.send(b"HEAD /?length=77 HTTP/1.1\r\nHost: murre\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").header("content-length"), Some("77"));
    assert_eq!(client.get("/healthz").text(), "ok\n");
}

/// Without `--bench` the server does not serve the routes of the published runs.
#[test]
fn bench_routes_are_only_there_when_asked_for() {
    let server = Server::spawn(murre().args(["serve", "--max-conns=100"]));
    let mut client = server.connect();
    for path in ["/scenario", "/echo", "/upper", "/demo/quotes"] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
    // The page at `/` says what the server is and where clients connect.
    for path in ["/", "/?length=5"] {
        let about = client.get(path);
        assert_eq!(about.status, 200);
        assert!(about.text().contains("Murre") && about.text().contains("/ws"), "{about:?}");
    }
    assert_eq!(client.get("/ws").status, 426);
    assert_eq!(client.get("/healthz").status, 200);
}

/// A connection ends after its answer if the client asks for it, and in HTTP/1.0 unless the client
/// asks to keep it.
#[test]
fn connections_end_when_the_client_says_so() {
    let server = Server::start(&[]);
    let ends = [
        ("GET /healthz HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n", Some("close")),
        // HTTP/1.0 without `keep-alive`: the connection ends, and the answer need not say so.
        ("GET /healthz HTTP/1.0\r\n\r\n", None),
    ];
    for (request, connection) in ends {
        let mut client = server.connect();
        client.send(request.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, connection));
        assert!(client.rest().is_empty());
    }
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().header("connection"), Some("keep-alive"));
    }
}

/// A client that has sent its last byte still gets its answers.
#[test]
fn half_closed_connections_are_answered() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(&b"GET /?length=10240 HTTP/1.1\r\nHost: murre\r\n\r\n".repeat(20));
    client.half_close();
    for _ in 0..20 {
        assert_eq!(client.answer().body, text(10_240));
    }
    assert!(client.rest().is_empty());
    server.wait_until("reclaimed", |stats| stats["connections"] == 0);
}

/// A client that expects 100 Continue before it sends its body gets it once.
#[test]
fn continue_is_sent_to_who_expects_it() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let head =
        "POST /healthz HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head.as_bytes());
    assert_eq!(client.answer().status, 100);
    client.send(b"bo");
    client.send(b"dy");
    assert_eq!(client.answer().status, 405);
    assert_eq!(client.get("/healthz").status, 200);
}
