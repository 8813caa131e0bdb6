//! Visitors: connections that come one after the other, as many at a time as there are places, each
//! to do what its [`Visit`] says and to end as it says. What they do is bounded, so that on one machine
//! with the server they do not win by taking the processors from it: each connect, and each 64 KiB or
//! less that is said, takes a token, of which there are so many a second. Who is here says what it has
//! to say, on credit if need be; nobody else comes until that is paid.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use murre_codec::{Control, Decoded, Decoder, Item, Limits, OpCode, Role};
use murre_core::{CloseReason, ConnId, Outbox, Protocol, Queued};
use murre_record::VisitFacts;

use crate::client::channel::Gather;
use crate::client::visit::{End, Speech, Step, Visit, Word, frame};
use crate::client::ws::Piece;
use crate::engine::crew::{Kit, Scored};
use crate::engine::fleet::{Event, Order, Share};
use crate::engine::score::{Fault, Score};
use crate::run::act::Act;

/// How the visits ended, for the main thread to see.
pub(crate) struct Board(Vec<Count>);

#[derive(Default)]
struct Count {
    name: String,
    begun: AtomicU64,
    as_it_must: AtomicU64,
    otherwise: AtomicU64,
    /// The first that ended otherwise, in words.
    first_otherwise: OnceLock<String>,
}

impl Board {
    pub(crate) fn new(visits: &[Visit]) -> Board {
        let count = |visit: &Visit| Count { name: visit.name.clone(), ..Count::default() };
        Board(visits.iter().map(count).collect())
    }

    pub(crate) fn facts(&self) -> BTreeMap<String, VisitFacts> {
        let facts = |count: &Count| VisitFacts {
            begun: count.begun.load(Ordering::Relaxed),
            as_it_must: count.as_it_must.load(Ordering::Relaxed),
            otherwise: count.otherwise.load(Ordering::Relaxed),
            first_otherwise: count.first_otherwise.get().cloned(),
        };
        self.0.iter().map(|count| (count.name.clone(), facts(count))).collect()
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The pace.
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

/// One shard's visitors.
pub(crate) struct Visitors {
    visits: Arc<Vec<Visit>>,
    board: Arc<Board>,
    share: Share,
    /// What is waited for at most, be it a word or the end.
    patience: Duration,
    events: Sender<Event>,
    score: Score,
    tokens: Tokens,
    limits: Limits,
    /// Whether they come.
    open: bool,
    /// Connects begun, and visits.
    begun: u64,
    visited: u64,
    /// Connects that have not come to anything yet.
    coming: u32,
    resume_at: Option<Instant>,
}

/// What is kept of one visitor.
pub(crate) struct State {
    /// Which of the visits it makes.
    visit: u32,
    step: u32,
    /// Pieces of the step that were said.
    said: u32,
    ear: Ear,
    /// What the server has said last that ends something.
    last: Option<Word>,
    /// The timer is for what the server owes, not for the next step.
    waits: bool,
    /// It has been counted how it ended.
    counted: bool,
}

enum Ear {
    Http,
    Frames(Decoder, Gather),
}

impl Visitors {
    /// What one takes up in user memory while it says nothing.
    pub(crate) const VISITOR_BYTES: usize =
        murre_core::CONN_BYTES + murre_core::TIMER_BYTES + size_of::<Option<State>>();

    pub(crate) fn new(
        visits: Arc<Vec<Visit>>,
        board: Arc<Board>,
        per_second: f64,
        patience: Duration,
        (score, share, events): Kit,
    ) -> Visitors {
        Visitors {
            visits,
            board,
            share,
            patience,
            events,
            score,
            tokens: Tokens { per_second, left: 0.0, refilled: Instant::now() },
            limits: Limits { role: Role::Client, message_bytes_max: 1 << 24 },
            open: false,
            begun: 0,
            visited: 0,
            coming: 0,
            resume_at: None,
        }
    }

    /// As many come as there are places and tokens for.
    fn come(&mut self, out: &mut Outbox) {
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
                self.coming += 1;
            }
        }
    }

    // ---- one visit ----

    fn go_on(&mut self, id: ConnId, state: &mut State, out: &mut Outbox) {
        let visits = Arc::clone(&self.visits);
        let visit = &visits[state.visit as usize];
        state.waits = false;
        loop {
            match visit.steps.get(state.step as usize) {
                Some(Step::Say(speech)) => {
                    if self.say(id, state, speech, out) {
                        return;
                    }
                }
                Some(Step::Hear(_)) => return self.wait(id, state, out),
                None => break,
            }
        }
        match visit.end {
            End::Theirs(_) => self.wait(id, state, out),
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
        out.set_timer(id, out.ticks(self.patience));
    }

    /// Says the next piece. Whether the rest of the visit is for later.
    fn say(&mut self, id: ConnId, state: &mut State, speech: &Speech, out: &mut Outbox) -> bool {
        let Speech { bytes, piece_bytes, every, pieces } = speech;
        self.tokens.left -= (*piece_bytes as f64 / TOKEN_BYTES).max(1.0);
        let at = state.said as usize * piece_bytes % bytes.len();
        let piece = &bytes[at..bytes.len().min(at + piece_bytes)];
        if out.write(id, |out| out.extend_from_slice(piece)) != Queued::Yes {
            return true;
        }
        state.said += 1;
        if state.said == *pieces {
            (state.step, state.said) = (state.step + 1, 0);
            return false;
        }
        out.set_timer(id, out.ticks(*every));
        true
    }

    /// The server has said something.
    fn heard(&mut self, id: ConnId, state: &mut State, word: Word, out: &mut Outbox) {
        if matches!(word, Word::Status(_) | Word::Close(_)) {
            state.last = Some(word);
        }
        let visits = Arc::clone(&self.visits);
        let step = visits[state.visit as usize].steps.get(state.step as usize);
        if let Some(Step::Hear(wanted)) = step
            && *wanted == word
        {
            state.step += 1;
            self.go_on(id, state, out);
        }
        // A goodbye is answered by an end: it was the last word.
        if let Word::Close(_) = word {
            self.ended(state, "");
            out.close(id, CloseReason::Finished);
        }
    }

    /// What is waited for in a text, if it is in this one. Gives where it ends.
    fn heard_text(&self, state: &State, text: &[u8]) -> Option<(Word, usize)> {
        match self.visits[state.visit as usize].steps.get(state.step as usize) {
            Some(&Step::Hear(Word::Text(wanted))) => {
                let at = find(text, wanted.as_bytes())?;
                Some((Word::Text(wanted), at + wanted.len()))
            }
            _ => None,
        }
    }

    /// Heads of answers, and texts in what is between them. What may be the beginning of either is
    /// left for later.
    fn hear_http(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let mut at = 0;
        while out.is_open(id) && matches!(state.ear, Ear::Http) {
            let rest = &input[at..];
            let head = find(rest, b"HTTP/1.1 ");
            let before = &rest[..head.unwrap_or(rest.len())];
            if let Some((word, end)) = self.heard_text(state, before) {
                at += end;
                self.heard(id, state, word, out);
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
                state.ear = Ear::Frames(Decoder::default(), Gather::default());
            }
            self.heard(id, state, Word::Status(status), out);
        }
        at
    }

    fn hear_frame(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let Ear::Frames(decoder, gather) = &mut state.ear else { return 0 };
        let Ok(Decoded { consumed, item }) = decoder.decode(input, &self.limits) else {
            self.otherwise(state, "the server broke the rules of WebSocket");
            out.abort(id, CloseReason::Finished);
            return input.len();
        };
        match item {
            None => {}
            Some(Item::Data { kind, bytes, end, .. }) => {
                let piece = Piece { kind, bytes, end };
                if let Some(text) = gather.add(&piece).map(|text| text.into_owned())
                    && let Some((word, _)) = self.heard_text(state, &text)
                {
                    self.heard(id, state, word, out);
                }
            }
            // Who waits for the end is not there for it.
            Some(Item::Ping(_)) if self.waits_for_end(state) => {}
            Some(Item::Ping(payload)) => {
                let pong = frame(OpCode::Control(Control::Pong), payload);
                let _ = out.write(id, |out| out.extend_from_slice(&pong));
            }
            Some(Item::Pong(_)) => self.heard(id, state, Word::Pong, out),
            Some(Item::Close(close)) => {
                let code = close.map_or(1005, |close| u16::from(close.code));
                self.heard(id, state, Word::Close(code), out);
            }
        }
        consumed
    }

    fn waits_for_end(&self, state: &State) -> bool {
        state.step as usize == self.visits[state.visit as usize].steps.len()
    }

    // ---- how it ended ----

    /// The server has ended it.
    fn ended(&self, state: &mut State, how: &str) {
        let visit = &self.visits[state.visit as usize];
        let last = match (&state.ear, state.last) {
            // The upgrade was no last word.
            (Ear::Frames(..), Some(Word::Status(_))) => None,
            (_, last) => last,
        };
        match visit.end {
            End::Theirs(words) if words.contains(&last) => self.count(state, None),
            _ => {
                let last = last.map_or("nothing".to_owned(), |word| word.to_string());
                self.otherwise(state, &format!("ended by the server with {last} {how}"));
            }
        }
    }

    fn otherwise(&self, state: &mut State, what: &str) {
        let steps = self.visits[state.visit as usize].steps.len();
        let text = format!("{} at step {} of {steps}", what.trim_end(), state.step);
        self.count(state, Some(text));
    }

    fn count(&self, state: &mut State, otherwise: Option<String>) {
        if std::mem::replace(&mut state.counted, true) {
            return;
        }
        let count = &self.board.0[state.visit as usize];
        match otherwise {
            None => one_more(&count.as_it_must),
            Some(text) => {
                one_more(&count.otherwise);
                count.first_otherwise.get_or_init(|| text);
            }
        }
    }
}

impl Scored for Visitors {
    fn score(&self) -> &Score {
        &self.score
    }
}

impl Protocol for Visitors {
    type State = State;
    type Mail = Order;

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, out: &mut Outbox) -> State {
        self.coming -= 1;
        let visit = (self.visited % self.visits.len() as u64) as u32;
        self.visited += 1;
        one_more(&self.board.0[visit as usize].begun);
        let (ear, last) = (Ear::Http, None);
        let mut state = State { visit, step: 0, said: 0, ear, last, waits: false, counted: false };
        if self.open {
            self.go_on(id, &mut state, out);
        } else {
            out.abort(id, CloseReason::Finished);
        }
        state
    }

    fn refused(&mut self, _id: ConnId, errno: i32, _out: &mut Outbox) {
        self.coming -= 1;
        self.score.fault(Fault::Refused, std::io::Error::from_raw_os_error(errno));
    }

    fn received(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let mut at = self.hear_http(id, state, input, out);
        while out.is_open(id) && matches!(state.ear, Ear::Frames(..)) {
            let consumed = self.hear_frame(id, state, &mut input[at..], out);
            if consumed == 0 {
                break;
            }
            at += consumed;
        }
        at
    }

    fn expired(&mut self, id: ConnId, state: &mut State, out: &mut Outbox) {
        if state.waits {
            self.otherwise(state, "the server does not come to it");
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
            Order::Start | Order::Begin | Order::Look => {}
            Order::Act(act) => {
                self.score.act(out.now(), false);
                self.open = act == Act::Visit;
                self.tokens.refilled = out.now();
                if !self.open {
                    let all = (0..self.share.conns).filter_map(|index| out.at(index));
                    for id in all.collect::<Vec<_>>() {
                        out.abort(id, CloseReason::Finished);
                    }
                }
            }
            Order::Finish => {
                // The main thread listens for as long as there are shards.
                let _ = self.events.send(Event::Finished);
            }
            Order::Leave { .. } => out.stop(),
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        self.tokens.refill(out.now());
        self.come(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.resume_at
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// What one token is good for.
const TOKEN_BYTES: f64 = 65536.0;

/// How much of a second's tokens may be saved up.
const BURST_SECONDS: f64 = 0.1;

const PACE_MIN: Duration = Duration::from_millis(1);

/// The longest word, less a byte: a part of it may be at the end of what has arrived.
const KEPT_BYTES: usize = 31;
