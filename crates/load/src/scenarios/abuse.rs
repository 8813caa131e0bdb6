//! `abuse`: hostile peers in mix, beside well-behaved connections on the same server that must not
//! notice. Each kind of abuse is a [`Visit`] with the end that the server must put to it.
//!
//! The well-behaved send texts over WebSockets and requests over HTTP, as `ws-upper` and
//! `http-keepalive` do, each sort on a shard of its own; the hostile have another.

use std::time::Duration;

use murre_codec::{Control, Kind, OpCode};

use crate::client::channel;
use crate::client::visit::{
    End, MASK, Step, Visit, Word, frame, get, hear, hear_text, open, repeat, say, text, trickle,
};

/// Every kind.
pub(crate) fn visits() -> Vec<Visit> {
    let mut visits = slow();
    visits.extend(requests());
    visits.extend(frames());
    visits.extend(commands());
    visits.extend(comings_and_goings());
    visits
}

const fn status(status: u16) -> Option<Word> {
    Some(Word::Status(status))
}

const fn code(code: u16) -> Option<Word> {
    Some(Word::Close(code))
}

/// Heads of which the rest comes slowly, or not.
fn slow() -> Vec<Visit> {
    const LATE: End = End::Theirs(&[status(408)]);
    let head = "GET / HTTP/1.1\r\nHost: murre\r\nX: ";
    let body = "POST / HTTP/1.1\r\nHost: murre\r\nContent-Length: 1000\r\n\r\n";
    vec![
        Visit::new("connect and hold", vec![], const { End::Theirs(&[None, status(408)]) }),
        Visit::new("slowloris", vec![say(head), trickle("x", SLOWLY, 200)], LATE),
        Visit::new("half a head", vec![say(head)], LATE),
        Visit::new("slow body", vec![say(body), trickle("x", SLOWLY, 200)], LATE),
        Visit::new("half a body", vec![say(body)], LATE),
    ]
}

/// Requests that are too large, too many, or none.
fn requests() -> Vec<Visit> {
    const BAD: End = End::Theirs(&[status(400)]);
    const TOO_LARGE: End = End::Theirs(&[status(431)]);
    let head = "GET / HTTP/1.1\r\nHost: murre\r\n";
    let headers = |count: usize| "X-Header: value\r\n".repeat(count);
    let post = |headers: &str| say(format!("POST / HTTP/1.1\r\nHost: murre\r\n{headers}\r\n\r\n"));
    vec![
        Visit::new("endless head", vec![say(head), repeat(headers(100), QUICKLY, 500)], TOO_LARGE),
        Visit::new("huge head", vec![say(format!("{head}{}", headers(4000)))], TOO_LARGE),
        Visit::new("huge header", vec![say(format!("{head}X: {}", "x".repeat(60_000)))], TOO_LARGE),
        Visit::new(
            "huge body",
            vec![post("Content-Length: 999999999")],
            const { End::Theirs(&[status(413)]) },
        ),
        Visit::new("smuggling", vec![post("Content-Length: 4\r\nTransfer-Encoding: chunked")], BAD),
        Visit::new("garbage", vec![say(noise(2000))], BAD),
        Visit::new(
            "TLS",
            vec![say([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &noise(500)[..]].concat())],
            BAD,
        ),
        Visit::new(
            "HTTP/2",
            vec![say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
            const { End::Theirs(&[status(400), status(505)]) },
        ),
        // More is queued here than is sent while the answers are not read, and they are not read while
        // so much is queued.
        Visit::new(
            "answers not read",
            vec![say(get("/?length=4096").repeat(8000))],
            const { End::Theirs(&[None, status(200)]) },
        ),
        Visit::new("pipeline and reset", vec![say(get("/?length=4096").repeat(50))], End::Reset),
    ]
}

/// WebSockets that break the rules, or bend them.
fn frames() -> Vec<Visit> {
    const BROKEN: End = End::Theirs(&[code(1002)]);
    const TOO_LONG: End = End::Theirs(&[code(1009)]);
    const TOO_MUCH: End = End::Theirs(&[code(1008)]);
    // Given up, or ended for what is missing, whichever comes first.
    const SILENT: End = End::Theirs(&[None, code(1008)]);
    let ping = frame(OpCode::Control(Control::Ping), b"ping");
    let open = |name: &str, steps: Vec<Step>, end| {
        Visit::new(name, [open("/echo").to_vec(), steps].concat(), end)
    };
    let raw = |first: u8, length: &[u8], payload: &[u8]| {
        say([&[first][..], length, &MASK, payload].concat())
    };
    let huge = [&[0xff][..], &(1_u64 << 40).to_be_bytes()].concat();
    let half = [b"\x02\x82", &MASK[..], b"xx"].concat();
    let piece = [&b"\x02\xfe\x80\x00"[..], &MASK, &[b'x'; 0x8000]].concat();
    let tiny = [b"\x00\x80", &MASK[..]].concat();
    let long = [&b"\x82\xfe\x80\x00"[..], &MASK].concat();
    let more = [b"\x00", &piece[1..]].concat();
    let many = frame(Kind::Binary.opcode(), &vec![7; 500_000]).repeat(8);
    vec![
        open("unmasked", vec![say(b"\x81\x02hi")], BROKEN),
        open("reserved bits", vec![raw(0xf1, &[0x80], b"")], BROKEN),
        open(
            "bad UTF-8",
            vec![raw(0x81, &[0x82], b"\xff\xff")],
            const { End::Theirs(&[code(1007)]) },
        ),
        open("huge message", vec![raw(0x82, &huge, b"")], const { End::Theirs(&[code(1009)]) }),
        open("endless fragments", vec![say(piece), repeat(more, QUICKLY, 500)], TOO_LONG),
        open("tiny fragments", vec![say([&half[..], &tiny.repeat(5000)].concat())], TOO_MUCH),
        open("ping flood", vec![repeat(ping.repeat(200), QUICKLY, 100)], TOO_MUCH),
        open("slow message", vec![say(long), trickle("x", SLOWLY, 200)], TOO_MUCH),
        open("half a message", vec![say(half)], SILENT),
        open("half a frame", vec![raw(0x82, &[0xfe, 4, 0], b"xx")], SILENT),
        open("pings not answered", vec![], SILENT),
        open("echoes not read", vec![say(many)], SILENT),
    ]
}

/// Commands of the channels' protocol: too many, too large, too deep.
fn commands() -> Vec<Visit> {
    let open = |name: &str, steps: Vec<Step>, end| {
        Visit::new(name, [open("/ws").to_vec(), steps].concat(), end)
    };
    const TOO_FAST: End = End::Theirs(&[code(1008)]);
    // Many at a time: the pace of single ones is within the server's limit.
    let flood = |command: String| {
        let commands = frame(Kind::Text.opcode(), command.as_bytes()).repeat(200);
        repeat(commands, QUICKLY, 100)
    };
    let publish = |data: &str| channel::publish("abuse", data, None);
    let paced = frame(Kind::Text.opcode(), publish("1").as_bytes());
    vec![
        open("subscribe flood", vec![flood(channel::subscribe("abuse", None))], TOO_FAST),
        open("publish flood", vec![flood(publish("1"))], TOO_FAST),
        open("publish at the limit", vec![repeat(paced, QUICKLY, 150)], End::Fin),
        open(
            "huge JSON",
            vec![
                text(publish(&format!("\"{}\"", "x".repeat(200_000)))),
                hear_text("bad_publication"),
            ],
            End::Fin,
        ),
        open(
            "deep JSON",
            vec![text(publish(&"[".repeat(50_000))), hear_text("bad_json")],
            End::Reset,
        ),
    ]
}

/// Connections that are not used, or not for long.
fn comings_and_goings() -> Vec<Visit> {
    let half = "GET /ws HTTP/1.1\r\nHost: murre\r\nUpgrade: webs";
    vec![
        Visit::new("connect and reset", vec![], End::Reset),
        Visit::new("connect and close", vec![], End::Fin),
        Visit::new("half a head, closed", vec![say(half)], End::Fin),
        Visit::new("half a head, reset", vec![say(half)], End::Reset),
        Visit::new("handshake and reset", open("/ws").to_vec(), End::Reset),
        Visit::new("handshake and close", open("/ws").to_vec(), End::Fin),
        Visit::new("request and reset", vec![say(get("/healthz")), hear(200)], End::Reset),
    ]
}

/// Bytes that look random and are no HTTP.
fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(5);
    std::iter::repeat_with(|| rng.u8(0x80..)).take(bytes).collect()
}

/// From one byte of who is slow to the next.
const SLOWLY: Duration = Duration::from_millis(200);

/// From one piece of who is quick to the next: a tick or two of the timers.
const QUICKLY: Duration = Duration::from_millis(10);
