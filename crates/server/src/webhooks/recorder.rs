//! What one shard records for the endpoints: events as text, handed to their queues at the end of a turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Endpoint;
use super::event::Event;

/// The recorder of one shard. Clones record for the same shard, so that events from all parts of its hub are
/// in one order. An event costs no allocation but that of its text's buffer.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Mutex<Recorded>>);

struct Recorded {
    endpoints: Arc<[Endpoint]>,
    /// What is recorded for each endpoint.
    texts: Box<[Text]>,
}

/// Events, each a line.
#[derive(Default)]
struct Text {
    lines: Vec<u8>,
    events: u32,
}

/// So many bytes are handed over within the turn.
const TEXT_BYTES: usize = 32 << 10;
/// Bytes that stay allocated between two turns.
const TEXT_BYTES_KEPT: usize = 4 << 10;

impl Recorder {
    pub(super) fn new(endpoints: Arc<[Endpoint]>) -> Self {
        let texts = endpoints.iter().map(|_| Text::default()).collect();
        Recorder(Arc::new(Mutex::new(Recorded { endpoints, texts })))
    }

    /// Records an event. `namespace` names the namespace of a channel.
    pub(crate) fn record(&self, event: &Event<'_>, namespace: impl Fn(&str) -> &str) {
        let mut recorded = self.lock();
        let Recorded { endpoints, texts } = &mut *recorded;
        let namespace = event.channel().map(namespace);
        let time = unix_ms();
        for (endpoint, text) in endpoints.iter().zip(texts) {
            if endpoint.filter.takes(event.kind(), namespace) {
                event.write(time, &mut text.lines);
                text.events = text.events.saturating_add(1);
                if text.lines.len() >= TEXT_BYTES {
                    text.hand_over(endpoint);
                }
            }
        }
    }

    /// Hands all that is recorded to the queues.
    pub(crate) fn flush(&self) {
        let mut recorded = self.lock();
        let Recorded { endpoints, texts } = &mut *recorded;
        for (endpoint, text) in endpoints.iter().zip(texts) {
            if text.events > 0 {
                text.hand_over(endpoint);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        // One thread uses it, and nothing can panic while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Text {
    fn hand_over(&mut self, endpoint: &Endpoint) {
        endpoint.queue.add(&self.lines, self.events);
        self.lines.clear();
        self.lines.shrink_to(TEXT_BYTES_KEPT);
        self.events = 0;
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH);
    passed.map_or(0, |passed| u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}
