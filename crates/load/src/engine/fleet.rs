//! Connects a shard's share of the virtual clients at the pace asked for, holds them, and counts
//! what becomes of them. The scenario decides what a client sends.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_core::{CloseReason, ConnId, Outbox, Protocol};

use crate::client::{Client, ConnState, Context, Output};
use crate::engine::failover::Failover;
use crate::engine::orders::{Phase, WorkerEvent, WorkerOrder};
use crate::engine::pace::{PAUSE_MIN, Pace};
use crate::engine::reconnects::Reconnects;
use crate::engine::score::{Fault, Score};
use crate::engine::share::Share;
use crate::engine::{Scored, WorkerParts};

/// A shard's virtual clients.
pub(crate) struct Fleet<C> {
    client: C,
    score: Score,
    masks: Rng,
    /// How long an answer may take.
    timeout: Duration,
    share: Share,
    events: Sender<WorkerEvent>,
    stage: Stage,
    /// Connects begun, for the routes.
    begun: u64,
    /// Connections on their way: from the connect until they are ready, or are not to be.
    opening: u32,
    pace: Pace,
    /// When the rate allows the next connect, if the fleet waits for it.
    resume_at: Option<Instant>,
    /// `WorkerEvent::Failing` is sent once.
    failing: bool,
    /// All connections were told to end.
    killed: bool,
    /// They are on their way back.
    reconnects: Option<Reconnects>,
    /// Of clients that return.
    failover: Option<Failover>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Connecting,
    Holding,
    Leaving,
}

/// The state of a virtual client.
pub(crate) struct Member<S> {
    conn: ConnState,
    state: S,
}

/// User memory per idle virtual client, the transport's part included.
pub(crate) const MEMBER_BYTES_MAX: usize = 128;

impl<C: Client> Fleet<C> {
    /// User memory of an idle virtual client.
    pub(crate) const MEMBER_BYTES: usize =
        murre_core::CONN_BYTES + murre_core::TIMER_BYTES + size_of::<Option<Member<C::State>>>();

    /// `seed` is that of the frames' masks, `timeout` how long an answer may take.
    pub(crate) fn new(client: C, seed: u64, timeout: Duration, parts: WorkerParts) -> Fleet<C> {
        const { assert!(Self::MEMBER_BYTES <= MEMBER_BYTES_MAX) };
        let WorkerParts { score, share, events } = parts;
        let failover = client.returns().map(|pauses| {
            let number = |client| u64::from(client) * share.shards + share.shard;
            let targets = (0..share.conns).map(|client| share.routes.spread(number(client)));
            Failover::new(share.routes.nodes.clone(), targets, pauses, Instant::now(), seed)
        });
        Fleet {
            client,
            score,
            masks: Rng::with_seed(seed),
            timeout,
            pace: Pace::new(share.connect_rate, BURST),
            share,
            events,
            stage: Stage::Waiting,
            begun: 0,
            opening: 0,
            resume_at: None,
            failing: false,
            killed: false,
            reconnects: None,
            failover,
        }
    }

    /// Opens missing connections, as far as the rate and the bound on handshakes in progress allow.
    fn connect(&mut self, out: &mut Outbox) {
        self.resume_at = None;
        while out.live() < self.share.conns && self.opening < OPENING_MAX && !self.failing {
            if let Err(later) = self.pace.allows(out.now()) {
                self.resume_at = Some(later);
                return;
            }
            if self.open(out).is_none() {
                return;
            }
            self.pace.take(1, out.now());
        }
    }

    /// Opens one; `None` when there is no slot for it.
    fn open(&mut self, out: &mut Outbox) -> Option<ConnId> {
        // Each worker takes all routes in turn: with as many workers as targets none is left out.
        let i = self.begun + self.share.shard;
        let (to, from) = self.share.routes.route(i);
        let id = out.connect(to, from)?;
        self.begun += 1;
        self.opening += 1;
        Some(id)
    }

    /// Connects the clients that are due: until all are there at the pace asked for, later at once, as
    /// clients do.
    fn connect_due(&mut self, out: &mut Outbox) {
        self.resume_at = None;
        let Some(failover) = &mut self.failover else { return };
        loop {
            if self.stage == Stage::Connecting {
                if self.opening >= OPENING_MAX || self.failing {
                    return;
                }
                if let Err(later) = self.pace.allows(out.now()) {
                    self.resume_at = Some(later);
                    return;
                }
            }
            let Some(client) = failover.due(out.now()) else { break };
            let number = u64::from(client) * self.share.shards + self.share.shard;
            let (_, from) = self.share.routes.route(number);
            let to = self.share.routes.targets[failover.target(client)];
            let Some(id) = out.connect(to, from) else {
                failover.wait(client, out.now() + PAUSE_MIN);
                break;
            };
            failover.connects(client, id.index());
            self.opening += 1;
            self.pace.take(1, out.now());
        }
        self.resume_at = failover.next_at();
    }

    // ---- storms ----

    fn phase(&mut self, phase: Phase, out: &mut Outbox) {
        let missing = self.share.conns - out.live();
        self.killed = phase == Phase::Kill;
        self.reconnects = match phase {
            Phase::Return { over } => {
                let seed = self.share.shard ^ self.begun << 16;
                Some(Reconnects::new(missing, over, out.now(), seed))
            }
            _ => None,
        };
        self.score.phase(out.now(), self.reconnects.is_some());
        if self.killed {
            self.share.abort_all(out);
        }
    }

    /// Opens all connections that are due, without a bound: that is the storm.
    fn reconnect(&mut self, out: &mut Outbox) {
        self.resume_at = None;
        while let Some(tries) = self.reconnects.as_mut().and_then(|back| back.due(out.now())) {
            let opened = self.open(out);
            let reconnects = self.reconnects.as_mut().expect("it had one due");
            match opened {
                Some(id) => reconnects.tries_in(id.index(), tries),
                None => return reconnects.wait(tries, out.now() + PAUSE_MIN),
            }
        }
        self.resume_at = self.reconnects.as_ref().and_then(Reconnects::next_at);
    }

    /// One that was to come back, or was back, is not here.
    fn missed(&mut self, id: ConnId, out: &Outbox) {
        if let Some(failover) = &mut self.failover {
            failover.ended(id.index(), out.now());
        }
        if let Some(reconnects) = &mut self.reconnects {
            reconnects.missed(id.index(), out.now());
        }
    }

    /// Lets the client handle an event of one connection, and counts a change of the connection's state.
    fn handle<R>(
        &mut self,
        id: ConnId,
        conn: &mut ConnState,
        out: &mut Outbox,
        event: impl FnOnce(&mut C, &mut Context<'_>) -> R,
    ) -> R {
        let before = *conn;
        let Fleet { client, score, masks, timeout, failover, .. } = self;
        let failover = failover.as_mut();
        let mut ctx = Context { id, state: conn, out, score, masks, timeout: *timeout, failover };
        let result = event(client, &mut ctx);
        if *conn != before {
            if before == ConnState::Opening {
                self.opening -= 1;
            }
            self.report();
        }
        result
    }

    /// Lets the client handle an event of all connections.
    fn handle_all(&mut self, out: &mut Outbox, event: fn(&mut C, &mut Output<'_>)) {
        let Fleet { client, score, masks, timeout, .. } = self;
        event(client, &mut Output { out, score, masks, timeout: *timeout });
    }

    fn report(&mut self) {
        let tally = self.score.tally();
        if !self.failing && tally.faults_all() > self.share.errors_max {
            self.failing = true;
            self.tell(WorkerEvent::Failing);
        } else if tally.ready() == u64::from(self.share.conns) {
            self.tell(WorkerEvent::Full);
        }
    }

    fn tell(&self, event: WorkerEvent) {
        // The main thread receives for as long as there are workers.
        let _ = self.events.send(event);
    }
}

impl<C: Client> Scored for Fleet<C> {
    fn score(&self) -> &Score {
        &self.score
    }
}

impl<C: Client> Protocol for Fleet<C> {
    type State = Member<C::State>;
    type Mail = WorkerOrder;

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, out: &mut Outbox) -> Self::State {
        let mut conn = ConnState::Opening;
        if let Some(failover) = &mut self.failover {
            failover.opened(id.index(), out.now());
        }
        let state = self.handle(id, &mut conn, out, |client, ctx| client.connected(ctx));
        Member { conn, state }
    }

    fn refused(&mut self, id: ConnId, errno: i32, out: &mut Outbox) {
        self.opening -= 1;
        self.score.missed(Fault::Refused, std::io::Error::from_raw_os_error(errno));
        self.missed(id, out);
        self.report();
    }

    fn received(
        &mut self,
        id: ConnId,
        member: &mut Self::State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let Member { conn, state } = member;
        self.handle(id, conn, out, |client, ctx| client.received(state, input, ctx))
    }

    fn expired(&mut self, id: ConnId, member: &mut Self::State, out: &mut Outbox) {
        let Member { conn, state } = member;
        self.handle(id, conn, out, |client, ctx| client.expired(state, ctx));
    }

    fn leave(&mut self, id: ConnId, member: &mut Self::State, out: &mut Outbox) {
        let Member { conn, state } = member;
        if *conn == ConnState::Ready {
            self.handle(id, conn, out, |client, ctx| client.leave(state, ctx));
        } else {
            out.abort(id, CloseReason::Finished);
        }
    }

    fn closed(&mut self, id: ConnId, member: Self::State, reason: CloseReason, out: &mut Outbox) {
        self.score.forget(self.client.owed(&member.state));
        self.client.closed(member.state);
        match member.conn {
            ConnState::Opening => self.opening -= 1,
            ConnState::Ready => self.score.no_longer_ready(),
            ConnState::Failed | ConnState::Leaving => {}
        }
        if self.stage != Stage::Leaving {
            match member.conn {
                ConnState::Failed | ConnState::Leaving => {}
                ConnState::Ready if self.killed && reason == CloseReason::Finished => {}
                ConnState::Ready => self.score.lost(reason.name()),
                ConnState::Opening => {
                    let detail = format_args!("{} before it was complete", reason.name());
                    self.score.missed(Fault::Handshake, detail);
                }
            }
            self.missed(id, out);
            self.report();
        }
    }

    fn mail(&mut self, order: WorkerOrder, out: &mut Outbox) {
        match order {
            WorkerOrder::Start => {
                self.stage = Stage::Connecting;
                if self.share.conns == 0 {
                    self.report();
                }
            }
            WorkerOrder::Begin => {
                self.stage = Stage::Holding;
                self.resume_at = None;
                self.score.hold(out.now(), self.failover.is_some());
                self.handle_all(out, C::begin);
            }
            WorkerOrder::Phase(phase) if C::RECONNECTS => self.phase(phase, out),
            WorkerOrder::Phase(_) => self.score.phase(out.now(), false),
            // The turn follows.
            WorkerOrder::Wake => {}
            WorkerOrder::Finish => {
                self.handle_all(out, C::finish);
                self.tell(WorkerEvent::Finished);
            }
            WorkerOrder::Leave { over } => {
                self.stage = Stage::Leaving;
                self.resume_at = None;
                if C::CLOSES {
                    out.drain(over);
                } else {
                    out.stop();
                }
            }
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        let connecting = self.stage == Stage::Connecting;
        if self.failover.is_some() && (connecting || self.stage == Stage::Holding) {
            self.connect_due(out);
        } else if connecting || (C::REPLACES && self.stage == Stage::Holding) {
            self.connect(out);
        }
        if self.reconnects.is_some() {
            self.reconnect(out);
        }
        self.handle_all(out, C::turn);
    }

    fn wake_at(&self) -> Option<Instant> {
        [self.resume_at, self.client.wake_at()].into_iter().flatten().min()
    }
}

/// Connections on their way at most, in one shard: more would overflow the server's backlog, and
/// then wait a second for the SYN that was dropped.
const OPENING_MAX: u32 = 256;

/// How much of its rate a paced worker may catch up on at once.
const BURST: Duration = Duration::from_millis(50);
