//! The sender of an endpoint: one request after the other, each with a batch of events, until it is taken or
//! given up.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use murre_core::Notice;
use tokio::time::{sleep, timeout};

use super::queue::{Batch, Waiting};
use super::recorder::unix_ms;
use super::signature::SIGNATURE;
use super::{Endpoint, Webhooks};

/// The number of the first batch.
const FIRST: u64 = 1;

/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause while the server ends.
const PAUSE_AT_END: Duration = Duration::from_millis(100);

impl Webhooks {
    /// Sends the batches of an endpoint, for ever.
    pub(super) async fn send(&self, endpoint: &Endpoint) {
        let (mut sequence, mut pause) = (FIRST, PAUSE_MIN);
        // The first one tells that this server has started: it has no connections and channels yet.
        let mut batch = Batch::default();
        loop {
            match self.deliver(endpoint, &batch, sequence, &mut pause).await {
                Ok(()) => endpoint.queue.delivered(&batch),
                Err(why) => {
                    dropped(endpoint, batch.events, &why);
                    endpoint.queue.lost(&batch);
                }
            }
            batch = self.next(endpoint).await;
            sequence = sequence.saturating_add(1);
        }
    }

    /// The next batch: full, or as old as it may be.
    async fn next(&self, endpoint: &Endpoint) -> Batch {
        let queue = &endpoint.queue;
        loop {
            let left = match queue.waiting() {
                Waiting::Nothing => None,
                Waiting::Since(since) => Some(self.settings.delay.saturating_sub(since.elapsed())),
                Waiting::Batch => Some(Duration::ZERO),
            };
            match left {
                Some(left) if left.is_zero() || self.is_ending() => {
                    if let Some(batch) = queue.take() {
                        return batch;
                    }
                }
                // Whichever comes first: the loop looks again.
                Some(left) => _ = timeout(left, queue.changed()).await,
                None => queue.changed().await,
            }
        }
    }

    /// Sends a batch until the endpoint takes it. `pause` follows the next failure, also that of another batch.
    /// The first batch is never given up: without it an endpoint that was away would take this run of the
    /// server for the one before.
    ///
    /// # Errors
    /// The last failure, when the time for it is over.
    async fn deliver(
        &self,
        endpoint: &Endpoint,
        batch: &Batch,
        sequence: u64,
        pause: &mut Duration,
    ) -> Result<(), String> {
        let body = Bytes::from(self.body(batch, sequence));
        let began = Instant::now();
        loop {
            let Err(why) = self.post(endpoint, &body).await else {
                *pause = PAUSE_MIN;
                return Ok(());
            };
            endpoint.queue.counts.failed.add(1);
            warn(endpoint, &why);
            self.pause(*pause).await;
            *pause = pause.saturating_mul(2).min(PAUSE_MAX);
            if sequence > FIRST && began.elapsed() >= self.settings.retry {
                return Err(why);
            }
        }
    }

    /// Waits for about this time, or until the server ends.
    async fn pause(&self, pause: Duration) {
        let ending = self.ending.notified();
        let is_ending = self.is_ending();
        // At random within the second half, so that servers that failed together do not return together.
        let longest = if is_ending { pause.min(PAUSE_AT_END) } else { pause };
        let half = longest.checked_div(2).unwrap_or_default();
        let half_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
        let random = Duration::from_millis(fastrand::u64(..=half_ms));
        tokio::select! {
            () = sleep(half.saturating_add(random)) => {}
            () = ending, if !is_ending => {}
        }
    }

    async fn post(&self, endpoint: &Endpoint, body: &Bytes) -> Result<(), String> {
        let mut fields = HeaderMap::new();
        let signature = self.keys().sign(unix_ms() / 1000, body);
        if let Some(signature) = signature.and_then(|text| HeaderValue::try_from(text).ok()) {
            fields.insert(SIGNATURE, signature);
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.settings.timeout).unwrap_or(now);
        match endpoint.client.post(fields, body.clone(), deadline).await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!("it is answered with {}", answer.status)),
            Err(why) => Err(why.to_string()),
        }
    }

    /// The body of a batch. It is the same whenever it is sent again.
    fn body(&self, Batch { missed, lines, .. }: &Batch, sequence: u64) -> Vec<u8> {
        let (node, time) = (&self.node, unix_ms());
        let mut body = format!(
            "{{\"node\":\"{node}\",\"sequence\":{sequence},\"time\":{time},\"missed\":{missed},\"events\":["
        )
        .into_bytes();
        let events = lines.strip_suffix(b"\n").unwrap_or(lines);
        body.extend(events.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
        body.extend_from_slice(b"]}");
        body
    }
}

fn warn(endpoint: &Endpoint, why: &str) {
    static NOTICE: Notice = Notice::new();
    if let Some(times) = NOTICE.occurred() {
        let name = &endpoint.name;
        tracing::warn!(times, endpoint = name, why, "a webhook fails: it is tried again");
    }
}

fn dropped(endpoint: &Endpoint, events: u32, why: &str) {
    static NOTICE: Notice = Notice::new();
    if let Some(times) = NOTICE.occurred() {
        tracing::error!(
            times,
            endpoint = endpoint.name,
            events,
            why,
            flag = "--webhook-retry",
            "events of a webhook are dropped, as it has failed for too long: the next batch has their number"
        );
    }
}
