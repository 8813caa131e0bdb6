//! Long polls, whose responses come later, and event streams, whose responses never end.

use std::mem;
use std::time::{Duration, Instant};

use super::stage::{Deferred, Http, Stage, Step};
use super::{Handler, Serve};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    pub(super) fn begin_deferred(
        &mut self,
        conn: ConnId,
        deferred: &mut Deferred<H::Session>,
        out: &mut Outbox,
    ) {
        self.handler.opened(conn, &mut deferred.session, out);
        self.set_look_timer(conn, deferred, out);
        if out.is_draining() {
            self.leave_deferred(conn, deferred, out);
        }
    }

    /// The shard is draining: the handler ends the response.
    pub(super) fn leave_deferred(
        &mut self,
        conn: ConnId,
        deferred: &mut Deferred<H::Session>,
        out: &mut Outbox,
    ) {
        deferred.last = true;
        self.handler.leave(conn, &mut deferred.session, out);
        if self.handler.answered(conn, &deferred.session) {
            out.close(conn, CloseReason::Draining);
        }
    }

    /// Discards input that arrives before the response is complete. The connection ends with the
    /// response.
    pub(super) fn early_input(
        &mut self,
        conn: ConnId,
        deferred: &mut Deferred<H::Session>,
        input: &[u8],
    ) -> Step<H::Session> {
        if self.handler.answered(conn, &deferred.session) && !deferred.last {
            return Step::to(0, Self::after_deferred(deferred));
        }
        if !mem::replace(&mut deferred.last, true) {
            self.handler.ends_with_answer(conn, &mut deferred.session);
        }
        Step::stay(input.len())
    }

    /// All queued bytes have been sent. If they completed the response, the connection closes or
    /// continues with the stage that this returns.
    pub(super) fn deferred_drained(
        &mut self,
        conn: ConnId,
        deferred: &mut Deferred<H::Session>,
        out: &mut Outbox,
    ) -> Option<Stage<H::Session>> {
        if !self.handler.answered(conn, &deferred.session) {
            self.handler.drained(conn, &mut deferred.session, out);
            return None;
        }
        if deferred.last {
            let draining = out.is_draining();
            let reason = if draining { CloseReason::Draining } else { CloseReason::Finished };
            out.close(conn, reason);
            return None;
        }
        Some(Self::after_deferred(deferred))
    }

    fn after_deferred(deferred: &Deferred<H::Session>) -> Stage<H::Session> {
        Stage::Http(Http::next(deferred.proxied))
    }

    /// The response is complete, and the connection continues with HTTP.
    pub(super) fn end_deferred(
        &mut self,
        conn: ConnId,
        deferred: Deferred<H::Session>,
        out: &mut Outbox,
    ) {
        out.clear_session_timer(conn);
        self.handler.close(conn, deferred.session, CloseReason::Finished, out);
        if deferred.proxied {
            // The next request of this proxy may come from another client.
            let _ = out.count_as(conn, None);
        }
        out.set_timer(conn, out.ticks(self.limits.http_idle_timeout));
    }

    /// The timer expired. Closes a client that has taken no queued bytes since the last check as a
    /// slow consumer. Calls [`Handler::waited`] if the handler has queued no bytes for a ping
    /// interval.
    pub(super) fn deferred_expired(
        &mut self,
        conn: ConnId,
        deferred: &mut Deferred<H::Session>,
        out: &mut Outbox,
    ) {
        if out.stands_still(conn) {
            return out.abort(conn, CloseReason::TooSlow);
        }
        if self.waited_for(deferred, out) >= self.limits.ping_interval {
            deferred.since = self.millis(out.now());
            if !self.handler.answered(conn, &deferred.session) {
                self.handler.waited(conn, &mut deferred.session, out);
            }
        }
        self.set_look_timer(conn, deferred, out);
    }

    /// Sets the timer to the next call of [`Handler::waited`], or to the next check of the client's
    /// progress if that is sooner.
    fn set_look_timer(&self, conn: ConnId, deferred: &Deferred<H::Session>, out: &mut Outbox) {
        let rest = self.limits.ping_interval.saturating_sub(self.waited_for(deferred, out));
        out.set_timer(conn, out.ticks(rest.min(self.limits.slow_timeout)));
    }

    fn waited_for(&self, deferred: &Deferred<H::Session>, out: &Outbox) -> Duration {
        Duration::from_millis(self.millis(out.now()).wrapping_sub(deferred.since).into())
    }

    /// Milliseconds from the start of the server to `now`, modulo 2^32: 49 days, which is longer
    /// than any interval.
    pub(super) fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.began).as_millis() as u32
    }
}
