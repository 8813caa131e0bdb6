//! The events of a simulation, for people who look for the cause of a failure.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use nix::errno::Errno;

use crate::ring::operation::{ShutdownHow, Token};

/// The events that a log keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// None.
    Nothing,
    /// The last 60, which are printed when a test panics.
    #[default]
    Last,
    /// All, with the injected faults and the test's annotations.
    All,
}

/// The number of events that a failure prints.
const LAST: usize = 60;

pub(super) struct Log {
    keep: Keep,
    events: VecDeque<SimEvent>,
}

pub(super) enum SimEvent {
    /// The shard waits for completions, at this time since the start.
    Turn(Duration),
    /// An operation, with the number of bytes to send, or 0.
    Pushed(Token, u32),
    Shutdown(Token, ShutdownHow),
    Done(Token, Result<u32, Errno>),
    Fault(&'static str),
    Annotation(String),
}

impl fmt::Display for SimEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SimEvent::Turn(at) => write!(f, "-- turn, at {:.3} ms", at.as_secs_f64() * 1e3),
            SimEvent::Pushed(Token { kind, id }, 0) => write!(f, "   > {kind:?} {id}"),
            SimEvent::Pushed(Token { kind, id }, bytes) => {
                write!(f, "   > {kind:?} {id}: {bytes} bytes")
            }
            SimEvent::Shutdown(Token { id, .. }, how) => write!(f, "   > shut down {id}: {how:?}"),
            SimEvent::Done(Token { kind, id }, Ok(result)) => {
                write!(f, "   < {kind:?} {id}: {result}")
            }
            SimEvent::Done(Token { kind, id }, Err(errno)) => {
                write!(f, "   < {kind:?} {id}: {errno:?}")
            }
            SimEvent::Fault(name) => write!(f, "   ! {name}"),
            SimEvent::Annotation(line) => write!(f, "{line}"),
        }
    }
}

impl Log {
    pub(super) fn new(keep: Keep) -> Self {
        Log { keep, events: VecDeque::new() }
    }

    pub(super) fn keeps_all(&self) -> bool {
        self.keep == Keep::All
    }

    pub(super) fn is_printed(&self) -> bool {
        self.keep == Keep::Last
    }

    pub(super) fn note(&mut self, event: SimEvent) {
        match self.keep {
            Keep::Nothing => return,
            Keep::Last if self.events.len() == LAST => drop(self.events.pop_front()),
            Keep::Last | Keep::All => {}
        }
        self.events.push_back(event);
    }

    /// A line for each event; turns in which nothing happened share one.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut empty = 0;
        for (at, event) in self.events.iter().enumerate() {
            let next = self.events.get(at + 1);
            if matches!(event, SimEvent::Turn(_)) && matches!(next, None | Some(SimEvent::Turn(_)))
            {
                empty += 1;
                continue;
            }
            if empty > 0 {
                lines.push(format!("-- {empty} turns without events"));
                empty = 0;
            }
            lines.push(event.to_string());
        }
        lines
    }
}
