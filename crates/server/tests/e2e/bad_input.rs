//! Tests of input that breaks a rule: it ends its own connection with the right code, and no other
//! connection.

use crate::server::{BINARY, CLOSE, Client, PING, Server, TEXT, frame};

/// A WebSocket that must not be affected by the end of other connections.
pub(crate) struct Witness(Client);

impl Witness {
    /// Opens the WebSocket.
    pub(crate) fn of(server: &Server) -> Self {
        Witness(server.raw_websocket("/echo"))
    }

    /// Checks that the server still answers on this connection.
    pub(crate) fn is_served(&mut self) {
        self.0.send(&frame(TEXT, b"still"));
        assert_eq!(self.0.bytes(7), b"\x81\x05still");
    }
}

/// The limits of requests can be set, and each has its own status.
#[test]
fn limits_of_requests_can_be_set() {
    let server = Server::start(&[
        "--max-head-bytes=1024",
        "--max-body-bytes=1000",
        "--max-target-bytes=100",
        "--max-header-fields=10",
    ]);
    let mut witness = Witness::of(&server);
    let head = |bytes: usize| {
        let rest = "GET /healthz HTTP/1.1\r\nHost: m\r\nX: \r\n\r\n".len();
        format!("GET /healthz HTTP/1.1\r\nHost: m\r\nX: {}\r\n\r\n", "x".repeat(bytes - rest))
    };
    let body = |bytes: usize| {
        format!("GET /healthz HTTP/1.1\r\nHost: m\r\nContent-Length: {bytes}\r\n\r\n")
            + &"x".repeat(bytes)
    };
    let target = |bytes: usize| {
        format!(
            "GET /healthz?{} HTTP/1.1\r\nHost: m\r\n\r\n",
            "x".repeat(bytes - "/healthz?".len())
        )
    };
    let fields = |count: usize| {
        format!("GET /healthz HTTP/1.1\r\nHost: m\r\n{}\r\n", "X: y\r\n".repeat(count - 1))
    };
    for (status, request) in [
        (200, head(1024)),
        (431, head(1025)),
        (200, body(1000)),
        (413, body(1001)),
        (200, target(100)),
        (414, target(101)),
        (200, fields(10)),
        (431, fields(11)),
    ] {
        let mut client = server.connect();
        client.send(request.as_bytes());
        assert_eq!(client.answer().status, status, "{request:?}");
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
