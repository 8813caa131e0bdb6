//! Tests of limits on clients.

use std::cell::Cell;
use std::io::Write;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::guarded::Guarded;
use crate::server::{BINARY, CLOSE, PING, Server, frame, murre};

/// A server with these flags at an address other than loopback. Its clients have the same address.
/// `None` if the machine has no such address.
pub(crate) fn at_an_address(flags: &[&str]) -> Option<Server> {
    let addresses = getifaddrs().expect("a list").filter_map(|interface| interface.address);
    let mut v4 = addresses.filter_map(|address| Some(IpAddr::V4(address.as_sockaddr_in()?.ip())));
    let ip = v4.find(|ip| !ip.is_loopback());
    if ip.is_none() {
        eprintln!("not here: this machine has no address but loopback");
    }
    Some(Server::spawn_at(ip?, murre().args(["serve", "--max-conns=1000"]).args(flags)))
}

/// Above the limit of an address, a new connection gets 429 even if it sends nothing, but a health
/// check is still answered with 200. When a connection ends, a new one is served.
#[test]
fn connections_per_address() {
    let Some(server) = at_an_address(&["--max-conns-per-address=2"]) else { return };
    let mut served = [(); 2].map(|()| server.connect());
    for client in &mut served {
        assert_eq!(client.get("/healthz").status, 200);
    }
    let mut refused = server.connect();
    let answer = refused.answer();
    assert_eq!((answer.status, answer.header("connection")), (429, Some("close")));
    assert!(refused.rest().is_empty());
    let mut balancer = server.connect();
    let answer = balancer.get("/healthz");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(balancer.rest().is_empty());
    assert_eq!(server.connect().get("/").status, 429);
    drop((refused, balancer));
    server.wait_until("closed", |stats| stats["closed"]["refused"] == 3);
    assert_eq!(server.stats()["total"]["connections_refused_address_full"], 3);
    let metrics = server.admin("/metrics");
    assert!(metrics.text().contains("murre_connections_refused_address_full_total"));
    let [first, mut second] = served;
    drop(first);
    server.wait_until("one is left", |stats| stats["connections"] == 1);
    assert_eq!(server.connect().get("/healthz").status, 200);
    assert_eq!(second.get("/healthz").status, 200);
}

/// An address may open the connections of ten seconds at once; further ones get 429 with a time to
/// come back.
#[test]
fn handshakes_per_second() {
    let Some(server) = at_an_address(&["--max-handshakes-per-second=1"]) else { return };
    let mut answers = (0..1000).map(|_| server.connect().get("/"));
    let refused = answers.position(|answer| {
        let told = answer.header("retry-after").is_some();
        assert!(answer.status == if told { 429 } else { 200 }, "{answer:?}");
        told
    });
    // More than ten are served if the machine takes longer than a second for them.
    assert!(refused.is_some_and(|served| served >= 10), "{refused:?}");
    assert_eq!(server.stats()["total"]["connections_refused_too_fast"], 1);
}

/// A limit of 0 is no limit, and clients on loopback are not counted.
#[test]
fn who_is_not_counted() {
    let few = ["--max-conns-per-address=1", "--max-handshakes-per-second=1"];
    let none = ["--max-conns-per-address=0", "--max-handshakes-per-second=0"];
    let here = Server::start(&few);
    for server in [Some(here), at_an_address(&none)].into_iter().flatten() {
        let mut clients = [(); 20].map(|()| server.connect());
        for client in &mut clients {
            assert_eq!(client.get("/healthz").status, 200);
        }
    }
}

/// A message in too many frames ends a WebSocket with 1008, and so do too many pings. Each reason
/// has its own count.
#[test]
fn what_a_websocket_may_not_do() {
    let server = Server::start(&["--max-fragments=3", "--max-pings-per-second=5"]);
    let fragments = [frame(0x01, b"never ends"), frame(0x00, b"").repeat(3)].concat();
    // The frames arrive together, within two seconds.
    let pings = frame(PING, b"").repeat(11);
    for (said, reason) in [(fragments, "too_many_fragments"), (pings, "too_many_pings")] {
        let mut client = server.raw_websocket("/echo");
        client.send(&said);
        let heard = client.rest();
        let close = heard.windows(4).find(|four| four[0] == CLOSE).expect("a close frame");
        assert_eq!(u16::from_be_bytes([close[2], close[3]]), 1008, "{reason}");
        drop(client);
        server.wait_until("counted", |stats| stats["closed"][reason] == 1);
    }
}

/// A message and a body that arrive too slowly end their connections, even if bytes arrive all the
/// time.
#[test]
fn messages_and_bodies_may_not_trickle() {
    let server = Server::start(&["--handshake-timeout=0.3", "--min-bytes-per-second=1000000"]);
    let (mut message, mut body) = (server.raw_websocket("/echo"), server.connect());
    message.send(&[BINARY, 0x80 | 126, 0xff, 0xff, 0, 0, 0, 0]);
    body.send(b"POST /healthz HTTP/1.1\r\nHost: m\r\nContent-Length: 60000\r\n\r\n");
    server.wait_until("given up", |stats| {
        // The writes fail after the server has closed the connections.
        let _ = (&message.0).write(b".").and((&body.0).write(b"."));
        let closed = &stats["closed"];
        closed["too_slow"] == 1 && closed["handshake_timeout"] == 1
    });
}

/// A client that sends requests all the time and reads no answers is closed.
#[test]
fn answers_must_be_taken() {
    let server = Server::start(&["--ping-interval=0.4"]);
    let get = b"GET /?length=4096 HTTP/1.1\r\nHost: m\r\n\r\n".repeat(1000);
    let echo = frame(BINARY, &[7; 100]).repeat(5000);
    let clients = [(server.connect(), get), (server.raw_websocket("/echo"), echo)]
        .map(|(client, said)| (client, said, Cell::new(0)));
    for (client, ..) in &clients {
        client.0.set_nonblocking(true).expect("a socket");
    }
    server.wait_until("closed", |stats| {
        for (client, said, at) in &clients {
            // Write as long as the server reads; then the write would block.
            let went = (&client.0).write(&said[at.get()..]).unwrap_or(0);
            at.set((at.get() + went) % said.len());
        }
        stats["closed"]["too_slow"] == 2
    });
}

/// By default only pages of the server's own host may open WebSockets. With a list of origins only
/// pages of these may, and not those of the own host.
#[test]
fn origins() {
    let of_a_browser = |server: &Server, origin: &str| {
        let mut client = server.connect();
        let host = server.data;
        client.send(handshake(&format!("Host: {host}\r\nOrigin: {origin}\r\n")).as_bytes());
        client.answer().status
    };
    let server = Server::start(&[]);
    assert_eq!(of_a_browser(&server, &format!("http://{}", server.data)), 101);
    assert_eq!(of_a_browser(&server, "https://elsewhere.example"), 403);
    assert_eq!(server.stats()["total"]["upgrades_refused_origin"], 1);

    let server = Server::start(&["--allow-origin=https://app.example, https://*.murre.example"]);
    for (origin, status) in [
        ("https://app.example", 101),
        ("https://a.murre.example", 101),
        ("http://app.example", 403),
    ] {
        assert_eq!(of_a_browser(&server, origin), status, "{origin}");
    }
    assert_eq!(of_a_browser(&server, &format!("http://{}", server.data)), 403);
    assert_eq!(of_a_browser(&Server::start(&["--allow-origin=any"]), "null"), 101);
}

/// A valid handshake with these fields, which must include the host.
fn handshake(fields: &str) -> String {
    format!(
        "GET /echo HTTP/1.1\r\n{fields}Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// With the PROXY protocol, the limits apply to the clients behind the proxy. A connection without
/// the header is not answered, and the proxy's own connections are not counted.
#[test]
fn clients_of_a_proxy() {
    let server = Server::start(&[
        "--proxy-protocol",
        "--trusted-proxy=127.0.0.0/8, 2001:db8::1",
        "--max-conns-per-address=1",
    ]);
    let behind = |header: &[u8]| {
        let mut client = server.connect();
        client.send(header);
        client.send(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n");
        client
    };
    let v2 = |last: u8| {
        let addresses = [203, 0, 113, last, 192, 0, 2, 1, 0xc3, 0x50, 0x1f, 0x90];
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat()
    };
    let mut first = behind(&v2(1));
    assert_eq!(first.answer().status, 200);
    let mut second = behind(b"PROXY TCP6 2001:db8:2::1 2001:db8::1 50000 8000\r\n");
    assert_eq!(second.answer().status, 200);
    assert_eq!(behind(&v2(1)).answer().status, 429);
    let mut same_network = behind(b"PROXY TCP6 2001:db8:2::2 2001:db8::1 50000 8000\r\n");
    assert_eq!(same_network.answer().status, 429);
    for _ in 0..3 {
        let mut local = behind(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        assert_eq!(local.answer().status, 200);
    }
    assert!(behind(b"").rest().is_empty());
    assert_eq!(server.stats()["total"]["proxy_headers_bad"], 1);
    assert_eq!(server.stats()["total"]["connections_refused_address_full"], 2);
}

/// A WebSocket behind an HTTP proxy counts for the client address that the proxy has added last.
#[test]
fn clients_of_an_http_proxy() {
    let server = Server::start(&["--trusted-proxy=127.0.0.1", "--max-conns-per-address=1"]);
    let open = |forwarded: &str| {
        let mut client = server.connect();
        let fields = format!("Host: m\r\nX-Forwarded-For: {forwarded}\r\n");
        client.send(handshake(&fields).as_bytes());
        let status = client.answer().status;
        (client, status)
    };
    let (_first, status) = open("203.0.113.1");
    assert_eq!(status, 101);
    assert_eq!(open("198.51.100.1, 203.0.113.1").1, 429);
    assert_eq!(open("203.0.113.1, 203.0.113.2").1, 101);
    // Requests of the proxy that are not handshakes count for no address.
    assert_eq!([(); 3].map(|()| server.connect().get("/healthz").status), [200; 3]);
}

/// A handshake that is refused counts for its client's address only until it has been answered.
#[test]
fn refused_handshakes_take_no_place() {
    let server = Server::start(&["--trusted-proxy=127.0.0.1", "--max-conns-per-address=1"]);
    let fields = "Host: m\r\nX-Forwarded-For: 203.0.113.1\r\n";
    let good = handshake(fields);
    for _ in 0..5 {
        let version = good.replacen("Version: 13", "Version: 8", 1);
        let origin = handshake(&format!("{fields}Origin: https://x.example\r\n"));
        for (handshake, status) in [(version, 426), (origin, 403)] {
            let mut client = server.connect();
            client.send(handshake.as_bytes());
            assert_eq!(client.answer().status, status);
            assert!(client.rest().is_empty());
        }
    }
    let mut client = server.connect();
    client.send(good.as_bytes());
    assert_eq!(client.answer().status, 101);
}

/// A bad token that a proxy passes on counts for the client's address, and for no other's, in every
/// request that a token can be in, also where addresses may have any number of connections.
#[test]
fn bad_tokens_of_clients_of_a_proxy() {
    let few = ["--shards=1", "--trusted-proxy=127.0.0.1", "--max-bad-tokens-per-second=1"];
    let unlimited = ["--max-conns-per-address=0", "--max-handshakes-per-second=0"];
    for flags in [&few[..], &[&few[..], &unlimited].concat()] {
        let guarded = Guarded::start(flags);
        for (number, (method, target, upgrade)) in [
            ("GET", "/ws?", true),
            ("GET", "/sse?channel=a&", false),
            ("HEAD", "/sse?channel=a&", false),
            ("GET", "/poll?channel=a&", false),
            ("HEAD", "/poll?channel=a&", false),
        ]
        .into_iter()
        .enumerate()
        {
            let status = |last: usize| {
                let mut client = guarded.server.connect();
                let fields = format!("Host: m\r\nX-Forwarded-For: 203.0.113.{last}\r\n");
                let target = format!("{target}token=a.b.c");
                client.send(
                    match upgrade {
                        true => handshake(&fields).replacen("/echo", &target, 1),
                        false => format!("{method} {target} HTTP/1.1\r\n{fields}\r\n"),
                    }
                    .as_bytes(),
                );
                client.answer_to(method).status
            };
            let [client, other] = [2 * number, 2 * number + 1];
            let statuses = (0..900).map(|_| status(client));
            let refused = statuses.enumerate().find(|&(_, status)| status == 429);
            let (tries, _) = refused.unwrap_or_else(|| panic!("{method} {target} {flags:?}"));
            assert!(tries > 0, "{method} {target} {flags:?}");
            assert_ne!(status(other), 429);
        }
    }
}

/// A stream or a poll behind an HTTP proxy counts for the client as long as it lasts.
#[test]
fn sessions_of_clients_of_an_http_proxy() {
    let kept = "--namespace=default,history-size=1";
    let flags = ["--trusted-proxy=127.0.0.1", "--max-conns-per-address=1", kept];
    let server = Server::start(&flags);
    let status = |target: &str, last: u8| {
        let mut client = server.connect();
        let from = format!("X-Forwarded-For: 203.0.113.{last}");
        client.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n{from}\r\n\r\n").as_bytes());
        let line = String::from_utf8(client.bytes(12)).expect("a status line");
        (line[9..].to_owned(), client)
    };
    let (first, stream) = status("/sse?channel=a", 1);
    assert_eq!(first, "200");
    assert_eq!(status("/sse?channel=a", 1).0, "429");
    assert_eq!(status("/poll?channel=a", 1).0, "429");
    // Polls that are answered at once.
    assert_eq!([(); 3].map(|()| status("/poll?channel=a", 2).0), ["200"; 3]);
    drop(stream);
    server.wait_until("closed", |stats| stats["connections"] == 0);
    assert_eq!(status("/sse?channel=a", 1).0, "200");
}
