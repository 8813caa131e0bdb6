//! `storm`: connections that are reset in one moment and come back, together or spread over a span,
//! while others stay and ping the server throughout. One is back when the server has answered a ping
//! of it.
//!
//! Who stays has a shard's thread to itself, so that what the storm costs this end is not taken for
//! the server's.

use std::time::Duration;

use fastrand::Rng;
use murre_core::{ConnId, Outbox};

use crate::client::Difference;
use crate::client::ws::{Line, PING, Piece, Talk};
use crate::engine::score::{Fault, Score};
use crate::scenarios::ws_idle::payload;

/// One shard's clients who come and go.
pub(crate) struct Storm {
    timeout: Duration,
    seed: u64,
}

impl Storm {
    pub(crate) fn new(timeout: Duration, seed: u64) -> Storm {
        Storm { timeout, seed }
    }
}

impl Talk for Storm {
    type State = ();
    const READY_WHEN_OPEN: bool = false;
    const COMES_BACK: bool = true;

    fn open(&mut self, id: ConnId, _: &mut (), line: &mut Line<'_, '_>) {
        // Gone: `closed` follows and counts it.
        let _ = line.say(id, PING, &payload(self.seed, id, 0));
        let ticks = line.desk.out.ticks(self.timeout);
        line.desk.out.set_timer(id, ticks);
    }

    fn message(&mut self, id: ConnId, _: &mut (), _: Piece<'_>, line: &mut Line<'_, '_>) {
        line.desk.fail(id, Fault::Garbled, "a message that nobody asked for");
    }

    fn pong(&mut self, id: ConnId, _: &mut (), got: &[u8], line: &mut Line<'_, '_>) {
        let expected = payload(self.seed, id, 0);
        if got != expected {
            let difference = Difference { expected: &expected, got };
            return line.desk.fail(id, Fault::Wrong, difference);
        }
        line.desk.out.clear_timer(id);
        line.desk.ready();
    }

    fn expired(&mut self, id: ConnId, _: &mut (), line: &mut Line<'_, '_>) {
        let timeout = self.timeout;
        line.desk.fail(id, Fault::Timeout, format_args!("no pong within {timeout:?}"));
    }

    fn owed(&self, _: &()) -> u32 {
        0
    }

    fn finish(&mut self, _: &mut Outbox, _: &mut Score, _: &mut Rng) {}
}
