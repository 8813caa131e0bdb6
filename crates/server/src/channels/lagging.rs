//! Connections that read more slowly than they are sent to, and what is kept for them.
//!
//! Whoever keeps up owns nothing here. For a laggard the newest publications wait outside its send
//! queue, where they can still be replaced or dropped, until that queue has been sent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use murre_codec::{CloseCode, Kind, encode};
use murre_core::{CloseReason, ConnId, Outbox, Queued};

use super::answer;
use super::clients::Speaks;
use super::frames::event;
use super::namespaces::Slow;

/// What is kept, by the connection's slot.
#[derive(Default)]
pub(crate) struct Lagging {
    laggards: HashMap<u32, Laggard>,
}

#[derive(Default)]
struct Laggard {
    kept: VecDeque<Kept>,
    /// What was dropped of which channel, and not told yet.
    dropped: Vec<(Arc<str>, u32)>,
}

struct Kept {
    topic: Arc<str>,
    frame: Bytes,
}

/// What became of a publication for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It is queued to be sent.
    Sent,
    /// It waits until the connection has read more.
    Kept,
    /// It waits, and an older one was dropped for it.
    Dropped,
    /// The connection was too slow, and is closed.
    Disconnected,
    /// The connection is gone or going.
    Gone,
}

/// Publications kept for one connection under `drop_oldest`.
const KEPT_MAX: usize = 100;

impl Lagging {
    /// Delivers one publication, framed, by the rule of its namespace.
    pub(crate) fn deliver(
        &mut self,
        (id, speaks): (ConnId, Speaks),
        slow: Slow,
        topic: &Arc<str>,
        frame: &Bytes,
        out: &mut Outbox,
    ) -> Delivered {
        if !out.congested(id) && !self.laggards.contains_key(&id.index()) {
            return sent(out.send(id, frame));
        }
        match slow {
            Slow::Disconnect if out.over_bound(id) => {
                disconnect(id, speaks, out);
                Delivered::Disconnected
            }
            Slow::Disconnect => sent(out.send(id, frame)),
            Slow::DropOldest | Slow::LatestOnly if !out.is_open(id) => Delivered::Gone,
            Slow::DropOldest => self
                .keep(id, topic, frame, |kept| if kept.len() < KEPT_MAX { None } else { Some(0) }),
            Slow::LatestOnly => self
                .keep(id, topic, frame, |kept| kept.iter().position(|older| older.topic == *topic)),
        }
    }

    fn keep(
        &mut self,
        id: ConnId,
        topic: &Arc<str>,
        frame: &Bytes,
        dropped: impl FnOnce(&VecDeque<Kept>) -> Option<usize>,
    ) -> Delivered {
        let laggard = self.laggards.entry(id.index()).or_default();
        let dropped = dropped(&laggard.kept).and_then(|at| laggard.kept.remove(at));
        laggard.kept.push_back(Kept { topic: Arc::clone(topic), frame: frame.clone() });
        let Some(Kept { topic, .. }) = dropped else { return Delivered::Kept };
        match laggard.dropped.iter_mut().find(|(of, _)| *of == topic) {
            Some((_, count)) => *count += 1,
            None => laggard.dropped.push((topic, 1)),
        }
        Delivered::Dropped
    }

    /// The connection has read all that was queued: sends what was kept for it, behind how many
    /// publications of which channels were dropped.
    pub(crate) fn drained(&mut self, id: ConnId, speaks: Speaks, out: &mut Outbox) {
        // Nearly always: a look at nothing.
        if self.laggards.is_empty() {
            return;
        }
        let Some(laggard) = self.laggards.get_mut(&id.index()) else { return };
        for (topic, count) in laggard.dropped.drain(..) {
            // A connection that is going needs no notice.
            let _ = out.send(id, &notice(speaks, &topic, count));
        }
        while let Some(Kept { frame, .. }) = laggard.kept.front() {
            if out.congested(id) {
                return;
            }
            let _ = out.send(id, frame);
            laggard.kept.pop_front();
        }
        self.forget(id);
    }

    /// The connection is over.
    pub(crate) fn forget(&mut self, id: ConnId) {
        self.laggards.remove(&id.index());
        if self.laggards.is_empty() {
            self.laggards.shrink_to_fit();
        }
    }

    /// How many connections lag.
    pub(crate) fn len(&self) -> usize {
        self.laggards.len()
    }
}

/// A stream has no words for its end.
fn disconnect(id: ConnId, speaks: Speaks, out: &mut Outbox) {
    let (why, reason) = ("this connection reads too slowly", CloseReason::SlowConsumer);
    match speaks {
        Speaks::WebSocket => out.cut_off(id, CloseCode::Again, why, reason),
        _ => out.abort(id, reason),
    }
}

fn notice(speaks: Speaks, topic: &str, count: u32) -> Bytes {
    let mut text = Vec::new();
    answer::dropped(&mut text, topic, u64::from(count));
    match speaks {
        Speaks::WebSocket => encode::frame(Kind::Text.opcode(), &text),
        _ => event("dropped", &None, &text),
    }
}

fn sent(queued: Queued) -> Delivered {
    match queued {
        Queued::Yes => Delivered::Sent,
        Queued::Gone => Delivered::Gone,
        Queued::SlowConsumer => Delivered::Disconnected,
    }
}
