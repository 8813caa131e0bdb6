//! One worker's scripted connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use murre_codec::{Control, OpCode};
use murre_core::{CloseReason, ConnId, Outbox, Protocol, Queued};

use super::reader::{Reader, Received};
use super::script::{Chunks, End, Reply, Step, frame};
use super::scripts::Scripts;
use crate::engine::orders::{Phase, WorkerEvent, WorkerOrder};
use crate::engine::pace::Pace;
use crate::engine::score::{Fault, Score};
use crate::engine::share::Share;
use crate::engine::{Scored, WorkerParts};

/// One worker's connections.
pub(crate) struct ScriptedPeers {
    scripts: Arc<Scripts>,
    share: Share,
    /// How long the server may take for a reply, or to end a connection.
    timeout: Duration,
    events: Sender<WorkerEvent>,
    score: Score,
    pace: Pace,
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
#[derive(Default)]
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

impl ScriptedPeers {
    /// User memory of one connection that sends nothing.
    pub(crate) const PEER_BYTES: usize =
        murre_core::CONN_BYTES + murre_core::TIMER_BYTES + size_of::<Option<State>>();

    pub(super) fn new(
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
            pace: Pace::new(per_second, BURST),
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
            if let Err(later) = self.pace.allows(out.now()) {
                self.resume_at = Some(later);
                return;
            }
            self.pace.take(1, out.now());
            let (to, from) = self.share.routes.route(self.begun);
            self.begun += 1;
            if out.connect(to, from).is_some() {
                self.opening += 1;
            }
        }
    }

    // ---- one connection ----

    fn advance(&mut self, id: ConnId, state: &mut State, out: &mut Outbox) {
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
        self.pace.take(piece_bytes.div_ceil(TOKEN_BYTES) as u32, out.now());
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
        if matches!(step, Some(Step::Expect(wanted)) if *wanted == reply) {
            state.step += 1;
            self.advance(id, state, out);
        }
        // A close frame is answered by closing.
        if let Reply::Close(_) = reply {
            self.ended(state, "");
            out.close(id, CloseReason::Finished);
        }
    }

    /// The text that the connection waits for, if its step is one.
    fn expected_text(&self, state: &State) -> Option<&'static str> {
        match self.scripts.script(state.script).steps.get(state.step as usize)? {
            Step::Expect(Reply::Text(wanted)) => Some(wanted),
            _ => None,
        }
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
        if !std::mem::replace(&mut state.counted, true) {
            self.scripts.end(state.script, otherwise);
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
    type Mail = WorkerOrder;

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, out: &mut Outbox) -> State {
        self.opening -= 1;
        let mut state = State { script: self.scripts.begin(self.visited), ..State::default() };
        self.visited += 1;
        if self.open {
            self.advance(id, &mut state, out);
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
        let mut at = 0;
        while out.is_open(id) {
            let expected = self.expected_text(state);
            let Ok((consumed, received)) = state.reader.read(&mut input[at..], expected) else {
                self.otherwise(state, "the server broke the rules of WebSocket");
                out.abort(id, CloseReason::Finished);
                return input.len();
            };
            at += consumed;
            match received {
                Some(Received::Reply(reply)) => self.replied(id, state, reply, out),
                // A connection that waits for its end does not answer.
                Some(Received::Ping(_)) if self.waits_for_end(state) => {}
                Some(Received::Ping(payload)) => {
                    let pong = frame(OpCode::Control(Control::Pong), payload);
                    let _ = out.write(id, |out| out.extend_from_slice(&pong));
                }
                None if consumed == 0 => break,
                None => {}
            }
        }
        at
    }

    fn expired(&mut self, id: ConnId, state: &mut State, out: &mut Outbox) {
        if state.waits {
            self.otherwise(state, "the server did not reply or close in time");
            out.abort(id, CloseReason::Finished);
        } else {
            self.advance(id, state, out);
        }
    }

    fn closed(&mut self, _id: ConnId, mut state: State, reason: CloseReason, _out: &mut Outbox) {
        if reason != CloseReason::Finished {
            self.ended(&mut state, &format!("({})", reason.name()));
        }
    }

    fn mail(&mut self, order: WorkerOrder, out: &mut Outbox) {
        match order {
            WorkerOrder::Start | WorkerOrder::Begin | WorkerOrder::Wake => {}
            WorkerOrder::Phase(phase) => {
                self.score.phase(out.now(), false);
                self.open = phase == Phase::Visit;
                if !self.open {
                    self.share.abort_all(out);
                }
            }
            WorkerOrder::Finish => {
                // The main thread receives for as long as there are workers.
                let _ = self.events.send(WorkerEvent::Finished);
            }
            WorkerOrder::Leave { .. } => out.stop(),
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        self.open_more(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.resume_at
    }
}

/// Bytes that one token pays for.
const TOKEN_BYTES: usize = 65536;

/// How much of its rate a worker may catch up on at once.
const BURST: Duration = Duration::from_millis(100);
