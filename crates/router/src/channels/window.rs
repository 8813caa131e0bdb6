//! The state of a history that is a window of a broker's stream: the newest publication that has arrived, the gap
//! before those that are held, and the joins that wait.

use std::collections::VecDeque;

use super::backplane::{Arrived, FetchId, Head, Place};
use super::history::shared_bytes;
use super::holds::Holder;
use super::publication::{Position, Start};

/// A window of the publications that the broker keeps.
///
/// ```text
///   offsets     complete_after          newest      gap
///   ────────────────┼───────────────────────┤  ?  ? ├───────────▶
///    at the broker     kept here                        held back
/// ```
pub(super) struct Window {
    /// The offsets of the publications in the history, in the same order.
    pub(super) offsets: VecDeque<u64>,
    /// All publications with greater offsets, up to the newest one, are in the history. `None` after a loss:
    /// that is true from the first one on.
    pub(super) complete_after: Option<u64>,
    /// The lowest index of a publication may be the one after it: readers on this process have been told of
    /// a loss at this index.
    pub(super) floor: u64,
    pub(super) phase: Phase,
    /// The number of losses of the connection when the subscription was last opened.
    losses: u32,
    /// Whether the subscription was opened since it may have lost publications, losses of the connection apart.
    is_certain: bool,
    /// Publications may be missing that the broker has taken since this time, those of later losses apart.
    missing_since: Option<u64>,
    /// All readers have been told of a loss, and nothing has followed.
    pub(super) is_marked: bool,
    pub(super) gap: Option<Gap>,
    /// The request for publications before the window, with the offset after which they
    /// begin, and the newest position at that time.
    pub(super) recovery: Option<(FetchId, u64, Position)>,
    pub(super) joins: Vec<WaitingJoin>,
}

/// The subscription of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is not in force yet. The newest position that has arrived nevertheless.
    Opening(Option<Position>),
    /// It cannot be opened: joins are refused.
    Unopened,
    Open,
}

/// Publications are missing, or may be, after the newest one.
pub(super) struct Gap {
    /// The broker has taken the publications since this time.
    pub(super) since: u64,
    pub(super) fetch: Option<FetchId>,
    /// The time at which it is fetched again.
    pub(super) retry_at: Option<u64>,
    /// Later publications, in their order.
    pub(super) held: VecDeque<(Arrived, Place)>,
    pub(super) held_bytes: usize,
    /// The number of these that had arrived when they were fetched.
    pub(super) covered: usize,
    /// Publications after these were dropped, since the last fetch.
    pub(super) overflowed: bool,
    /// Publications may be missing. If not, only a join has asked for newer ones.
    pub(super) may_miss: bool,
    /// The greatest offset that the broker is known to have reached; 0 if that is unknown.
    pub(super) reached: u64,
    /// The greatest offset of a message that the broker is known to have had after the newest publication, and that
    /// is not held; 0 if there is none.
    pub(super) expected: u64,
    /// How often the broker has answered without a publication that it had sent.
    pub(super) stale_answers: u8,
}

/// A join that the owner has yet to answer.
#[derive(Clone, Copy)]
pub(super) struct WaitingJoin {
    pub(super) join: u32,
    /// The shard, and the id of the member as a reader.
    pub(super) holder: Holder,
    pub(super) start: Start,
    pub(super) need: Need,
}

/// The question of a join to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It is not known yet, or the broker has yet to be asked.
    Unasked,
    Asked(FetchId),
    /// Nothing more: the broker has answered.
    Answered,
}

/// The place of a publication that has arrived, beside the publications before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next one.
    Next,
    /// It has been here, or nobody needs it.
    Repeat,
    /// Others may be missing before it.
    Gap,
    /// It has to wait for those before it.
    AfterGap,
    /// The broker counts anew.
    OtherEpoch,
}

/// What the first opening, or another one, has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The window begins at this position.
    First(Position),
    /// Nothing was lost.
    Same,
    /// Publications may be missing.
    Gap,
    /// The broker counts anew.
    OtherEpoch,
}

/// The losses of the connection to a broker, which concern all channels.
#[derive(Default)]
pub(super) struct Losses {
    /// Their number.
    pub(super) count: u32,
    /// The times since which publications may be missing, of the last of them.
    since: VecDeque<u64>,
}

/// How often a gap is fetched again because the broker's answer was older than what it had sent.
const STALE_ANSWERS_MAX: u8 = 3;
/// Losses of the connection whose times are kept.
const LOSSES_KEPT: usize = 64;

impl Window {
    pub(super) fn new() -> Self {
        Window {
            offsets: VecDeque::new(),
            complete_after: None,
            floor: 0,
            phase: Phase::Opening(None),
            losses: 0,
            is_certain: false,
            missing_since: None,
            is_marked: false,
            gap: None,
            recovery: None,
            joins: Vec::new(),
        }
    }

    /// Number of publications here with offsets greater than this one.
    pub(super) fn newer_than(&self, offset: u64) -> usize {
        self.offsets.len() - self.offsets.partition_point(|at| *at <= offset)
    }

    /// Whether all publications after this offset are here, up to the newest one.
    pub(super) fn reaches(&self, offset: u64) -> bool {
        let from = self.complete_after.or_else(|| self.offsets.front().copied());
        from.is_some_and(|from| from <= offset)
    }

    /// Takes note of a publication at `place`, after the one at `newest`.
    pub(super) fn arrive(&mut self, place: Place, newest: Position, losses: u32) -> Arrival {
        let Place { position, previous } = place;
        match self.phase {
            Phase::Opening(seen) => {
                // With another epoch the one that came last counts.
                let is_later =
                    |seen: Position| seen.epoch != position.epoch || seen.offset < position.offset;
                if seen.is_none_or(is_later) {
                    self.phase = Phase::Opening(Some(position));
                }
                Arrival::Repeat
            }
            Phase::Unopened => Arrival::Repeat,
            Phase::Open if position.epoch != newest.epoch => Arrival::OtherEpoch,
            Phase::Open if position.offset <= newest.offset => Arrival::Repeat,
            Phase::Open => match &self.gap {
                // Whatever is missing comes after this one.
                Some(gap) if gap.held.is_empty() && (1..=newest.offset).contains(&previous) => {
                    Arrival::Next
                }
                Some(_) => Arrival::AfterGap,
                None if self.follows(previous, newest, losses) => Arrival::Next,
                None => Arrival::Gap,
            },
        }
    }

    /// Whether nothing is missing between the newest publication and a later one with this previous one.
    /// `losses` is the number of losses of the connection.
    fn follows(&self, previous: u64, newest: Position, losses: u32) -> bool {
        match previous {
            0 => self.is_certain && self.losses == losses,
            _ => previous <= newest.offset,
        }
    }

    /// Takes note that the subscription is in force, after these losses of the connection.
    pub(super) fn open(&mut self, head: Head, newest: Position, losses: &Losses) -> Opened {
        let Head { epoch, newest: at_broker, .. } = head;
        let phase = std::mem::replace(&mut self.phase, Phase::Open);
        self.missing_since = self.missing_since(losses);
        (self.losses, self.is_certain) = (losses.count, true);
        let seen = match phase {
            Phase::Open if epoch != newest.epoch => return Opened::OtherEpoch,
            Phase::Open if at_broker <= newest.offset => {
                if self.gap.is_none() {
                    self.repair();
                }
                return Opened::Same;
            }
            Phase::Open => return Opened::Gap,
            Phase::Opening(seen) => seen,
            Phase::Unopened => None,
        };
        self.repair();
        let seen = seen.filter(|seen| seen.epoch == epoch).map_or(0, |seen| seen.offset);
        let offset = at_broker.max(seen);
        self.complete_after = Some(offset);
        Opened::First(Position { epoch, offset })
    }

    /// Takes note that the subscription may have lost publications since this time.
    pub(super) fn lose(&mut self, since: u64) {
        self.missing_since = Some(self.missing_since.map_or(since, |before| before.min(since)));
        self.is_certain = false;
    }

    /// Takes note that nothing is missing of what was lost before the subscription was opened.
    pub(super) fn repair(&mut self) {
        if self.is_certain {
            self.missing_since = None;
        }
    }

    /// The time since which publications may be missing; `None` if none are.
    pub(super) fn missing_since(&self, losses: &Losses) -> Option<u64> {
        self.missing_since.into_iter().chain(losses.first_after(self.losses)).min()
    }

    /// Takes note of the need of all joins that wait for this answer.
    pub(super) fn set_need(&mut self, asked: FetchId, need: Need) {
        for join in self.joins.iter_mut().filter(|join| join.need == Need::Asked(asked)) {
            join.need = need;
        }
    }

    /// Takes note of a loss at this index: what was there before cannot be recovered here.
    pub(super) fn mark(&mut self, index: u64) {
        (self.complete_after, self.floor, self.is_marked) = (None, index, true);
    }
}

impl Losses {
    /// Takes note of a loss. Publications may be missing that the broker has taken since this time.
    pub(super) fn add(&mut self, since: u64) {
        self.count = self.count.wrapping_add(1);
        self.since.push_back(since);
        if self.since.len() > LOSSES_KEPT {
            // The oldest one stands for those before it.
            self.since.remove(1);
        }
    }

    /// The time since which publications may be missing, of the losses after the first `count`.
    fn first_after(&self, count: u32) -> Option<u64> {
        let later = self.count.wrapping_sub(count) as usize;
        let first = (later > 0).then(|| self.since.len().saturating_sub(later))?;
        self.since.get(first).copied()
    }
}

impl Gap {
    pub(super) fn new(since: u64) -> Self {
        Gap {
            since,
            fetch: None,
            retry_at: None,
            held: VecDeque::new(),
            held_bytes: 0,
            covered: 0,
            overflowed: false,
            may_miss: false,
            reached: 0,
            expected: 0,
            stale_answers: 0,
        }
    }

    /// Holds a publication back, if there is room. Returns the bytes that it takes.
    pub(super) fn hold(&mut self, arrived: Arrived, place: Place, bytes_max: usize) -> usize {
        let bytes = Gap::bytes(&arrived);
        if self.overflowed || self.held_bytes.saturating_add(bytes) > bytes_max {
            self.miss();
            self.reached = self.reached.max(place.position.offset);
            self.expected = self.expected.max(place.position.offset);
            return 0;
        }
        self.held_bytes += bytes;
        self.held.push_back((arrived, place));
        bytes
    }

    /// Takes note that publications may be missing that the broker has had until now.
    pub(super) fn miss(&mut self) {
        (self.overflowed, self.may_miss) = (true, true);
    }

    /// Bytes of a publication that is held back.
    pub(super) fn bytes(arrived: &Arrived) -> usize {
        size_of::<(Arrived, Place)>() + shared_bytes(arrived.payload.bytes.len())
    }

    /// Takes note of a request: it covers all that has arrived.
    pub(super) fn begin_fetch(&mut self, fetch: FetchId) {
        self.fetch = Some(fetch);
        (self.retry_at, self.covered, self.overflowed) = (None, self.held.len(), false);
    }

    /// Whether an answer without a publication that had arrived before is believed.
    pub(super) fn believes(&mut self) -> bool {
        self.stale_answers += 1;
        self.stale_answers > STALE_ANSWERS_MAX
    }
}
