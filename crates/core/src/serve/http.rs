//! The requests of one HTTP connection, and their responses.

use std::mem;

use murre_codec::handshake;
use murre_codec::http::{self, Progress, Request, RequestError, Response, ResponseOptions};

use super::heartbeat::spread;
use super::stage::{Deferred, Http, Stage, Step, WebSocket};
use super::{Answer, Handler, Opened, RequestKind, Serve, notices};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::conn::send_queue::GATHER_BYTES;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    /// Takes one request off the front of `input` and answers it. Consumes nothing until the whole
    /// request has arrived.
    pub(super) fn request(
        &mut self,
        conn: ConnId,
        state: &mut Http,
        input: &[u8],
        out: &mut Outbox,
    ) -> Step<H::Session> {
        let size = state.decoder.size();
        let mut fields = http::fields();
        let mut request = match state.decoder.decode(input, &mut fields, &self.limits.http) {
            Ok(Progress::Request(request)) => request,
            Ok(progress) => {
                let wants_continue = matches!(progress, Progress::Continue);
                self.await_request(conn, state, size, wants_continue, out);
                return Step::stay(0);
            }
            Err(bad) => {
                self.refuse(conn, bad, input, out);
                return Step::stay(0);
            }
        };
        let kind = self.handler.kind(&request);
        // A health check asks for no upgrade: the connection could go on after the answer to that.
        let is_health_check = kind == RequestKind::HealthCheck && !request.wants_websocket();
        if let Some(excess) = state.excess.filter(|_| !is_health_check) {
            self.turn_away(conn, excess, out);
            return Step::stay(0);
        }
        // A request for a session on a kept connection counts too: the connection of a proxy may be
        // older than all of its clients.
        let begins_session = request.wants_websocket() || kind == RequestKind::Session;
        let continues = state.answered || kind == RequestKind::Continues;
        let admitted = out.admits() || continues && !begins_session;
        // A new connection gets no place while there is none, whatever its client says.
        request.keep_alive &= out.admits() || state.answered;
        if admitted
            && state.proxied
            && begins_session
            && !self.known_by_request(conn, &request, out)
        {
            self.counters.requests.add(1);
            return Step::stay(0);
        }
        if admitted && !self.handler.admits(conn, &request, out) {
            out.hold(conn);
            return Step::stay(0);
        }
        let is_first = !state.answered;
        (state.begun, state.continued, state.answered) = (false, false, true);
        self.counters.requests.add(1);
        if is_first && !state.proxied {
            notices::unlisted_proxy(conn, &request, out);
        }
        let next = if !admitted {
            let refusal = out.unavailable(conn, "no room at present, try again later\n");
            self.respond(conn, &request, &refusal, Some(CloseReason::Overloaded), out);
            None
        } else if request.wants_websocket() {
            self.begin_websocket(conn, &request, out).map(Stage::WebSocket)
        } else {
            self.plain_request(conn, state, &request, out).map(Stage::Deferred)
        };
        // A request on a kept connection of a proxy has named its client.
        if is_first || state.proxied {
            out.forget_peer(conn);
        }
        if state.proxied && next.is_none() {
            // The next request of this proxy may come from another client.
            let _ = out.count_as(conn, None);
        }
        Step { consumed: request.size, next }
    }

    /// The request has not arrived whole: starts its time limits as its parts begin.
    fn await_request(
        &mut self,
        conn: ConnId,
        state: &mut Http,
        size_before: Option<u32>,
        wants_continue: bool,
        out: &mut Outbox,
    ) {
        let size = state.decoder.size();
        if let Some(excess) = state.excess {
            // A health check has no body.
            if size.is_some() {
                self.turn_away(conn, excess, out);
            }
            return;
        }
        if !mem::replace(&mut state.begun, true) {
            // One time limit covers the whole head, so a slow client gains nothing by sending more
            // bytes.
            out.set_timer(conn, out.ticks(self.limits.handshake_timeout));
        }
        if let (None, Some(size)) = (size_before, size) {
            // One time limit covers the whole body.
            out.set_timer(conn, out.ticks(self.limits.time_for(u64::from(size))));
        }
        if wants_continue && !mem::replace(&mut state.continued, true) {
            let _ = out.write(conn, |bytes| bytes.extend_from_slice(http::CONTINUE));
        }
    }

    /// Answers an upgrade request. Returns the WebSocket if the handler accepts it.
    fn begin_websocket(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Option<WebSocket<H::Session>> {
        let mut session = self.upgrade(conn, request, out)?;
        out.begin_websocket(conn);
        self.handler.opened(conn, &mut session, out);
        let websocket = WebSocket::new(session);
        self.first_ping(conn, &websocket, out);
        Some(websocket)
    }

    /// Passes any other request to the handler. Returns the deferred response, if the handler
    /// answers later.
    fn plain_request(
        &mut self,
        conn: ConnId,
        state: &Http,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Option<Deferred<H::Session>> {
        let (session, since, last) = match self.handler.request(conn, request, out) {
            Answer::Now(response) => {
                match state.excess {
                    Some(_) => {
                        self.respond(conn, request, &response, Some(CloseReason::Refused), out);
                    }
                    None => self.answer(conn, request, &response, out),
                }
                return None;
            }
            Answer::Later(session) => {
                let last = !request.keep_alive || out.is_draining();
                (session, self.millis(out.now()), last)
            }
            Answer::Stream(session) => {
                // Streams that begin together send heartbeats at different times.
                let interval = self.limits.ping_interval.as_millis();
                let interval = u32::try_from(interval).unwrap_or(u32::MAX);
                let since = self.millis(out.now()).wrapping_sub(spread(conn, interval / 2));
                (session, since, true)
            }
        };
        let mut deferred = Deferred { session, since, last, proxied: state.proxied };
        self.begin_deferred(conn, &mut deferred, out);
        Some(deferred)
    }

    /// Sends the response. The connection continues if the request, the response and the shard
    /// allow it.
    fn answer(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        response: &Response,
        out: &mut Outbox,
    ) {
        let end = match (request.keep_alive, out.is_draining()) {
            // Each guess of a token costs the client a connection.
            (true, false) if response.status == UNAUTHORIZED => Some(CloseReason::Finished),
            (true, false) => None,
            (true, true) => Some(CloseReason::Draining),
            (false, _) => Some(CloseReason::Finished),
        };
        self.respond(conn, request, response, end, out);
    }

    /// Sends the response, and closes the connection if `end` gives a reason.
    fn respond(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        response: &Response,
        end: Option<CloseReason>,
        out: &mut Outbox,
    ) {
        let options = ResponseOptions {
            keep_alive: end.is_none(),
            date: Some(self.clock.date(out.now())),
            ..ResponseOptions::to(request)
        };
        // If the response cannot be queued, the connection ends anyway.
        let _ = if response.body.len() >= GATHER_BYTES && response.sends_body(&options) {
            let write = |head: &mut _| response.write_head(head, &options);
            out.write_and_send(conn, write, &response.body)
        } else {
            out.write(conn, |bytes| response.write(bytes, &options))
        };
        match end {
            None => {
                out.set_timer(
                    conn,
                    out.ticks(self.limits.http_idle_timeout.min(self.limits.look_interval())),
                );
            }
            Some(reason) => out.close(conn, reason),
        }
    }

    /// Accepts or refuses a WebSocket, and sends the response. Returns the session if the handler
    /// accepts the WebSocket.
    ///
    /// A refused connection ends: a proxy that passes bytes on as soon as it has seen `Upgrade` would not look
    /// at the requests behind it (RFC 9112 section 11.2).
    fn upgrade(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Option<H::Session> {
        let opened = match handshake::check(request) {
            Err(refusal) => Err(refusal.response()),
            Ok(_) if !self.limits.origins.allow(request) => {
                self.counters.origins_refused.add(1);
                notices::refused_origin(conn, request, out);
                Err(Response::text(403, "pages of this origin may not open WebSockets here\n"))
            }
            Ok(_) if out.is_draining() => Err(out.unavailable(conn, "going away\n")),
            Ok(upgrade) => {
                let opened = self.handler.open(conn, request, &upgrade, out);
                opened.map(|opened| (opened, upgrade))
            }
        };
        match opened {
            Ok((Opened { session, protocol }, upgrade)) => {
                let _ = out.write(conn, |bytes| handshake::accept(bytes, upgrade.key, protocol));
                self.counters.websockets.add(1);
                let open = &self.counters.websockets_open;
                open.set(open.get() + 1);
                Some(session)
            }
            Err(response) => {
                self.counters.upgrades_refused.add(1);
                let draining = out.is_draining();
                let end = if draining { CloseReason::Draining } else { CloseReason::Finished };
                self.respond(conn, request, &response, Some(end), out);
                None
            }
        }
    }

    /// Answers a bad request. The server cannot find the start of the next request, so the
    /// connection ends with the response.
    fn refuse(&mut self, conn: ConnId, bad: RequestError, input: &[u8], out: &mut Outbox) {
        self.counters.requests_bad.add(1);
        notices::bad_request(conn, bad, input, out);
        let response = Response::text(bad.status(), bad.reason());
        let to_head = input.trim_ascii_start().starts_with(b"HEAD ");
        self.last_answer(conn, &response, to_head, CloseReason::BadRequest, out);
    }

    /// The client has received all of its responses. Its idle time begins, unless the next request
    /// has begun, which has its own time limit.
    pub(super) fn answers_sent(&self, conn: ConnId, begun: bool, out: &mut Outbox) {
        if !begun {
            out.set_timer(conn, out.ticks(self.limits.http_idle_timeout));
        }
    }

    /// No request has begun within the idle time. A client that still reads a response, however
    /// slowly, is not idle: any progress restarts the idle time.
    pub(super) fn idle(&mut self, conn: ConnId, out: &mut Outbox) {
        if out.queued(conn) == 0 {
            return out.close(conn, CloseReason::IdleTimeout);
        }
        if out.stands_still(conn) {
            return out.abort(conn, CloseReason::TooSlow);
        }
        out.set_timer(
            conn,
            out.ticks(self.limits.http_idle_timeout.min(self.limits.look_interval())),
        );
    }

    /// The handler holds the connection; this time does not count against the client's time limits.
    /// The client still has to read its responses.
    pub(super) fn held(&mut self, conn: ConnId, out: &mut Outbox) {
        if out.stands_still(conn) {
            return out.abort(conn, CloseReason::TooSlow);
        }
        out.set_timer(conn, out.ticks(self.limits.look_interval()));
    }

    /// The request did not arrive in time.
    pub(super) fn too_slow(&mut self, conn: ConnId, out: &mut Outbox) {
        let response = Response::text(408, "the request took too long\n");
        self.last_answer(conn, &response, false, CloseReason::HandshakeTimeout, out);
    }

    /// Sends a response and closes the connection.
    pub(super) fn last_answer(
        &mut self,
        conn: ConnId,
        response: &Response,
        to_head: bool,
        reason: CloseReason,
        out: &mut Outbox,
    ) {
        let date = Some(self.clock.date(out.now()));
        let options =
            ResponseOptions { to_head, keep_alive: false, date, ..ResponseOptions::default() };
        out.close_with(conn, reason, |out| response.write(out, &options));
    }
}

/// The status of a request with an invalid token (RFC 9110 section 15.5.2).
const UNAUTHORIZED: u16 = 401;

impl Outbox {
    /// A 503 response that asks the client to try again later (RFC 9110 sections 10.2.3 and
    /// 15.6.4); see [`retry_after`](Outbox::retry_after).
    pub fn unavailable(&self, conn: ConnId, why: &'static str) -> Response {
        Response::text(503, why).with("Retry-After", &self.retry_after(conn).to_string())
    }
}
