//! What breaks a rule ends its own connection, with the right word, and no other.

use crate::server::{BINARY, CLOSE, Client, PING, Server, TEXT, frame};

/// A WebSocket that must not notice what happens to others.
struct Witness(Client);

impl Witness {
    fn of(server: &Server) -> Self {
        Witness(server.raw_websocket("/echo"))
    }

    fn is_served(&mut self) {
        self.0.send(&frame(TEXT, b"still"));
        assert_eq!(self.0.bytes(7), b"\x81\x05still");
    }
}

/// Every malformed request gets its status, then the end of the connection.
#[test]
fn malformed_requests_get_their_status() {
    let server = Server::start(&["--max-head-bytes=1024", "--max-body-bytes=1000"]);
    let mut witness = Witness::of(&server);
    let many_headers: String = (0..100).map(|number| format!("H{number}: x\r\n")).collect();
    let requests = [
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".to_owned()),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n".to_owned()),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_owned()),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
                .to_owned(),
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
        ),
        (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
        (413, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n".to_owned()),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1024))),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many_headers}\r\n")),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
    ];
    for (status, request) in &requests {
        let mut client = server.connect();
        // A good one before it is answered as if nothing followed.
        assert_eq!(client.get("/?length=3").body, b"abc");
        client.send(request.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, *status, "{request:?} got {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
        assert!(!answer.body.is_empty(), "{request:?} is not told why");
        assert!(client.rest().is_empty());
        witness.is_served();
    }
    let bad = requests.len();
    server.wait_until("counted", |stats| stats["closed"]["bad_request"] == bad);
    assert_eq!(server.stats()["connections"], 1);
}

/// Handshakes that RFC 6455 section 4.2.1 does not allow are refused with an answer.
#[test]
fn malformed_handshakes_are_refused() {
    let server = Server::start(&[]);
    let mut witness = Witness::of(&server);
    let good = "GET /echo HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let refused = [
        (426, "Version: 13", "Version: 8"),
        (426, "Sec-WebSocket-Version: 13\r\n", ""),
        (400, "dGhlIHNhbXBsZSBub25jZQ==", "short"),
        (400, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
    ];
    for (status, part, replacement) in refused {
        let mut client = server.connect();
        client.send(good.replace(part, replacement).as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, status, "{replacement:?} for {part:?}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
        witness.is_served();
    }
}

/// Every frame that breaks a rule of RFC 6455 section 5 ends its connection with the code for it.
#[test]
fn malformed_frames_get_their_close_code() {
    let server = Server::start(&["--max-message-bytes=1000"]);
    let mut witness = Witness::of(&server);
    let mut too_long = vec![BINARY, 0x80 | 126];
    too_long.extend(1001u16.to_be_bytes());
    too_long.extend([0; 4]);
    let mut control_too_long = vec![PING, 0x80 | 126];
    control_too_long.extend(126u16.to_be_bytes());
    control_too_long.extend([0; 130]);
    let joined = |frames: &[Vec<u8>]| frames.concat();
    let broken = [
        (1002, "not masked", vec![TEXT, 2, b'h', b'i']),
        (1002, "a reserved bit", frame(TEXT | 0x40, b"x")),
        (1002, "a reserved data opcode", frame(0x83, b"x")),
        (1002, "a reserved control opcode", frame(0x8b, b"x")),
        (1002, "a control frame in fragments", frame(0x09, b"x")),
        (1002, "a control frame too long", control_too_long),
        (1002, "a continuation of nothing", frame(0x80, b"x")),
        (1002, "a message within a message", joined(&[frame(0x01, b"x"), frame(TEXT, b"x")])),
        (1002, "half a close code", frame(CLOSE, &[3])),
        (1002, "a close code that is not for the wire", frame(CLOSE, &1005u16.to_be_bytes())),
        (1002, "a length that could be shorter", vec![TEXT, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'x']),
        (1002, "a length of 2^63", vec![TEXT, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (1007, "no UTF-8", frame(TEXT, &[b'a', 0xff])),
        (1007, "half a character", frame(TEXT, "é".as_bytes().split_at(1).0)),
        (1007, "no UTF-8 in a close reason", frame(CLOSE, &[3, 232, 0xff])),
        (1009, "a message too long", too_long),
        (
            1009,
            "fragments too long",
            joined(&[frame(0x02, &[0; 9]), frame(0x00, &[0; 99]).repeat(11)]),
        ),
    ];
    for (code, what, bytes) in broken {
        let mut client = server.raw_websocket("/echo");
        client.send(&bytes);
        let answer = client.rest();
        assert_eq!(answer.first(), Some(&CLOSE), "{what} got {answer:?}");
        assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), code, "{what}");
        assert_eq!(answer.len(), 2 + usize::from(answer[1]), "{what}: more than one frame");
        witness.is_served();
    }
    server.wait_until("reclaimed", |stats| stats["connections"] == 1);
}

/// Random bytes, before and after a handshake, end nothing but their own connections.
#[test]
fn noise_ends_only_itself() {
    let server = Server::start(&[]);
    let mut witness = Witness::of(&server);
    let mut seed: u32 = 0x9e37_79b9;
    let mut noise = || {
        (0..2000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect::<Vec<u8>>()
    };
    for round in 0..100 {
        let mut client =
            if round % 2 == 0 { server.connect() } else { server.raw_websocket("/echo") };
        client.send(&noise());
        client.half_close();
        client.rest();
    }
    witness.is_served();
    server.wait_until("reclaimed", |stats| stats["connections"] == 1);
}
