//! The other end of calls in a simulation, in the place of the worker and the application.

use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::gate::Gate;
use super::{Answer, Backend, BackendConfig, Call, CallKind, Failure};

/// Takes the calls of all shards. The simulation answers them when and as it likes.
pub(crate) struct SimulatedWorker {
    calls: UnboundedReceiver<Call>,
    gates: Arc<[Gate; 5]>,
    /// Why no call is taken.
    refuses: Option<Failure>,
}

/// Bytes of data in an answer at most.
const DATA_BYTES_MAX: usize = 64 << 10;

impl Backend {
    /// A backend whose calls a simulation answers.
    pub(crate) fn simulated(config: BackendConfig) -> (Self, SimulatedWorker) {
        let (calls, queue) = mpsc::unbounded_channel();
        let gates: Arc<[Gate; 5]> = Arc::default();
        let worker = SimulatedWorker { calls: queue, gates: Arc::clone(&gates), refuses: None };
        (Backend { config, gates, counts: Arc::default(), calls }, worker)
    }
}

impl SimulatedWorker {
    /// The next call.
    pub(crate) fn take(&mut self) -> Option<Call> {
        self.calls.try_recv().ok()
    }

    /// The answer that the worker reads in a body with status 200.
    pub(crate) fn read(kind: CallKind, body: &str) -> Answer {
        Answer::read(kind, body.as_bytes(), DATA_BYTES_MAX)
            .unwrap_or(Answer::Failed(Failure::Nonsense))
    }

    /// A call with this number of bytes has ended.
    pub(crate) fn ended(&self, kind: CallKind, bytes: usize) {
        self.gates[kind as usize].leave(bytes);
    }

    /// From now on no call is taken, because too many wait or the last ones have failed; `None` takes
    /// them again.
    pub(crate) fn refuse(&mut self, why: Option<Failure>) {
        let before = std::mem::replace(&mut self.refuses, why);
        for gate in &*self.gates {
            gate.fill(before == Some(Failure::Overloaded), why == Some(Failure::Overloaded));
            gate.suspend(why == Some(Failure::Suspended));
        }
    }
}
