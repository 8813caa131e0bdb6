//! Requests of one HTTP connection to answers of the handler.

use murre_codec::handshake;
use murre_codec::http::{self, Progress, Request, RequestError, Response};

use super::heartbeat::spread;
use super::stage::{Later, Speaks, WebSocket};
use super::{Answer, Handler, Opened, RequestKind, Serve, notices};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::conn::send_queue::GATHER_BYTES;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    /// Takes one request off the front of `input` and answers it; 0 if it is not all there.
    pub(super) fn request(
        &mut self,
        id: ConnId,
        state: &mut Speaks<H::Session>,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let Speaks::Http { decoder, begun, continued, answered, proxied, excess } = state else {
            unreachable!("called for HTTP")
        };
        let (proxied, excess, size) = (*proxied, *excess, decoder.size());
        let mut fields = http::fields();
        let request = match decoder.decode(input, &mut fields, &self.limits.http) {
            Ok(Progress::Request(request)) => request,
            Ok(progress) => {
                if let Some(excess) = excess {
                    // No check of the server's health has a body.
                    if decoder.size().is_some() {
                        self.turn_away(id, excess, out);
                    }
                    return 0;
                }
                if !std::mem::replace(begun, true) {
                    // One deadline for all of the head, however it trickles in.
                    out.set_timer(id, out.ticks(self.limits.handshake));
                }
                if let (None, Some(size)) = (size, decoder.size()) {
                    // And one for all of the body.
                    out.set_timer(id, out.ticks(self.limits.time_for(u64::from(size))));
                }
                if matches!(progress, Progress::Continue) && !std::mem::replace(continued, true) {
                    let _ = out.write(id, |bytes| bytes.extend_from_slice(http::CONTINUE));
                }
                return 0;
            }
            Err(bad) => {
                self.refuse(id, bad, input, out);
                return 0;
            }
        };
        let first = !*answered;
        let is = |kind| self.handler.kind(&request) == kind;
        if let Some(excess) = excess.filter(|_| !is(RequestKind::HealthCheck)) {
            self.turn_away(id, excess, out);
            return 0;
        }
        // Of a kept connection, too: that of a proxy may be older than any of its clients.
        let begins = || first || request.wants_websocket() || is(RequestKind::Session);
        let admitted = out.admits() || !begins();
        if admitted && !self.handler.admits(id, &request, out) {
            out.hold(id);
            return 0;
        }
        (*begun, *continued, *answered) = (false, false, true);
        self.counters.requests.add(1);
        let consumed = request.size;
        if first && !proxied {
            notices::unlisted_proxy(id, &request, out);
        }
        if !admitted {
            let refusal = out.unavailable(id, "no room at present, try again later\n");
            self.respond(id, &request, &refusal, Some(CloseReason::Overloaded), out);
        } else if request.wants_websocket() {
            if proxied && !self.known_by_request(id, &request, out) {
                return consumed;
            }
            if let Some(mut session) = self.upgrade(id, &request, out) {
                out.begin_websocket(id);
                self.handler.opened(id, &mut session, out);
                *state = Speaks::WebSocket(WebSocket::new(session));
                self.first_ping(id, out);
            } else if proxied {
                // What follows is of another client.
                let _ = out.count_as(id, None);
            }
        } else {
            match self.handler.request(id, &request, out) {
                Answer::Now(response) if excess.is_some() => {
                    self.respond(id, &request, &response, Some(CloseReason::Refused), out);
                }
                Answer::Now(response) => self.answer(id, &request, &response, out),
                Answer::Later(session) => {
                    let last = !request.keep_alive || out.is_draining();
                    let since = self.millis(out.now());
                    *state = Speaks::Later(Later { session, since, last, proxied });
                    self.begin_later(id, state, out);
                }
                Answer::Stream(session) => {
                    // Streams that begin together send signs of life at different times.
                    let interval = self.limits.ping_interval.as_millis();
                    let interval = u32::try_from(interval).unwrap_or(u32::MAX);
                    let since = self.millis(out.now()).wrapping_sub(spread(id, interval / 2));
                    *state = Speaks::Later(Later { session, since, last: true, proxied });
                    self.begin_later(id, state, out);
                }
            }
        }
        if first {
            out.forget_peer(id);
        }
        consumed
    }

    fn answer(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        response: &Response,
        out: &mut Outbox,
    ) {
        let end = match (request.keep_alive, out.is_draining()) {
            // A guess costs a connection.
            (true, false) if response.status == UNAUTHORIZED => Some(CloseReason::Finished),
            (true, false) => None,
            (true, true) => Some(CloseReason::Draining),
            (false, _) => Some(CloseReason::Finished),
        };
        self.respond(id, request, response, end, out);
    }

    /// Answers, and closes the connection if there is a reason to.
    fn respond(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        response: &Response,
        end: Option<CloseReason>,
        out: &mut Outbox,
    ) {
        let keep_alive = end.is_none();
        let version = request.minor_version;
        let date = Some(self.clock.date(out.now()));
        let to_head = request.method == "HEAD";
        // An answer that cannot be queued is the connection's end.
        let _ = if response.body.len() >= GATHER_BYTES && response.sends_body(to_head) {
            let write = |head: &mut _| response.write_head(head, keep_alive, version, date);
            out.write_and_send(id, write, &response.body)
        } else {
            out.write(id, |bytes| response.write(bytes, to_head, keep_alive, version, date))
        };
        match end {
            None => {
                out.set_timer(
                    id,
                    out.ticks(self.limits.http_idle.min(self.limits.look_interval())),
                );
            }
            Some(reason) => out.close(id, reason),
        }
    }

    fn upgrade(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Option<H::Session> {
        let opened = match handshake::check(request) {
            Err(refusal) => Err(refusal.response()),
            Ok(_) if !self.limits.origins.allow(request) => {
                self.counters.origins_refused.add(1);
                notices::refused_origin(id, request, out);
                Err(Response::text(403, "pages of this origin may not open WebSockets here\n"))
            }
            Ok(_) if out.is_draining() => Err(out.unavailable(id, "going away\n")),
            Ok(upgrade) => {
                let opened = self.handler.open(id, request, &upgrade, out);
                opened.map(|opened| (opened, upgrade))
            }
        };
        match opened {
            Ok((Opened { session, protocol }, upgrade)) => {
                let _ = out.write(id, |bytes| handshake::accept(bytes, upgrade.key, protocol));
                self.counters.websockets.add(1);
                let open = &self.counters.websockets_open;
                open.set(open.get() + 1);
                Some(session)
            }
            Err(response) => {
                self.counters.upgrades_refused.add(1);
                self.answer(id, request, &response, out);
                None
            }
        }
    }

    /// Where the next request would begin is unknown, so the connection ends with the answer.
    fn refuse(&mut self, id: ConnId, bad: RequestError, input: &[u8], out: &mut Outbox) {
        self.counters.requests_bad.add(1);
        notices::bad_request(id, bad, input, out);
        let response = Response::text(bad.status(), bad.reason());
        let to_head = input.trim_ascii_start().starts_with(b"HEAD ");
        self.last_answer(id, &response, to_head, CloseReason::BadRequest, out);
    }

    /// The client has all of its answers: it may rest, unless the next request has begun, which has a
    /// deadline.
    pub(super) fn taken(&self, id: ConnId, begun: bool, out: &mut Outbox) {
        if !begun {
            out.set_timer(id, out.ticks(self.limits.http_idle));
        }
    }

    /// Nothing has arrived between two requests for as long as that may take. A client that is still
    /// taking an answer, however slowly, is not idle: it has as long again for some more of it.
    pub(super) fn idle(&mut self, id: ConnId, out: &mut Outbox) {
        if out.queued(id) == 0 {
            return out.close(id, CloseReason::IdleTimeout);
        }
        if out.stands_still(id) {
            return out.abort(id, CloseReason::TooSlow);
        }
        out.set_timer(id, out.ticks(self.limits.http_idle.min(self.limits.look_interval())));
    }

    /// The handler takes no input of it for the time being. That is no time of the client's, which has
    /// to take its answers all the same.
    pub(super) fn held(&mut self, id: ConnId, out: &mut Outbox) {
        if out.stands_still(id) {
            return out.abort(id, CloseReason::TooSlow);
        }
        out.set_timer(id, out.ticks(self.limits.look_interval()));
    }

    /// The request did not arrive in time.
    pub(super) fn too_slow(&mut self, id: ConnId, out: &mut Outbox) {
        let response = Response::text(408, "the request took too long\n");
        self.last_answer(id, &response, false, CloseReason::HandshakeTimeout, out);
    }

    /// Says this and nothing more.
    pub(super) fn last_answer(
        &mut self,
        id: ConnId,
        response: &Response,
        to_head: bool,
        reason: CloseReason,
        out: &mut Outbox,
    ) {
        let date = self.clock.date(out.now());
        out.close_with(id, reason, |out| response.write(out, to_head, false, 1, Some(date)));
    }
}

/// The status of a request whose token is refused (RFC 9110 section 15.5.2).
const UNAUTHORIZED: u16 = 401;

impl Outbox {
    /// The answer to a client that is to try again later, here or elsewhere (RFC 9110 sections 10.2.3
    /// and 15.6.4).
    pub fn unavailable(&self, id: ConnId, why: &'static str) -> Response {
        Response::text(503, why).with("Retry-After", &self.retry_after(id).to_string())
    }
}
