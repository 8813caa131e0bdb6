//! Answers that come later, or never end: long polls and event streams.

use std::time::{Duration, Instant};

use super::stage::{Later, Speaks};
use super::{Handler, Serve};
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    pub(super) fn begin_later(
        &mut self,
        id: ConnId,
        state: &mut Speaks<H::Session>,
        out: &mut Outbox,
    ) {
        let Speaks::Later(later) = state else { unreachable!("called for an answer to come") };
        self.handler.opened(id, &mut later.session, out);
        self.set_look_timer(id, later, out);
        if out.is_draining() {
            self.leave_later(id, later, out);
        }
    }

    /// The shard is being drained: the answer is to come to its end.
    pub(super) fn leave_later(
        &mut self,
        id: ConnId,
        later: &mut Later<H::Session>,
        out: &mut Outbox,
    ) {
        later.last = true;
        self.handler.leave(id, &mut later.session, out);
        if self.handler.answered(id, &later.session) {
            out.close(id, CloseReason::Draining);
        }
    }

    /// The client sends something before it has its answer: thrown away, as whatever it is cannot
    /// be served, and the connection ends with the answer. Returns what was consumed.
    pub(super) fn early(
        &mut self,
        id: ConnId,
        state: &mut Speaks<H::Session>,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        let Speaks::Later(later) = state else { unreachable!("called for an answer to come") };
        if self.handler.answered(id, &later.session) && !later.last {
            self.end_later(id, state, out);
            return self.request(id, state, input, out);
        }
        if !std::mem::replace(&mut later.last, true) {
            self.handler.ends_with_answer(id, &mut later.session);
        }
        input.len()
    }

    /// Everything queued has been sent: if that was the end of the answer the connection goes on
    /// with HTTP, or ends.
    pub(super) fn later_drained(
        &mut self,
        id: ConnId,
        state: &mut Speaks<H::Session>,
        out: &mut Outbox,
    ) {
        let Speaks::Later(later) = state else { unreachable!("called for an answer to come") };
        if !self.handler.answered(id, &later.session) {
            self.handler.drained(id, &mut later.session, out);
        } else if later.last {
            out.close(id, last_reason(out));
        } else {
            self.end_later(id, state, out);
        }
    }

    fn end_later(&mut self, id: ConnId, state: &mut Speaks<H::Session>, out: &mut Outbox) {
        let &mut Speaks::Later(Later { proxied, .. }) = state else {
            unreachable!("called for an answer to come")
        };
        let http = Speaks::Http {
            decoder: Default::default(),
            begun: false,
            continued: false,
            answered: true,
            proxied,
            excess: None,
        };
        let Speaks::Later(later) = std::mem::replace(state, http) else {
            unreachable!("just seen")
        };
        out.clear_session_timer(id);
        self.handler.close(id, later.session, CloseReason::Finished, out);
        out.set_timer(id, out.ticks(self.limits.http_idle));
    }

    /// A client that takes nothing of what waits for it, from one look to the next, is given up.
    pub(super) fn later_waited(
        &mut self,
        id: ConnId,
        later: &mut Later<H::Session>,
        out: &mut Outbox,
    ) {
        if out.stands_still(id) {
            return out.abort(id, CloseReason::TooSlow);
        }
        if self.waited_for(later, out) >= self.limits.ping_interval {
            later.since = self.millis(out.now());
            if !self.handler.answered(id, &later.session) {
                self.handler.waited(id, &mut later.session, out);
            }
        }
        self.set_look_timer(id, later, out);
    }

    /// Sets the timer to when the handler is told next that the answer waits, or to the next look at
    /// what the client takes if that is sooner.
    fn set_look_timer(&self, id: ConnId, later: &Later<H::Session>, out: &mut Outbox) {
        let rest = self.limits.ping_interval.saturating_sub(self.waited_for(later, out));
        out.set_timer(id, out.ticks(rest.min(self.limits.slow_timeout)));
    }

    fn waited_for(&self, later: &Later<H::Session>, out: &Outbox) -> Duration {
        Duration::from_millis(self.millis(out.now()).wrapping_sub(later.since).into())
    }

    /// Milliseconds from the start of the server to `now`, modulo 2^32: 49 days, of which an interval
    /// is a small part.
    pub(super) fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.began).as_millis() as u32
    }
}

/// Why a connection ends with an answer.
fn last_reason(out: &Outbox) -> CloseReason {
    if out.is_draining() { CloseReason::Draining } else { CloseReason::Finished }
}
