//! The protocol of a server: HTTP/1.1 with keep-alive, and WebSocket after an upgrade.

mod date;
mod deferred;
mod handler;
mod heartbeat;
mod http;
pub(crate) mod notices;
mod origins;
mod peer;
mod stage;
mod trusted_proxies;
mod websocket;

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_codec::http::RequestLimits;
use murre_codec::{FrameLimits, Role};

use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::counters::Counter;
use crate::outbox::Outbox;
use crate::pool::Pool;
use crate::protocol::Protocol;

pub use date::DateClock;
pub use handler::{Answer, Handler, Message, Opened, RequestKind};
pub use origins::{Origin, Origins};
use stage::{Arriving, Stage, Step};
pub use trusted_proxies::Proxies;

/// The bounds of what a peer may do.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Sizes of requests.
    pub http: RequestLimits,
    /// Who speaks for others.
    pub proxies: Proxies,
    /// Whose pages may open WebSockets.
    pub origins: Origins,
    /// Bytes of one message at most.
    pub message_bytes_max: u32,
    /// Frames of one message at most.
    pub fragments_max: u32,
    /// Pings and pongs within a second at most; 255 is any number.
    pub pings_per_second_max: u8,
    /// From the connection, or from the first byte of a later request, to the end of its head. What
    /// follows, a body or the rest of a message, has this and the time that its bytes may take.
    pub handshake: Duration,
    /// Bodies and messages come at least this fast.
    pub bytes_per_second_min: u32,
    /// Between two requests.
    pub http_idle: Duration,
    /// Silence of a WebSocket peer before it is pinged.
    pub ping_interval: Duration,
    /// How long any peer may take nothing of what is queued for it.
    pub slow_timeout: Duration,
    /// Silence after a ping before the connection is given up.
    pub pong_timeout: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        ServeLimits {
            http: RequestLimits::default(),
            proxies: Proxies::default(),
            origins: Origins::default(),
            message_bytes_max: 1024 * 1024,
            fragments_max: 4096,
            pings_per_second_max: 50,
            handshake: Duration::from_secs(10),
            bytes_per_second_min: 1000,
            http_idle: Duration::from_secs(120),
            ping_interval: Duration::from_secs(25),
            slow_timeout: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
        }
    }
}

impl ServeLimits {
    /// From one look at what a peer takes to the next.
    fn look_interval(&self) -> Duration {
        self.ping_interval.min(self.slow_timeout)
    }

    /// How long so many bytes may take to arrive, after the first of them.
    pub fn time_for(&self, bytes: u64) -> Duration {
        let rate = u64::from(self.bytes_per_second_min.max(1));
        self.handshake + Duration::from_millis(bytes.saturating_mul(1000) / rate)
    }
}

/// A server's side of every connection of a shard.
pub struct Serve<H: Handler> {
    handler: H,
    limits: ServeLimits,
    frame_limits: FrameLimits,
    /// Messages of which the rest is still arriving.
    messages: Pool<Arriving>,
    counters: Arc<ServeCounters>,
    clock: DateClock,
    began: Instant,
}

/// What other threads may post to a serving shard.
#[derive(Debug)]
pub enum ServeMail<M> {
    /// A drain follows: [`Outbox::is_ready`] is false from now on. Everything else goes on.
    Unready,
    /// Stop accepting, and take leave of everybody within about this time.
    Drain(Duration),
    /// For the handler.
    App(M),
}

/// What a serving shard counts beside its transport's [`Counters`](crate::Counters).
#[derive(Debug, Default)]
pub struct ServeCounters {
    /// Requests answered, refused ones among them.
    pub requests: Counter,
    /// Requests that broke a rule or a limit.
    pub requests_bad: Counter,
    /// WebSockets opened.
    pub websockets: Counter,
    /// WebSockets that are open now.
    pub websockets_open: Counter,
    /// Connections of proxies that did not begin with a proper header.
    pub proxy_headers_bad: Counter,
    /// Upgrades refused, for whatever reason.
    pub upgrades_refused: Counter,
    /// Of those, to pages of origins that are not allowed.
    pub origins_refused: Counter,
    /// Whole messages received.
    pub messages: Counter,
    /// Pings sent to silent peers.
    pub pings: Counter,
}

impl<H: Handler> Serve<H> {
    /// Serves `handler` within `limits`.
    pub fn new(handler: H, limits: ServeLimits) -> Self {
        let frame_limits =
            FrameLimits { role: Role::Server, message_bytes_max: limits.message_bytes_max };
        Serve {
            handler,
            limits,
            frame_limits,
            messages: Pool::default(),
            counters: Arc::default(),
            clock: DateClock::default(),
            began: Instant::now(),
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<ServeCounters> {
        Arc::clone(&self.counters)
    }

    /// Messages of which the rest is still arriving.
    pub fn messages_arriving(&self) -> u32 {
        self.messages.len()
    }

    /// The application.
    pub fn handler(&self) -> &H {
        &self.handler
    }
}

impl<H: Handler> Serve<H> {
    /// Goes on to another stage, and ends the session of the one before.
    fn enter(
        &mut self,
        conn: ConnId,
        stage: &mut Stage<H::Session>,
        next: Stage<H::Session>,
        out: &mut Outbox,
    ) {
        if let Stage::Deferred(deferred) = mem::replace(stage, next) {
            self.end_deferred(conn, deferred.session, out);
        }
    }
}

impl<H: Handler> Protocol for Serve<H> {
    type State = Stage<H::Session>;
    type Mail = ServeMail<H::Mail>;

    fn opened(&mut self, conn: ConnId, peer: Option<SocketAddr>, out: &mut Outbox) -> Self::State {
        out.set_timer(conn, out.ticks(self.limits.handshake));
        out.set_peer(conn, peer);
        self.arrived(conn, peer, out)
    }

    fn received(
        &mut self,
        conn: ConnId,
        stage: &mut Self::State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let mut at = 0;
        while at < input.len() && out.takes_input(conn) {
            let rest = &mut input[at..];
            let Step { consumed, next } = match stage {
                Stage::Proxy => self.proxy_header(conn, rest, out),
                Stage::Http(http) => self.request(conn, http, rest, out),
                Stage::Deferred(deferred) => self.early_input(conn, deferred, rest),
                Stage::WebSocket(websocket) => Step::stay(self.frame(conn, websocket, rest, out)),
            };
            let stays = next.is_none();
            if let Some(next) = next {
                self.enter(conn, stage, next, out);
            }
            if !out.is_open(conn) {
                return input.len();
            }
            if consumed == 0 && stays {
                break;
            }
            at += consumed;
        }
        if let Stage::WebSocket(websocket) = stage
            && !out.takes_input(conn)
        {
            self.pause(websocket, out.now());
        }
        at
    }

    fn drained(&mut self, conn: ConnId, stage: &mut Self::State, out: &mut Outbox) {
        match stage {
            Stage::Proxy => {}
            Stage::Http(http) => self.answers_sent(conn, http.begun, out),
            Stage::Deferred(deferred) => {
                if let Some(next) = self.deferred_drained(conn, deferred, out) {
                    self.enter(conn, stage, next, out);
                }
            }
            Stage::WebSocket(websocket) => self.handler.drained(conn, &mut websocket.session, out),
        }
    }

    fn expired(&mut self, conn: ConnId, stage: &mut Self::State, out: &mut Outbox) {
        // The peer may have done its part.
        if out.behind(conn) {
            return out.set_timer(conn, 1);
        }
        match stage {
            // Its request has arrived, or its input is not read: the client is not late.
            Stage::Proxy | Stage::Http(_) if out.is_held(conn) => self.held(conn, out),
            Stage::Proxy => out.close(conn, CloseReason::HandshakeTimeout),
            Stage::Http(http) => match http.excess {
                Some(excess) => self.turn_away(conn, excess, out),
                None if http.decoder.in_request() => self.too_slow(conn, out),
                None if http.answered => self.idle(conn, out),
                None => out.close(conn, CloseReason::HandshakeTimeout),
            },
            Stage::Deferred(deferred) => self.deferred_expired(conn, deferred, out),
            Stage::WebSocket(websocket) => self.silent(conn, websocket, out),
        }
    }

    fn session_expired(&mut self, conn: ConnId, stage: &mut Self::State, out: &mut Outbox) {
        match stage {
            Stage::WebSocket(websocket) => self.handler.timer(conn, &mut websocket.session, out),
            Stage::Deferred(deferred) if !self.handler.answered(conn, &deferred.session) => {
                self.handler.timer(conn, &mut deferred.session, out);
            }
            Stage::Proxy | Stage::Http(_) | Stage::Deferred(_) => {}
        }
    }

    fn leave(&mut self, conn: ConnId, stage: &mut Self::State, out: &mut Outbox) {
        match stage {
            // The answer to the request that is arriving is the last. A new connection gets its first
            // answer, because its request may be on its way.
            Stage::Proxy => {}
            Stage::Http(http)
                if http.decoder.in_request() || !http.answered || out.is_held(conn) => {}
            Stage::Http(_) => out.close(conn, CloseReason::Draining),
            Stage::Deferred(deferred) => self.leave_deferred(conn, deferred, out),
            Stage::WebSocket(websocket) => self.handler.leave(conn, &mut websocket.session, out),
        }
    }

    fn may_end(&mut self) -> bool {
        self.handler.may_end()
    }

    fn closed(&mut self, conn: ConnId, stage: Self::State, reason: CloseReason, out: &mut Outbox) {
        notices::closed(conn, reason, out);
        out.log_closed(conn, reason);
        match stage {
            Stage::Proxy | Stage::Http(_) => {}
            Stage::Deferred(deferred) => self.handler.close(conn, deferred.session, reason, out),
            Stage::WebSocket(websocket) => self.websocket_closed(conn, websocket, reason, out),
        }
    }

    fn mail(&mut self, mail: Self::Mail, out: &mut Outbox) {
        match mail {
            ServeMail::Unready => out.unready = true,
            ServeMail::Drain(over) => out.drain(over),
            ServeMail::App(mail) => self.handler.mail(mail, out),
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        self.handler.turn(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.handler.wake_at()
    }
}
