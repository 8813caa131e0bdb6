//! Webhooks: an application is told of connections, members and channels by POST requests to its URLs.
//!
//! ```text
//!   hub ──▶ Recorder (of a shard) ──▶ Queue (of an endpoint) ──▶ sender: batch, sign, POST, again
//! ```
//!
//! Each shard records events as text, and hands it to the queues of the endpoints at the end of its turn,
//! before its messages to other shards. So the events of one channel, which all come from its owner, keep their
//! order. An endpoint has one request in flight. What its queue has no room for, and what it does not take in
//! time, is dropped and counted, and the next batch has the number.

mod event;
mod filter;
mod queue;
mod recorder;
mod sender;
mod signature;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Uri;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub(crate) use self::event::{ConnectionName, Event};
pub(crate) use self::filter::Filter;
use self::queue::Queue;
pub(crate) use self::recorder::Recorder;
use self::signature::Keys;
use crate::http_client;

/// A webhook of the configuration: a URL and which events it gets.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) url: Uri,
    pub(crate) filter: Filter,
}

/// The settings that all endpoints share.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) key_files: Vec<PathBuf>,
    /// Events of a batch at most.
    pub(crate) batch: u32,
    /// The longest time for which an event waits for others.
    pub(crate) delay: Duration,
    /// The longest time of one request.
    pub(crate) timeout: Duration,
    /// The longest time for which a batch is sent again.
    pub(crate) retry: Duration,
    /// Bytes of events that wait for one endpoint at most.
    pub(crate) bytes_max: u64,
}

/// All webhooks of the server.
pub(crate) struct Webhooks {
    settings: Settings,
    endpoints: Arc<[Endpoint]>,
    keys: Mutex<Keys>,
    /// Names this run of the server.
    node: String,
    is_ending: AtomicBool,
    /// Notified when the server ends.
    ending: Notify,
    reload: Arc<Notify>,
}

/// One URL with its queue.
struct Endpoint {
    /// The URL without its query, which may hold secrets. If several have the same, a number follows.
    name: String,
    filter: Filter,
    queue: Queue,
    client: http_client::Endpoint,
}

/// Numbers of an endpoint, for metrics.
pub(crate) struct EndpointNumbers {
    pub(crate) delivered: u64,
    pub(crate) missed: u64,
    pub(crate) batches: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
}

/// Bytes of an answer's body at most; it is not looked at.
const ANSWER_BYTES_MAX: usize = 64 << 10;

impl Webhooks {
    /// The webhooks of the configuration; `None` if it has none.
    ///
    /// # Errors
    /// A file of keys cannot be used. The error names the file, the problem and the remedy.
    pub(crate) fn new(webhooks: &[Webhook], settings: Settings) -> Result<Option<Self>, String> {
        let keys = Keys::read(&settings.key_files)?;
        let bytes_max = usize::try_from(settings.bytes_max).unwrap_or(usize::MAX);
        let mut same = HashMap::new();
        let endpoint = |Webhook { url, filter }: &Webhook| {
            let client = http_client::Endpoint::new(url.clone(), ANSWER_BYTES_MAX);
            let (url, filter) = (http_client::without_query(client.url()), filter.clone());
            let number = same
                .entry(url.clone())
                .and_modify(|number: &mut usize| *number = number.saturating_add(1))
                .or_insert(1);
            let name = if *number == 1 { url } else { format!("{url} {number}") };
            Endpoint { name, filter, queue: Queue::new(bytes_max, settings.batch), client }
        };
        let endpoints = webhooks.iter().map(endpoint).collect();
        Ok((!webhooks.is_empty()).then(|| Webhooks {
            settings,
            endpoints,
            keys: Mutex::new(keys),
            // A number is enough: it tells one start of a server from another.
            node: format!("{:016x}", fastrand::u64(..)),
            is_ending: AtomicBool::new(false),
            ending: Notify::new(),
            reload: Arc::default(),
        }))
    }

    /// A recorder for one shard.
    pub(crate) fn recorder(&self) -> Recorder {
        Recorder::new(Arc::clone(&self.endpoints))
    }

    /// Notified on SIGHUP.
    pub(crate) fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// Warns if anybody could send the endpoints events that the server did not.
    pub(crate) fn warn_of_missing_keys(&self) {
        if self.keys().is_empty() {
            tracing::warn!(
                flag = "--webhook-key-file",
                "webhooks are not signed: an application cannot tell them from those of others"
            );
        }
    }

    /// Sends batches to all endpoints. It ends only with an error.
    pub(crate) async fn run(self: Arc<Self>) -> io::Result<std::convert::Infallible> {
        let mut senders = JoinSet::new();
        for at in 0..self.endpoints.len() {
            let webhooks = Arc::clone(&self);
            senders.spawn(async move { webhooks.send(&webhooks.endpoints[at]).await });
        }
        loop {
            tokio::select! {
                ended = senders.join_next() => {
                    let why = ended.map_or(String::new(), |ended| format!("{ended:?}"));
                    return Err(io::Error::other(format!("a sender ended: {why}")));
                }
                () = self.reload.notified() => self.read_keys().await,
            }
        }
    }

    /// Reads the keys again, on a thread on which a file may block. If one cannot be used, those in force stay.
    async fn read_keys(&self) {
        let files = self.settings.key_files.clone();
        let read = tokio::task::spawn_blocking(move || Keys::read(&files));
        match read.await.expect("it does not panic") {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "keys of webhooks are read again");
                *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
            }
            Err(error) => {
                tracing::error!(%error, "keys of webhooks are not read again: those in force stay");
            }
        }
    }

    /// Sends what waits without delay, and blocks until the endpoints have taken all of it, or until this
    /// moment.
    pub(crate) fn finish(&self, moment: Instant) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.endpoints.iter().for_each(|endpoint| endpoint.queue.hurry());
        self.ending.notify_waiters();
        for Endpoint { name, queue, .. } in &*self.endpoints {
            let left = queue.settle_until(moment);
            if left > 0 {
                tracing::warn!(endpoint = name, events = left, "events of a webhook are lost");
            }
        }
    }

    /// The numbers of all endpoints.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (&str, EndpointNumbers)> {
        self.endpoints.iter().map(|Endpoint { name, queue, .. }| {
            let numbers = EndpointNumbers {
                delivered: queue.counts.delivered.get(),
                missed: queue.counts.missed.get(),
                batches: queue.counts.batches.get(),
                failed: queue.counts.failed.get(),
                bytes: queue.counts.bytes.get(),
            };
            (&**name, numbers)
        })
    }

    /// Takes the events that wait for the first endpoint, each a line, and the number of those before them
    /// that were dropped.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn take(&self) -> (Vec<u8>, u64) {
        let (mut lines, mut missed) = (Vec::new(), 0_u64);
        while let Some(batch) = self.endpoints[0].queue.take() {
            lines.extend_from_slice(&batch.lines);
            missed = missed.saturating_add(batch.missed);
            self.endpoints[0].queue.delivered(&batch);
        }
        (lines, missed)
    }

    fn keys(&self) -> Keys {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&http_client::without_query(&self.url))
    }
}
