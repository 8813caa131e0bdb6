//! The protocol of a server: HTTP/1.1 with keep-alive, and WebSocket after an upgrade.

mod date;
mod deferred;
mod handler;
mod heartbeat;
mod http;
mod notices;
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
use heartbeat::Checks;
pub use origins::{Origin, Origins};
use stage::{Arriving, Stage, Step};
pub use trusted_proxies::Proxies;

/// The limits for peers. `docs/limits.md` lists the limits that an operator sets.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// The size limits of requests.
    pub http: RequestLimits,
    /// The trusted proxies, whose `X-Forwarded-For` or PROXY protocol header names the client.
    pub proxies: Proxies,
    /// The origins whose pages may open WebSockets.
    pub origins: Origins,
    /// The largest WebSocket message, in bytes.
    pub max_message_bytes: u32,
    /// The largest number of frames in one WebSocket message.
    pub max_fragments: u32,
    /// The largest number of pings and pongs from a peer within a second; 255 is no limit.
    pub max_pings_per_second: u8,
    /// The time from the start of the connection, or from the first byte of a later request, to the
    /// end of the request's head. A body, or the rest of a message, has this time plus [the time of
    /// its bytes](Self::min_bytes_per_second).
    pub handshake_timeout: Duration,
    /// The lowest rate at which bodies and messages must arrive, in bytes per second.
    pub min_bytes_per_second: u32,
    /// The longest time between two requests of a kept connection.
    pub http_idle_timeout: Duration,
    /// The silence of a WebSocket peer after which the server pings it, unless
    /// [`Handler::ping_interval`] says otherwise, and the time after which the server calls
    /// [`Handler::waited`].
    pub ping_interval: Duration,
    /// How long a peer may take none of the bytes that are queued for it.
    pub slow_timeout: Duration,
    /// The silence after a ping after which the server closes the connection.
    pub pong_timeout: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        ServeLimits {
            http: RequestLimits::default(),
            proxies: Proxies::default(),
            origins: Origins::default(),
            max_message_bytes: 1024 * 1024,
            max_fragments: 4096,
            max_pings_per_second: 50,
            handshake_timeout: Duration::from_secs(10),
            min_bytes_per_second: 1000,
            http_idle_timeout: Duration::from_secs(120),
            ping_interval: Duration::from_secs(25),
            slow_timeout: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
        }
    }
}

impl ServeLimits {
    /// The time between two checks of a peer's progress.
    fn look_interval(&self) -> Duration {
        self.ping_interval.min(self.slow_timeout)
    }

    /// The time in which a body or a message of this many bytes must arrive, from its first byte.
    pub fn time_for(&self, bytes: u64) -> Duration {
        let rate = u64::from(self.min_bytes_per_second.max(1));
        self.handshake_timeout + Duration::from_millis(bytes.saturating_mul(1000) / rate)
    }
}

/// The [`Protocol`] of a server: HTTP/1.1 (RFC 9112) and WebSocket (RFC 6455) for a [`Handler`].
pub struct Serve<H: Handler> {
    handler: H,
    limits: ServeLimits,
    frame_limits: FrameLimits,
    /// The checks of silent WebSockets that have the ping interval of the limits.
    checks: Checks,
    /// Messages that are arriving in pieces.
    messages: Pool<Arriving>,
    counters: Arc<ServeCounters>,
    clock: DateClock,
    began: Instant,
}

/// The mail of a shard that runs [`Serve`].
#[derive(Debug)]
pub enum ServeMail<M> {
    /// A drain follows: [`Outbox::is_ready`] is false from now on, and nothing else changes.
    Unready,
    /// Drain the shard within about this time; see [`Outbox::drain`].
    Drain(Duration),
    /// Mail for the handler.
    App(M),
}

/// The counters of [`Serve`], beside the shard's [`Counters`](crate::Counters): totals, unless a
/// field says "now".
#[derive(Debug, Default)]
pub struct ServeCounters {
    /// Requests answered, including refused ones.
    pub requests: Counter,
    /// Requests that violated a rule of HTTP or exceeded a limit.
    pub requests_bad: Counter,
    /// WebSockets opened.
    pub websockets: Counter,
    /// WebSockets that are open now.
    pub websockets_open: Counter,
    /// Connections of proxies without a valid PROXY protocol header.
    pub proxy_headers_bad: Counter,
    /// Upgrades refused, for any reason.
    pub upgrades_refused: Counter,
    /// Upgrades refused because of the `Origin` of the page.
    pub origins_refused: Counter,
    /// Complete messages received.
    pub messages: Counter,
    /// Pings sent.
    pub pings: Counter,
}

impl<H: Handler> Serve<H> {
    /// A server for `handler`, with these limits.
    pub fn new(handler: H, limits: ServeLimits) -> Self {
        let frame_limits =
            FrameLimits { role: Role::Server, max_message_bytes: limits.max_message_bytes };
        let checks = Checks::new(limits.ping_interval, limits.slow_timeout);
        Serve {
            handler,
            limits,
            frame_limits,
            checks,
            messages: Pool::default(),
            counters: Arc::default(),
            clock: DateClock::default(),
            began: Instant::now(),
        }
    }

    /// The counters of this server, which any thread may read.
    pub fn counters(&self) -> Arc<ServeCounters> {
        Arc::clone(&self.counters)
    }

    /// The number of messages that are arriving in pieces now.
    pub fn messages_arriving(&self) -> u32 {
        self.messages.len()
    }

    /// The application.
    pub fn handler(&self) -> &H {
        &self.handler
    }
}

impl<H: Handler> Serve<H> {
    /// Moves the connection to another stage, and ends the session of the stage before.
    fn enter(
        &mut self,
        conn: ConnId,
        stage: &mut Stage<H::Session>,
        next: Stage<H::Session>,
        out: &mut Outbox,
    ) {
        if let Stage::Deferred(deferred) = mem::replace(stage, next) {
            self.end_deferred(conn, deferred, out);
        }
    }
}

impl<H: Handler> Protocol for Serve<H> {
    type State = Stage<H::Session>;
    type Mail = ServeMail<H::Mail>;

    fn opened(&mut self, conn: ConnId, peer: Option<SocketAddr>, out: &mut Outbox) -> Self::State {
        out.set_timer(conn, out.ticks(self.limits.handshake_timeout));
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
        // The shard may not have handled what the peer sent, so its silence proves nothing.
        if out.behind(conn) {
            return out.set_timer(conn, 1);
        }
        match stage {
            // The request has arrived, or the server does not read its input: the client is not
            // late.
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
            // The response to the request that is arriving is the last. A new connection gets its
            // first response, because its request may be on its way.
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
