//! A small application on `Serve`, and the input and output of its clients.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use murre_codec::handshake::{self, Upgrade};
use murre_codec::http::{self, Request, Response, ResponseDecoder, ResponseOptions};
use murre_codec::{Close, CloseCode, Control, Data, Decoder, Item, Kind, OpCode, encode};
use murre_codec::{FrameLimits, Role};
use murre_core::{
    Answer, CloseReason, ConnId, Handler, Message, Opened, Outbox, Queued, RequestKind, Serve,
    ServeLimits, ServeMail, ShardConfig,
};

use crate::watched::Drained;
use crate::world::Setup;

/// The protocol of a shard under test.
/// A response after which the connection is kept.
const KEPT: ResponseOptions<'_> =
    ResponseOptions { to_head: false, keep_alive: true, minor_version: 1, date: None };
/// A response that ends the connection.
const LAST: ResponseOptions<'_> = ResponseOptions { keep_alive: false, ..KEPT };

pub(crate) type Server = Serve<App>;

/// Echoes messages and bodies; `timer=MILLISECONDS` sets the session's timer, `timer=` clears it.
/// The response to `/n?length=` has that many bytes. `/later` is answered with the next mail, which
/// every WebSocket receives too, unless the mail is empty or the shard is draining; `/never` is a
/// stream of all mail.
#[derive(Default)]
pub(crate) struct App {
    pub(crate) open: Vec<ConnId>,
    pub(crate) closed: Vec<CloseReason>,
    /// Requests without a complete response, and whether it must end.
    pub(crate) later: Vec<(ConnId, bool)>,
    pub(crate) waited: usize,
    pub(crate) drained: usize,
    /// When the sessions' timers were set, for how long, and when they expired.
    pub(crate) timers: Vec<(Instant, Duration, Instant)>,
    /// The timers that are set now.
    set: HashMap<ConnId, (Instant, Duration)>,
    /// A request that waits for a ping interval gets an empty response.
    impatient: bool,
    /// The number of opened sessions, and of messages received.
    pub(crate) opened: usize,
    pub(crate) messages: u64,
    /// The number of requests offered; a request that was held counts once.
    pub(crate) requests: u64,
    /// How the application holds connections.
    holding: Holding,
    /// The connections that it holds, and until when.
    held: VecDeque<(Instant, ConnId)>,
    /// The connections whose held request is counted already.
    asked: HashSet<ConnId>,
    /// A deliberate mistake that the tests must find.
    mistake: Option<Mistake>,
}

/// When an application holds connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Holding {
    #[default]
    Never,
    /// On some requests and messages, for less than a fifth of a second.
    Some,
    /// On every request and message, until the mail [`RELEASE`].
    All,
}

/// Mail that the application does not publish: [`HOLD`] holds every WebSocket, and [`RELEASE`]
/// releases every held connection.
pub(crate) const HOLD: &[u8] = b"hold";
pub(crate) const RELEASE: &[u8] = b"release";
/// A time longer than any test.
const LONG: Duration = Duration::from_secs(1 << 20);

/// A mistake of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// It does not echo some messages.
    LosesMessages,
    /// It echoes some messages twice.
    RepeatsMessages,
    /// It does not send the mail to some of its receivers.
    LosesMail,
    /// It asks for another turn at once, always.
    NeverSleeps,
    /// It keeps the state of ended sessions.
    KeepsSessions,
}

impl App {
    /// An application that answers every request after a ping interval, and makes this mistake.
    pub(crate) fn impatient(mistake: Option<Mistake>) -> Self {
        App { impatient: true, mistake, holding: Holding::Some, ..App::default() }
    }

    pub(crate) fn holding(holding: Holding) -> Self {
        App { holding, ..App::default() }
    }

    /// How long the next request or message holds its connection.
    fn hold_for(&self, asked: u64) -> Option<Duration> {
        match self.holding {
            Holding::Never => None,
            Holding::Some if asked.is_multiple_of(3) => {
                Some(Duration::from_millis(asked % 11 * 19))
            }
            Holding::Some => None,
            Holding::All => Some(LONG),
        }
    }

    fn set_timer(&mut self, id: ConnId, milliseconds: &[u8], out: &mut Outbox) {
        match std::str::from_utf8(milliseconds).ok().and_then(|text| text.parse().ok()) {
            Some(milliseconds) => {
                let span = Duration::from_millis(milliseconds);
                self.set.insert(id, (out.now(), span));
                out.set_session_timer(id, span);
            }
            None => {
                self.set.remove(&id);
                out.clear_session_timer(id);
            }
        }
    }

    fn hold(&mut self, id: ConnId, span: Duration, out: &mut Outbox) {
        out.hold(id);
        self.held.push_back((out.now() + span, id));
    }

    fn release(&mut self, until: Instant, out: &mut Outbox) {
        self.held.retain(|&(end, id)| {
            let over = end <= until;
            if over {
                out.release(id);
            }
            !over
        });
    }

    fn later(&mut self, id: ConnId, ends: bool) -> Answer<u32> {
        self.later.push((id, ends));
        self.opened += 1;
        if ends { Answer::Later(id.index()) } else { Answer::Stream(id.index()) }
    }
}

impl Handler for App {
    type Session = u32;
    type Mail = Bytes;

    fn admits(&mut self, id: ConnId, _request: &Request<'_, '_>, out: &mut Outbox) -> bool {
        if self.asked.remove(&id) {
            return true;
        }
        self.requests += 1;
        let Some(span) = self.hold_for(self.requests) else { return true };
        self.asked.insert(id);
        self.hold(id, span, out);
        false
    }

    fn kind(&self, request: &Request<'_, '_>) -> RequestKind {
        match request.path() {
            "/health" => RequestKind::HealthCheck,
            "/later" | "/never" => RequestKind::Session,
            "/continues" => RequestKind::Continues,
            _ => RequestKind::Plain,
        }
    }

    fn request(&mut self, id: ConnId, request: &Request<'_, '_>, _out: &mut Outbox) -> Answer<u32> {
        Answer::Now(match (request.method, request.path()) {
            ("GET", "/later") => return self.later(id, true),
            ("GET", "/never") => return self.later(id, false),
            ("GET", "/health" | "/continues") => Response::text(200, "ok\n"),
            ("POST", "/") => Response::text(200, Bytes::copy_from_slice(request.body)),
            ("GET" | "HEAD", "/n") => {
                let length = request.query("length").and_then(|length| length.parse().ok());
                Response::text(200, body(length.unwrap_or(0)))
            }
            _ => Response::text(404, "not found\n"),
        })
    }

    fn open(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        _upgrade: &Upgrade<'_>,
        _out: &mut Outbox,
    ) -> Result<Opened<u32>, Response> {
        if request.path() == "/refused" {
            return Err(Response::text(403, "no\n"));
        }
        self.open.push(id);
        self.opened += 1;
        Ok(Opened::new(id.index()))
    }

    fn message(&mut self, id: ConnId, session: &mut u32, message: Message<'_>, out: &mut Outbox) {
        assert_eq!(*session, id.index(), "the session is the connection's own");
        assert_eq!(out.peer(id), None, "it takes memory, and the first request is answered");
        self.messages += 1;
        let copies = match self.mistake {
            Some(Mistake::LosesMessages) if self.messages.is_multiple_of(5) => 0,
            Some(Mistake::RepeatsMessages) if self.messages.is_multiple_of(5) => 2,
            _ => 1,
        };
        match &*message.bytes {
            [b't', b'i', b'm', b'e', b'r', b'=', span @ ..] => self.set_timer(id, span, out),
            b"close" => out.close_websocket(id, CloseCode::Normal, "asked", CloseReason::Finished),
            bytes => (0..copies).for_each(|copy| {
                let queued = out.message(id, message.kind, bytes);
                assert!(queued != Queued::Gone || copy > 0);
            }),
        }
        if let Some(span) = self.hold_for(self.messages) {
            self.hold(id, span, out);
        }
    }

    fn answered(&self, id: ConnId, session: &u32) -> bool {
        assert_eq!(*session, id.index(), "the session is the connection's own");
        !self.later.iter().any(|&(later, _)| later == id)
    }

    fn waited(&mut self, id: ConnId, _session: &mut u32, out: &mut Outbox) {
        self.waited += 1;
        if self.impatient {
            let response = Response::text(200, "");
            // The connection may be closing already.
            let _ = out.write(id, |bytes| response.write(bytes, &KEPT));
            self.later.retain(|&(later, ends)| later != id || !ends);
        }
    }

    fn timer(&mut self, id: ConnId, session: &mut u32, out: &mut Outbox) {
        assert_eq!(*session, id.index(), "the session is the connection's own");
        let (set, span) = self.set.remove(&id).expect("it was set and not cleared");
        self.timers.push((set, span, out.now()));
        let _ = out.message(id, Kind::Text, b"time is up");
    }

    fn leave(&mut self, id: ConnId, _session: &mut u32, out: &mut Outbox) {
        match self.later.iter().position(|&later| later == (id, true)) {
            Some(at) => {
                self.later.remove(at);
                let response = Response::text(200, "drained");
                let _ = out.write(id, |bytes| response.write(bytes, &LAST));
            }
            None => out.close_restart(id),
        }
    }

    fn drained(&mut self, _id: ConnId, _session: &mut u32, _out: &mut Outbox) {
        self.drained += 1;
    }

    fn close(&mut self, id: ConnId, session: u32, reason: CloseReason, _out: &mut Outbox) {
        assert_eq!(session, id.index(), "the session is the connection's own");
        if self.mistake != Some(Mistake::KeepsSessions) {
            self.open.retain(|&open| open != id);
        }
        self.later.retain(|&(later, _)| later != id);
        self.set.remove(&id);
        self.closed.push(reason);
    }

    fn mail(&mut self, mail: Bytes, out: &mut Outbox) {
        match &mail[..] {
            HOLD => return self.open.clone().iter().for_each(|&id| self.hold(id, LONG, out)),
            RELEASE => return self.release(out.now() + LONG, out),
            _ => {}
        }
        self.later.retain(|&(id, ends)| {
            let response = Response::text(200, mail.clone());
            // Some connections are closing already.
            let _ = out.write(id, |bytes| response.write(bytes, &KEPT));
            !ends
        });
        let frame = encode::frame(OpCode::Data(Data::Text), &mail);
        for (at, &id) in self.open.iter().enumerate() {
            if self.mistake == Some(Mistake::LosesMail) && at == 1 {
                continue;
            }
            // Some connections are closing already.
            let _ = out.send(id, &frame);
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        self.release(out.now(), out);
    }

    fn wake_at(&self) -> Option<Instant> {
        let released = self.held.iter().map(|&(end, _)| end).min();
        let never = (self.mistake == Some(Mistake::NeverSleeps)).then(Instant::now);
        never.or(released)
    }
}

impl Drained for Server {
    fn drain(over: Duration) -> ServeMail<Bytes> {
        ServeMail::Drain(over)
    }
}

/// Time limits that a test can wait for, in ticks of the simulated clock.
pub(crate) fn limits() -> ServeLimits {
    ServeLimits {
        max_message_bytes: 100_000,
        handshake_timeout: Duration::from_secs(1),
        http_idle_timeout: Duration::from_secs(4),
        ping_interval: Duration::from_secs(8),
        pong_timeout: Duration::from_secs(2),
        ..ServeLimits::default()
    }
}

pub(crate) fn serve() -> Server {
    Serve::new(App::default(), limits())
}

/// A server for tests on the kernel, with limits that never expire.
pub(crate) fn serve_patiently() -> Server {
    Serve::new(App::default(), ServeLimits { max_message_bytes: 100_000, ..Default::default() })
}

pub(crate) const TICK: Duration = Duration::from_millis(100);

pub(crate) fn setup() -> Setup {
    let linger = Duration::from_secs(1);
    let shard = ShardConfig { max_conns: 64, tick: TICK, linger, ..ShardConfig::default() };
    Setup { shard, seeds: 40, ..Setup::default() }
}

pub(crate) fn body(length: usize) -> Bytes {
    (0..length).map(|at| b'a' + (at % 26) as u8).collect()
}

pub(crate) fn get(length: usize) -> Vec<u8> {
    format!("GET /n?length={length} HTTP/1.1\r\nHost: murre\r\n\r\n").into_bytes()
}

pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub(crate) fn handshake(target: &str) -> Vec<u8> {
    let mut out = Vec::new();
    handshake::request(&mut out, "murre", target, KEY, None);
    out
}

/// A whole masked frame of a client.
pub(crate) fn said(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::write_frame(&mut out, opcode, payload, Some([1, 2, 3, 4]));
    out
}

pub(crate) fn text(payload: &str) -> Vec<u8> {
    said(OpCode::Data(Data::Text), payload.as_bytes())
}

/// A message with one frame for each piece.
pub(crate) fn fragmented(pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let first = if at == 0 { Data::Binary } else { Data::Continue };
        let mut frame = said(OpCode::Data(first), piece);
        if at + 1 < pieces.len() {
            frame[0] &= 0x7F;
        }
        out.extend(frame);
    }
    out
}

pub(crate) fn close(code: CloseCode) -> Vec<u8> {
    let mut out = Vec::new();
    encode::write_close(&mut out, code, "", Some([4, 3, 2, 1]));
    out
}

pub(crate) fn control(control: Control, payload: &[u8]) -> Vec<u8> {
    said(OpCode::Control(control), payload)
}

/// The parsed output of the shard to one client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Understood {
    /// The status and body of each response, in order; a 101 is the last.
    pub(crate) responses: Vec<(u16, Vec<u8>)>,
    /// Messages, in order.
    pub(crate) messages: Vec<(Kind, Vec<u8>)>,
    pub(crate) pings: usize,
    pub(crate) pongs: Vec<Vec<u8>>,
    pub(crate) close: Option<Option<CloseCode>>,
    /// The reason text of the close frame.
    pub(crate) goodbye: String,
}

/// Parses all complete responses and frames from the server.
pub(crate) fn understand(heard: &[u8]) -> Understood {
    let mut understood = Understood::default();
    let mut rest = heard;
    while !rest.is_empty() {
        if understood.responses.last().is_some_and(|&(status, _)| status == 101) {
            understand_frames(&mut rest.to_vec(), &mut understood);
            break;
        }
        let mut fields = http::fields();
        let mut decoder = ResponseDecoder::default();
        let received = decoder.decode(rest, &mut fields).expect("a response");
        let Some(received) = received else { break };
        if received.status == 101 {
            assert!(handshake::accepted(&received, KEY), "the key is not accepted");
        }
        understood.responses.push((received.status, received.body.to_vec()));
        rest = &rest[received.size..];
    }
    understood
}

fn understand_frames(mut rest: &mut [u8], understood: &mut Understood) {
    let limits = FrameLimits { role: Role::Client, max_message_bytes: 1 << 20 };
    let mut decoder = Decoder::default();
    let mut message = Vec::new();
    loop {
        let decoded = decoder.decode(rest, &limits).expect("frames");
        let consumed = decoded.consumed;
        match decoded.item {
            None if consumed == 0 => return,
            None => {}
            Some(Item::Data { kind, bytes, end, .. }) => {
                message.extend_from_slice(bytes);
                if end {
                    understood.messages.push((kind, std::mem::take(&mut message)));
                }
            }
            Some(Item::Ping(_)) => understood.pings += 1,
            Some(Item::Pong(payload)) => understood.pongs.push(payload.to_vec()),
            Some(Item::Close(close)) => {
                assert!(understood.close.is_none(), "closed twice");
                understood.close = Some(close.map(|Close { code, reason }| {
                    understood.goodbye = reason.into();
                    code
                }));
            }
        }
        rest = &mut rest[consumed..];
    }
}
