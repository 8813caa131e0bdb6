//! Counts of calls, and a log line for each kind of failure and minute.

use std::sync::atomic::{AtomicU64, Ordering};

use murre_core::Notice;

use super::{Answer, CallKind, Failure};

/// How a call has ended, for its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Result,
    /// The application refuses.
    Error,
    /// The application ends the session.
    Disconnect,
    Failed(Failure),
}

impl Outcome {
    /// All outcomes, in the order of their indices.
    pub(crate) const ALL: [Outcome; 10] = [
        Outcome::Result,
        Outcome::Error,
        Outcome::Disconnect,
        Outcome::Failed(Failure::Overloaded),
        Outcome::Failed(Failure::Suspended),
        Outcome::Failed(Failure::Unreachable),
        Outcome::Failed(Failure::Timeout),
        Outcome::Failed(Failure::Broken),
        Outcome::Failed(Failure::Status),
        Outcome::Failed(Failure::Nonsense),
    ];

    /// The label in `/metrics`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Result => "result",
            Outcome::Error => "error",
            Outcome::Disconnect => "disconnect",
            Outcome::Failed(why) => why.name(),
        }
    }

    fn index(self) -> usize {
        Outcome::ALL.iter().position(|&known| known == self).expect("all are listed")
    }
}

impl From<&Answer> for Outcome {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Result(_) => Outcome::Result,
            Answer::Error { .. } => Outcome::Error,
            Answer::Disconnect { .. } => Outcome::Disconnect,
            Answer::Failed(why) => Outcome::Failed(*why),
        }
    }
}

/// Counts since the start, by kind of call and outcome.
#[derive(Default)]
pub(crate) struct Counts {
    calls: [[AtomicU64; Outcome::ALL.len()]; CallKind::ALL.len()],
    /// Answers that came too late, or for a connection that has ended.
    late: AtomicU64,
    /// Answers with members that have no effect, by kind of call.
    without_effect: [(AtomicU64, Lines); CallKind::ALL.len()],
    notices: [[Lines; Outcome::ALL.len()]; CallKind::ALL.len()],
}

struct Lines(Notice);

impl Default for Lines {
    fn default() -> Self {
        Lines(Notice::new())
    }
}

impl Counts {
    /// The number of calls of a kind with this outcome.
    pub(crate) fn get(&self, kind: CallKind, outcome: Outcome) -> u64 {
        self.calls[kind as usize][outcome.index()].load(Ordering::Relaxed)
    }

    /// The number of answers that came too late, or for a connection that has ended.
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Counts an answer that nobody waits for.
    pub(crate) fn is_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of answers to calls of a kind that have members without effect.
    pub(crate) fn without_effect(&self, kind: CallKind) -> u64 {
        self.without_effect[kind as usize].0.load(Ordering::Relaxed)
    }

    /// Counts an answer with these members, which have no effect.
    pub(crate) fn have_no_effect(&self, kind: CallKind, members: &str) {
        let (count, notice) = &self.without_effect[kind as usize];
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(times) = notice.0.occurred() {
            tracing::warn!(
                times,
                call = kind.name(),
                members = cut(members),
                "an answer of the backend has members that have no effect: docs/backend.md says which have"
            );
        }
    }

    pub(super) fn count(&self, kind: CallKind, outcome: Outcome) {
        self.calls[kind as usize][outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call without an answer that can be used. `problem` describes it for the log.
    pub(super) fn failed(&self, kind: CallKind, why: Failure, problem: &str) {
        let outcome = Outcome::Failed(why);
        self.count(kind, outcome);
        if let Some(times) = self.notices[kind as usize][outcome.index()].0.occurred() {
            tracing::warn!(
                times,
                call = kind.name(),
                why = why.name(),
                problem = cut(problem),
                "a call of the backend has failed: {}",
                why.remedy()
            );
        }
    }
}

/// The beginning of a text, which may have parts of an answer.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

const SHOWN_BYTES_MAX: usize = 300;
