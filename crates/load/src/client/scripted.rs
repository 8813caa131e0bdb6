//! Connections that follow a [`Script`] and end, one after the other, so many at a time. Their rate is
//! bounded, so that on one machine with the server they do not win by taking its processors: each connect
//! and each 64 KiB or less that is sent takes a token, of which there are so many a second. A connection
//! that is open sends what its script says, on credit if need be; no other one opens until that is paid.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use murre_codec::{Control, Decoded, Decoder, FrameLimits, Item, OpCode, Role};
use murre_core::{CloseReason, ConnId, Outbox, Protocol, Queued};
use murre_record::VisitFacts;

use crate::client::channel::MessageBuffer;
use crate::client::script::{Chunks, End, Reply, Script, Step, frame};
use crate::client::ws::Piece;
use crate::engine::orders::{Event, Order, Phase};
use crate::engine::score::{Fault, Score};
use crate::engine::share::Share;
use crate::engine::{Scored, WorkerParts};

/// The scripts of a run, and how often each ended how.
pub(crate) struct Scripts(Vec<(Script, Count)>);

#[derive(Default)]
struct Count {
    begun: AtomicU64,
    as_it_must: AtomicU64,
    otherwise: AtomicU64,
    /// How the first of those ended.
    first_otherwise: OnceLock<String>,
}

impl Scripts {
    pub(crate) fn new(scripts: Vec<Script>) -> Scripts {
        Scripts(scripts.into_iter().map(|script| (script, Count::default())).collect())
    }

    pub(crate) fn facts(&self) -> BTreeMap<String, VisitFacts> {
        let facts = |count: &Count| VisitFacts {
            begun: count.begun.load(Ordering::Relaxed),
            as_it_must: count.as_it_must.load(Ordering::Relaxed),
            otherwise: count.otherwise.load(Ordering::Relaxed),
            first_otherwise: count.first_otherwise.get().cloned(),
        };
        self.0.iter().map(|(script, count)| (script.name.clone(), facts(count))).collect()
    }

    fn script(&self, index: u32) -> &Script {
        &self.0[index as usize].0
    }

    fn count(&self, index: u32) -> &Count {
        &self.0[index as usize].1
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The rate limit.
struct Tokens {
    per_second: f64,
    left: f64,
    refilled: Instant,
}

impl Tokens {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.left = (self.left + passed * self.per_second).min(self.per_second * BURST_SECONDS);
    }

    fn next_at(&self) -> Instant {
        let missing = (-self.left).max(0.0) / self.per_second;
        self.refilled + Duration::from_secs_f64(missing) + PACE_MIN
    }
}

/// One worker's connections.
pub(crate) struct ScriptedPeers {
    scripts: Arc<Scripts>,
    share: Share,
    /// How long the server may take for a reply, or to end a connection.
    timeout: Duration,
    events: Sender<Event>,
    score: Score,
    tokens: Tokens,
    limits: FrameLimits,
    /// Whether connections open.
    open: bool,
    /// Connects begun, and connections opened.
    begun: u64,
    visited: u64,
    /// Connects that are in progress.
    opening: u32,
    resume_at: Option<Instant>,
}

/// The state of one connection.
pub(crate) struct State {
    script: u32,
    step: u32,
    /// Pieces of the step that were sent.
    sent: u32,
    reader: Reader,
    /// The last status or close code of the server.
    last: Option<Reply>,
    /// The timer is for the server, not for the next step.
    waits: bool,
    /// Its end has been counted.
    counted: bool,
}

enum Reader {
    Http,
    Frames(Decoder, MessageBuffer),
}

impl ScriptedPeers {
    /// User memory of one connection that sends nothing.
    pub(crate) const PEER_BYTES: usize =
        murre_core::CONN_BYTES + murre_core::TIMER_BYTES + size_of::<Option<State>>();

    pub(crate) fn new(
        scripts: Arc<Scripts>,
        per_second: f64,
        timeout: Duration,
        WorkerParts { score, share, events }: WorkerParts,
    ) -> ScriptedPeers {
        ScriptedPeers {
            scripts,
            share,
            timeout,
            events,
            score,
            tokens: Tokens { per_second, left: 0.0, refilled: Instant::now() },
            limits: FrameLimits { role: Role::Client, max_message_bytes: 1 << 24 },
            open: false,
            begun: 0,
            visited: 0,
            opening: 0,
            resume_at: None,
        }
    }

    /// Opens as many as there are places and tokens for.
    fn open_more(&mut self, out: &mut Outbox) {
        self.resume_at = None;
        while self.open && out.live() < self.share.conns {
            if self.tokens.left <= 0.0 {
                self.resume_at = Some(self.tokens.next_at());
                return;
            }
            let (to, from) = self.share.routes.route(self.begun);
            self.begun += 1;
            self.tokens.left -= 1.0;
            if out.connect(to, from).is_some() {
                self.opening += 1;
            }
        }
    }

    // ---- one connection ----

    fn go_on(&mut self, id: ConnId, state: &mut State, out: &mut Outbox) {
        let scripts = Arc::clone(&self.scripts);
        let script = scripts.script(state.script);
        state.waits = false;
        loop {
            match script.steps.get(state.step as usize) {
                Some(Step::Send(chunks)) => {
                    if self.send(id, state, chunks, out) {
                        return;
                    }
                }
                Some(Step::Expect(_)) => return self.wait(id, state, out),
                None => break,
            }
        }
        match script.end {
            End::ByServer(_) => self.wait(id, state, out),
            End::Fin => {
                self.count(state, None);
                out.close(id, CloseReason::Finished);
            }
            End::Reset => {
                self.count(state, None);
                out.abort(id, CloseReason::Finished);
            }
        }
    }

    fn wait(&self, id: ConnId, state: &mut State, out: &mut Outbox) {
        state.waits = true;
        out.set_timer(id, out.ticks(self.timeout));
    }

    /// Sends the next piece. Returns whether the rest of the script is for later.
    fn send(&mut self, id: ConnId, state: &mut State, chunks: &Chunks, out: &mut Outbox) -> bool {
        let Chunks { bytes, piece_bytes, every, pieces } = chunks;
        self.tokens.left -= (*piece_bytes as f64 / TOKEN_BYTES).max(1.0);
        let at = state.sent as usize * piece_bytes % bytes.len();
        let piece = &bytes[at..bytes.len().min(at + piece_bytes)];
        if out.write(id, |out| out.extend_from_slice(piece)) != Queued::Yes {
            return true;
        }
        state.sent += 1;
        if state.sent == *pieces {
            (state.step, state.sent) = (state.step + 1, 0);
            return false;
        }
        out.set_timer(id, out.ticks(*every));
        true
    }

    /// The server has replied.
    fn replied(&mut self, id: ConnId, state: &mut State, reply: Reply, out: &mut Outbox) {
        if matches!(reply, Reply::Status(_) | Reply::Close(_)) {
            state.last = Some(reply);
        }
        let scripts = Arc::clone(&self.scripts);
        let step = scripts.script(state.script).steps.get(state.step as usize);
        if let Some(Step::Expect(wanted)) = step
            && *wanted == reply
        {
            state.step += 1;
            self.go_on(id, state, out);
        }
        // A close frame is answered by closing.
        if let Reply::Close(_) = reply {
            self.ended(state, "");
            out.close(id, CloseReason::Finished);
        }
    }

    /// The expected text, if it is in this one, and where it ends.
    fn expected_text(&self, state: &State, text: &[u8]) -> Option<(Reply, usize)> {
        match self.scripts.script(state.script).steps.get(state.step as usize) {
            Some(&Step::Expect(Reply::Text(wanted))) => {
                let at = find(text, wanted.as_bytes())?;
                Some((Reply::Text(wanted), at + wanted.len()))
            }
            _ => None,
        }
    }

    /// Reads heads of answers, and expected texts between them. The beginning of either may be at the end
    /// of the input, which is left for later.
    fn read_http(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let mut at = 0;
        while out.is_open(id) && matches!(state.reader, Reader::Http) {
            let rest = &input[at..];
            let head = find(rest, b"HTTP/1.1 ");
            let before = &rest[..head.unwrap_or(rest.len())];
            if let Some((reply, end)) = self.expected_text(state, before) {
                at += end;
                self.replied(id, state, reply, out);
                continue;
            }
            let Some(head) = head else { return at + rest.len().saturating_sub(KEPT_BYTES) };
            let digits =
                rest.get(head + 9..head + 12).and_then(|digits| str::from_utf8(digits).ok());
            let Some(status) = digits.and_then(|digits| digits.parse().ok()) else {
                return at + head;
            };
            at += head + 12;
            if status == 101 {
                let Some(end) = find(&input[at..], b"\r\n\r\n") else { return at - 12 };
                at += end + 4;
                state.reader = Reader::Frames(Decoder::default(), MessageBuffer::default());
            }
            self.replied(id, state, Reply::Status(status), out);
        }
        at
    }

    fn read_frame(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let Reader::Frames(decoder, buffer) = &mut state.reader else { return 0 };
        let Ok(Decoded { consumed, item }) = decoder.decode(input, &self.limits) else {
            self.otherwise(state, "the server broke the rules of WebSocket");
            out.abort(id, CloseReason::Finished);
            return input.len();
        };
        match item {
            None => {}
            Some(Item::Data { kind, bytes, end, .. }) => {
                let piece = Piece { kind, bytes, end };
                if let Some(text) = buffer.add(&piece).map(|text| text.into_owned())
                    && let Some((reply, _)) = self.expected_text(state, &text)
                {
                    self.replied(id, state, reply, out);
                }
            }
            // A connection that waits for its end does not answer.
            Some(Item::Ping(_)) if self.waits_for_end(state) => {}
            Some(Item::Ping(payload)) => {
                let pong = frame(OpCode::Control(Control::Pong), payload);
                let _ = out.write(id, |out| out.extend_from_slice(&pong));
            }
            Some(Item::Pong(_)) => self.replied(id, state, Reply::Pong, out),
            Some(Item::Close(close)) => {
                let code = close.map_or(1005, |close| u16::from(close.code));
                self.replied(id, state, Reply::Close(code), out);
            }
        }
        consumed
    }

    fn waits_for_end(&self, state: &State) -> bool {
        state.step as usize == self.scripts.script(state.script).steps.len()
    }

    // ---- ends ----

    /// The server has ended the connection.
    fn ended(&self, state: &mut State, how: &str) {
        let script = self.scripts.script(state.script);
        let last = match (&state.reader, state.last) {
            // The status 101 did not end anything.
            (Reader::Frames(..), Some(Reply::Status(_))) => None,
            (_, last) => last,
        };
        match script.end {
            End::ByServer(replies) if replies.contains(&last) => self.count(state, None),
            _ => {
                let last = last.map_or("nothing".to_owned(), |reply| reply.to_string());
                self.otherwise(state, &format!("ended by the server with {last} {how}"));
            }
        }
    }

    fn otherwise(&self, state: &mut State, what: &str) {
        let steps = self.scripts.script(state.script).steps.len();
        let text = format!("{} at step {} of {steps}", what.trim_end(), state.step);
        self.count(state, Some(text));
    }

    fn count(&self, state: &mut State, otherwise: Option<String>) {
        if std::mem::replace(&mut state.counted, true) {
            return;
        }
        let count = self.scripts.count(state.script);
        match otherwise {
            None => one_more(&count.as_it_must),
            Some(text) => {
                one_more(&count.otherwise);
                count.first_otherwise.get_or_init(|| text);
            }
        }
    }
}

impl Scored for ScriptedPeers {
    fn score(&self) -> &Score {
        &self.score
    }
}

impl Protocol for ScriptedPeers {
    type State = State;
    type Mail = Order;

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, out: &mut Outbox) -> State {
        self.opening -= 1;
        let script = (self.visited % self.scripts.0.len() as u64) as u32;
        self.visited += 1;
        one_more(&self.scripts.count(script).begun);
        let (reader, last) = (Reader::Http, None);
        let mut state =
            State { script, step: 0, sent: 0, reader, last, waits: false, counted: false };
        if self.open {
            self.go_on(id, &mut state, out);
        } else {
            out.abort(id, CloseReason::Finished);
        }
        state
    }

    fn refused(&mut self, _id: ConnId, errno: i32, _out: &mut Outbox) {
        self.opening -= 1;
        self.score.fault(Fault::Refused, std::io::Error::from_raw_os_error(errno));
    }

    fn received(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let mut at = self.read_http(id, state, input, out);
        while out.is_open(id) && matches!(state.reader, Reader::Frames(..)) {
            let consumed = self.read_frame(id, state, &mut input[at..], out);
            if consumed == 0 {
                break;
            }
            at += consumed;
        }
        at
    }

    fn expired(&mut self, id: ConnId, state: &mut State, out: &mut Outbox) {
        if state.waits {
            self.otherwise(state, "the server did not reply or close in time");
            out.abort(id, CloseReason::Finished);
        } else {
            self.go_on(id, state, out);
        }
    }

    fn closed(&mut self, _id: ConnId, mut state: State, reason: CloseReason, _out: &mut Outbox) {
        if reason != CloseReason::Finished {
            self.ended(&mut state, &format!("({})", reason.name()));
        }
    }

    fn mail(&mut self, order: Order, out: &mut Outbox) {
        match order {
            Order::Start | Order::Begin | Order::Wake => {}
            Order::Phase(phase) => {
                self.score.phase(out.now(), false);
                self.open = phase == Phase::Visit;
                self.tokens.refilled = out.now();
                if !self.open {
                    let all = (0..self.share.conns).filter_map(|index| out.at(index));
                    for id in all.collect::<Vec<_>>() {
                        out.abort(id, CloseReason::Finished);
                    }
                }
            }
            Order::Finish => {
                // The main thread receives for as long as there are workers.
                let _ = self.events.send(Event::Finished);
            }
            Order::Leave { .. } => out.stop(),
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        self.tokens.refill(out.now());
        self.open_more(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.resume_at
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Bytes that one token pays for.
const TOKEN_BYTES: f64 = 65536.0;

/// How much of a second's tokens may be saved up.
const BURST_SECONDS: f64 = 0.1;

const PACE_MIN: Duration = Duration::from_millis(1);

/// The longest expected text, less a byte: a part of it may be at the end of the input.
const KEPT_BYTES: usize = 31;
