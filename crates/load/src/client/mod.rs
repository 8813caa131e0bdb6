//! Virtual clients: what all scenarios share. A scenario implements [`Client`], or one of the narrower
//! traits above it; `engine::fleet` connects and holds as many clients as the run has.
//!
//! ```text
//!   Client              bytes on one connection
//!     └ ws::WsScenario      messages of one WebSocket
//!         └ channel             commands and messages of the channels' protocol
//!         └ phoenix             the same of Phoenix clients
//!   scripted            connections that follow a script and end
//! ```

pub(crate) mod channel;
pub(crate) mod phoenix;
pub(crate) mod scripted;
pub(crate) mod users;
pub(crate) mod ws;

use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_core::{CloseReason, ConnId, Outbox};

use crate::engine::failover::{Failover, Pauses};
use crate::engine::score::{Fault, Score};

/// One scenario's virtual clients on one shard.
pub(crate) trait Client {
    /// The state of one client: small, because there is one for each connection.
    type State;

    /// Whether the protocol has a close of its own. If not, all connections are reset together.
    const CLOSES: bool = false;

    /// Whether another connection takes the place of one that departs.
    const REPLACES: bool = false;

    /// Whether the connections are killed and come back in the phases of `storm`.
    const RECONNECTS: bool = false;

    /// The pauses after which a client whose connection ends in the hold phase returns by another one;
    /// `None` if it does not: see [`Failover`].
    fn returns(&self) -> Option<Pauses> {
        None
    }

    /// A connection is made. The client calls [`Context::ready`] when it is ready.
    fn connected(&mut self, ctx: &mut Context<'_>) -> Self::State;

    /// Bytes arrived: returns how many are dealt with.
    fn received(
        &mut self,
        state: &mut Self::State,
        input: &mut [u8],
        ctx: &mut Context<'_>,
    ) -> usize;

    /// The connection's timer ran out.
    fn expired(&mut self, state: &mut Self::State, ctx: &mut Context<'_>);

    /// Answers that are still to come, as far as the score has been told of them.
    fn owed(&self, state: &Self::State) -> u32;

    /// All connections of all shards are up.
    fn begin(&mut self, _output: &mut Output<'_>) {}

    /// Send no new requests; outstanding answers may still come.
    fn finish(&mut self, output: &mut Output<'_>);

    /// Once in every turn.
    fn turn(&mut self, _output: &mut Output<'_>) {}

    /// When there should be a turn at the latest.
    fn wake_at(&self) -> Option<Instant> {
        None
    }

    /// The run is over: close the connection.
    fn leave(&mut self, _state: &mut Self::State, ctx: &mut Context<'_>) {
        ctx.out.abort(ctx.id, CloseReason::Finished);
    }

    /// The connection is over.
    fn closed(&mut self, _state: Self::State) {}
}

/// The state of a connection between its connect and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnState {
    /// Connected; the handshake, or the first answer, is outstanding.
    Opening,
    Ready,
    /// Failed, counted, and being closed.
    Failed,
    /// Closed by the client on purpose.
    Leaving,
}

impl ConnState {
    /// Whether input no longer matters.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, ConnState::Failed | ConnState::Leaving)
    }
}

/// The sending side of a worker's clients.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut Outbox,
    pub(crate) score: &'a mut Score,
    /// The source of frame masks.
    pub(crate) masks: &'a mut Rng,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
}

/// What a client may use while it handles one connection.
pub(crate) struct Context<'a> {
    pub(crate) id: ConnId,
    pub(crate) state: &'a mut ConnState,
    pub(crate) out: &'a mut Outbox,
    pub(crate) score: &'a mut Score,
    pub(crate) masks: &'a mut Rng,
    pub(crate) timeout: Duration,
    /// Of clients that return.
    pub(crate) failover: Option<&'a mut Failover>,
}

impl Context<'_> {
    /// The number of the client on its worker. That of a client that returns is the same in all of its
    /// connections; otherwise it is that of the connection's slot.
    pub(crate) fn client(&self) -> u32 {
        let slot = self.id.index();
        self.failover.as_ref().map_or(slot, |failover| failover.client(slot))
    }

    /// The node of a client that returns, among those of `--target`.
    pub(crate) fn node(&self) -> usize {
        self.failover.as_ref().map_or(0, |failover| failover.node(self.client()))
    }

    pub(crate) fn output(&mut self) -> Output<'_> {
        let Context { out, score, masks, timeout, .. } = self;
        Output { out, score, masks, timeout: *timeout }
    }

    /// The connection is up: the handshake is done and was right.
    pub(crate) fn ready(&mut self) {
        if *self.state == ConnState::Opening {
            *self.state = ConnState::Ready;
            self.score.ready();
        }
    }

    /// The client is about to close the connection on purpose, which is not a fault.
    pub(crate) fn leave(&mut self) {
        if *self.state == ConnState::Ready {
            self.score.no_longer_ready();
        }
        *self.state = ConnState::Leaving;
    }

    /// Counts a fault of the connection, once, and closes it.
    pub(crate) fn fail(&mut self, fault: Fault, detail: impl fmt::Display) {
        if *self.state == ConnState::Ready {
            self.score.no_longer_ready();
        }
        match std::mem::replace(self.state, ConnState::Failed) {
            ConnState::Opening => self.score.missed(fault, detail),
            ConnState::Ready if fault == Fault::Lost => self.score.lost(detail),
            ConnState::Ready => self.score.fault(fault, detail),
            over => *self.state = over,
        }
        self.out.abort(self.id, CloseReason::Finished);
    }

    /// Fails the connection because an answer has the wrong content.
    pub(crate) fn wrong(&mut self, expected: &[u8], got: &[u8]) {
        self.fail(Fault::Wrong, Difference { expected, got });
    }

    /// Fails the connection because `what` did not happen in time.
    pub(crate) fn timed_out(&mut self, what: &str) {
        let timeout = self.timeout;
        self.fail(Fault::Timeout, format_args!("{what} within {timeout:?}"));
    }

    pub(crate) fn start_timer(&mut self, after: Duration) {
        self.out.set_timer(self.id, self.out.ticks(after));
    }

    pub(crate) fn clear_timer(&mut self) {
        self.out.clear_timer(self.id);
    }
}

/// A number that looks random and depends on `seed`, `client` and `round` alone: what a client
/// asks for need not be stored until the answer is there.
pub(crate) fn hash(seed: u64, client: u32, round: u32) -> u64 {
    // splitmix64: every bit of the input reaches every bit of the output.
    let mut z = seed ^ (u64::from(client) << 32 | u64::from(round));
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The upper half of a hash as a number from 0 to just under 1.
pub(crate) fn fraction(hash: u64) -> f64 {
    (hash >> 32) as f64 / (u64::from(u32::MAX) + 1) as f64
}

/// The first place at which two texts differ, with a little of both, for a message about it.
pub(crate) struct Difference<'a> {
    pub(crate) expected: &'a [u8],
    pub(crate) got: &'a [u8],
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, got) = (self.expected, self.got);
        let same = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
        let shown = |bytes: &[u8]| {
            let from = same.min(bytes.len());
            let to = bytes.len().min(from + SHOWN_BYTES);
            String::from_utf8_lossy(&bytes[from..to]).into_owned()
        };
        write!(
            f,
            "expected {} bytes and got {}; from byte {same} on expected {:?}, got {:?}",
            expected.len(),
            got.len(),
            shown(expected),
            shown(got)
        )
    }
}

const SHOWN_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that fractions stay below 1 and that consecutive clients and rounds fall evenly.
    #[test]
    fn hashes_spread_over_their_range() {
        let mut tenths = [0; 10];
        for round in 0..10_000 {
            let fraction = fraction(hash(1, 7, round));
            assert!((0.0..1.0).contains(&fraction));
            tenths[(fraction * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|&count| (850..1150).contains(&count)), "{tenths:?}");
        assert!(fraction(u64::MAX) < 1.0);
    }

    /// Shows that the message of a wrong body says where it is wrong, also at its end.
    #[test]
    fn a_difference_names_its_place() {
        let text = Difference { expected: b"abcdef", got: b"abcxef" }.to_string();
        assert!(text.contains("from byte 3 on expected \"def\", got \"xef\""), "{text}");
        let text = Difference { expected: b"abc", got: b"ab" }.to_string();
        assert!(text.contains("expected 3 bytes and got 2"), "{text}");
    }
}
