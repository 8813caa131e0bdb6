//! Parts that the tests of both backends share.

use std::time::{Duration, Instant};

use super::{Completion, OpKind, Ring, Token};
use crate::conn::id::ConnId;

/// Longer than any step takes on an overloaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

pub(super) fn token(kind: OpKind, index: u32) -> Token {
    Token { kind, id: ConnId::new(index, 1) }
}

/// Waits for the next completion.
pub(super) fn next_completion(ring: &mut impl Ring) -> Completion {
    let started = Instant::now();
    loop {
        if let Some(completion) = ring.pop() {
            return completion;
        }
        assert!(started.elapsed() < PATIENCE, "nothing completes");
        ring.submit_and_wait(Some(PATIENCE)).expect("a working ring");
    }
}
