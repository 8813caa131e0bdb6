//! `abuse`: hostile peers in mix, beside well-behaved connections on the same server that must not
//! notice. Each kind of abuse is a [`Script`] with the end that the server must put to it.
//!
//! The well-behaved send texts over WebSockets and requests over HTTP, as `ws-upper` and
//! `http-keepalive` do, each sort on a shard of its own; the hostile have another.

use std::collections::BTreeMap;
use std::time::Duration;

use murre_codec::{Control, Kind as MessageKind, OpCode};
use murre_record::{Scenario as Kind, VisitFacts};
use serde::Serialize;

use crate::cli::args::{self, Span};
use crate::cli::common::Common;
use crate::client::channel;
use crate::client::scripted::SharedScripts;
use crate::client::scripted::script::{
    End, MASK, Reply, Script, Step, expect_status, expect_text, frame, get, open, repeat, send,
    text, trickle, websocket,
};
use crate::client::ws::WsClient;
use crate::engine::fleet::Fleet;
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::http_keepalive::HttpKeepalive;
use crate::scenarios::scenario::{
    Apart, FINE_TICK, HoldPlan, Profile, Scenario, Setup, check_fine, check_rate,
};
use crate::scenarios::ws_upper::WsUpper;

/// The scenario's arguments.
#[derive(clap::Args, Serialize)]
pub(crate) struct Args {
    /// Time from one text or request of a well-behaved connection to the next
    #[arg(long, default_value = "100ms", value_parser = args::timed)]
    #[serde(serialize_with = "args::seconds")]
    every: Duration,

    /// Connects per second of hostile connections, and pieces of up to 64 KiB that they send
    #[arg(long, value_name = "N/s", default_value = "300", value_parser = args::rate)]
    rate: f64,

    /// Hostile connections at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = args::number(u32::MAX))]
    hostile: u32,

    #[arg(skip)]
    #[serde(skip)]
    scripts: SharedScripts,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile {
            path: "/upper",
            apart: Apart::First(2),
            tick: FINE_TICK,
            ..Profile::new(Kind::Abuse, Fleet::<WsClient<WsUpper>>::MEMBER_BYTES)
        }
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(Some(self.rate))?;
        if common.conns < 2 {
            return Err("--conns must be 2 at least: one over WebSocket, one over HTTP".to_owned());
        }
        check_fine(common.timeout.as_secs_f64())
    }

    fn visitors(&self, _: &Common) -> u32 {
        self.hostile
    }

    fn conns(&self, common: &Common, worker: usize, _: usize) -> u32 {
        match worker {
            TEXTS => common.conns.div_ceil(2),
            REQUESTS => common.conns / 2,
            _ => self.hostile,
        }
    }

    fn hold_plan(&self, _: &Common) -> HoldPlan {
        HoldPlan::Abuse
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let every = self.every;
        match setup.client(&config).worker as usize {
            TEXTS => setup.start_ws(config, move |c| WsUpper::new(every, c.own_seed())),
            REQUESTS => {
                let (every, host) = (every.as_secs_f64(), setup.host());
                let idle = Span { from: 0.5 * every, to: 1.5 * every };
                setup.start_clients(config, move |c| {
                    HttpKeepalive::new(idle, host, "/".to_owned(), c.own_seed())
                })
            }
            _ => self.scripts.start(scripts, self.rate, setup.common.timeout, config),
        }
    }

    fn visit_facts(&self) -> BTreeMap<String, VisitFacts> {
        self.scripts.facts()
    }
}

/// The workers of the well-behaved connections, over WebSocket and over HTTP. The hostile have the rest.
const TEXTS: usize = 0;
const REQUESTS: usize = 1;

/// A name, the steps, and the end that the server must put to it.
type Row = (&'static str, Vec<Step>, End);

/// Every kind.
fn scripts() -> Vec<Script> {
    let rows = [slow(), requests(), frames(), commands(), short()].into_iter().flatten();
    rows.map(|(name, steps, end)| Script::new(name, steps, end)).collect()
}

const fn status(status: u16) -> Option<Reply> {
    Some(Reply::Status(status))
}

const fn code(code: u16) -> Option<Reply> {
    Some(Reply::Close(code))
}

/// Heads of which the rest comes slowly, or not.
fn slow() -> Vec<Row> {
    const UNUSED: End = End::ByServer(&[None, status(408)]);
    const LATE: End = End::ByServer(&[status(408)]);
    let head = "GET / HTTP/1.1\r\nHost: murre\r\nX: ";
    let body = "POST / HTTP/1.1\r\nHost: murre\r\nContent-Length: 1000\r\n\r\n";
    vec![
        ("connect and hold", vec![], UNUSED),
        ("slowloris", vec![send(head), trickle("x", SLOWLY, 200)], LATE),
        ("half a head", vec![send(head)], LATE),
        ("slow body", vec![send(body), trickle("x", SLOWLY, 200)], LATE),
        ("half a body", vec![send(body)], LATE),
    ]
}

/// Requests that are too large, too many, or none.
fn requests() -> Vec<Row> {
    const BAD: End = End::ByServer(&[status(400)]);
    const VERSION: End = End::ByServer(&[status(400), status(505)]);
    const BODY: End = End::ByServer(&[status(413)]);
    const HEAD: End = End::ByServer(&[status(431)]);
    const UNREAD: End = End::ByServer(&[None, status(200)]);
    let head = "GET / HTTP/1.1\r\nHost: murre\r\n";
    let headers = |count: usize| "X-Header: value\r\n".repeat(count);
    let post = |headers: &str| send(format!("POST / HTTP/1.1\r\nHost: murre\r\n{headers}\r\n\r\n"));
    let smuggled = "Content-Length: 4\r\nTransfer-Encoding: chunked";
    let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &noise(500)[..]].concat();
    vec![
        ("endless head", vec![send(head), repeat(headers(100), QUICKLY, 500)], HEAD),
        ("huge head", vec![send(format!("{head}{}", headers(4000)))], HEAD),
        ("huge header", vec![send(format!("{head}X: {}", "x".repeat(60_000)))], HEAD),
        ("huge body", vec![post("Content-Length: 999999999")], BODY),
        ("smuggling", vec![post(smuggled)], BAD),
        ("garbage", vec![send(noise(2000))], BAD),
        ("TLS", vec![send(hello)], BAD),
        ("HTTP/2", vec![send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")], VERSION),
        // More is queued here than is sent while the answers are not read, and they are not read while
        // so much is queued.
        ("answers not read", vec![send(get("/?length=4096").repeat(8000))], UNREAD),
        ("pipeline and reset", vec![send(get("/?length=4096").repeat(50))], End::Reset),
    ]
}

/// WebSockets that break the rules, or bend them.
fn frames() -> Vec<Row> {
    const BROKEN: End = End::ByServer(&[code(1002)]);
    const NOT_UTF8: End = End::ByServer(&[code(1007)]);
    const TOO_LONG: End = End::ByServer(&[code(1009)]);
    const TOO_MUCH: End = End::ByServer(&[code(1008)]);
    // Given up, or ended for what is missing, whichever comes first.
    const SILENT: End = End::ByServer(&[None, code(1008)]);
    let ping = frame(OpCode::Control(Control::Ping), b"ping");
    let raw = |first: u8, length: &[u8], payload: &[u8]| {
        send([&[first][..], length, &MASK, payload].concat())
    };
    let huge = [&[0xff][..], &(1_u64 << 40).to_be_bytes()].concat();
    let half = [b"\x02\x82", &MASK[..], b"xx"].concat();
    let piece = [&b"\x02\xfe\x80\x00"[..], &MASK, &[b'x'; 0x8000]].concat();
    let tiny = [b"\x00\x80", &MASK[..]].concat();
    let long = [&b"\x82\xfe\x80\x00"[..], &MASK].concat();
    let more = [b"\x00", &piece[1..]].concat();
    let many = frame(MessageKind::Binary.opcode(), &vec![7; 500_000]).repeat(8);
    let rows = [
        ("unmasked", vec![send(b"\x81\x02hi")], BROKEN),
        ("reserved bits", vec![raw(0xf1, &[0x80], b"")], BROKEN),
        ("bad UTF-8", vec![raw(0x81, &[0x82], b"\xff\xff")], NOT_UTF8),
        ("huge message", vec![raw(0x82, &huge, b"")], TOO_LONG),
        ("endless fragments", vec![send(piece), repeat(more, QUICKLY, 500)], TOO_LONG),
        ("tiny fragments", vec![send([&half[..], &tiny.repeat(5000)].concat())], TOO_MUCH),
        ("ping flood", vec![repeat(ping.repeat(200), QUICKLY, 100)], TOO_MUCH),
        ("slow message", vec![send(long), trickle("x", SLOWLY, 200)], TOO_MUCH),
        ("half a message", vec![send(half)], SILENT),
        ("half a frame", vec![raw(0x82, &[0xfe, 4, 0], b"xx")], SILENT),
        ("pings not answered", vec![], SILENT),
        ("echoes not read", vec![send(many)], SILENT),
    ];
    rows.map(|(name, steps, end)| (name, websocket("/echo", steps), end)).into()
}

/// Commands of the channels' protocol: too many, too large, too deep.
fn commands() -> Vec<Row> {
    const TOO_FAST: End = End::ByServer(&[code(1008)]);
    // Many at a time: the pace of single ones is within the server's limit.
    let flood = |command: String| {
        let commands = frame(MessageKind::Text.opcode(), command.as_bytes()).repeat(200);
        vec![repeat(commands, QUICKLY, 100)]
    };
    let publish = |data: &str| channel::publish("abuse", data, None);
    let paced = frame(MessageKind::Text.opcode(), publish("1").as_bytes());
    let huge = publish(&format!("\"{}\"", "x".repeat(200_000)));
    let deep = publish(&"[".repeat(50_000));
    let rows = [
        ("subscribe flood", flood(channel::subscribe("abuse", None)), TOO_FAST),
        ("publish flood", flood(publish("1")), TOO_FAST),
        ("publish at the limit", vec![repeat(paced, QUICKLY, 150)], End::Fin),
        ("huge JSON", vec![text(huge), expect_text("bad_publication")], End::Fin),
        ("deep JSON", vec![text(deep), expect_text("bad_json")], End::Reset),
    ];
    rows.map(|(name, steps, end)| (name, websocket("/ws", steps), end)).into()
}

/// Connections that are not used, or not for long.
fn short() -> Vec<Row> {
    let half = "GET /ws HTTP/1.1\r\nHost: murre\r\nUpgrade: webs";
    vec![
        ("connect and reset", vec![], End::Reset),
        ("connect and close", vec![], End::Fin),
        ("half a head, closed", vec![send(half)], End::Fin),
        ("half a head, reset", vec![send(half)], End::Reset),
        ("handshake and reset", open("/ws").to_vec(), End::Reset),
        ("handshake and close", open("/ws").to_vec(), End::Fin),
        ("request and reset", vec![send(get("/healthz")), expect_status(200)], End::Reset),
    ]
}

/// Bytes that look random and are no HTTP.
fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(5);
    std::iter::repeat_with(|| rng.u8(0x80..)).take(bytes).collect()
}

/// Time between the bytes of slow connections.
const SLOWLY: Duration = Duration::from_millis(200);

/// Time between the pieces of fast connections: a tick or two of the timers.
const QUICKLY: Duration = Duration::from_millis(10);
