//! The keys of tokens while the server runs: read again from their files on SIGHUP, fetched from a URL
//! at an interval, and handed to every shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::{StatusCode, Uri};
use murre_core::{Notice, ServeMail};
use tokio::sync::Notify;

use super::Never;
use crate::http_client::Endpoint;
use crate::hub::HubMail;
use crate::hub::auth::{KeyFiles, Keys};
use crate::routes::{AppMail, AppMailbox};

/// The sources of keys, and the keys in force.
pub(crate) struct TokenKeys {
    files: KeyFiles,
    url: Option<KeySetUrl>,
    from_files: Keys,
    from_url: Keys,
    /// Set by a shard that was asked for a key that it has not.
    wanted: Arc<AtomicBool>,
    reload: Arc<Notify>,
    /// Why the key set could not be fetched at start. It is logged after the start line.
    first_problem: Option<String>,
}

/// The URL of a key set, and the time between two fetches.
#[derive(Clone, Debug)]
pub(crate) struct KeySetUrl {
    pub(crate) url: Uri,
    pub(crate) interval: Duration,
}

/// The longest time for the answer with a key set.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest key set, in bytes.
const BYTES_MAX: usize = 1 << 20;
/// The time between two looks at `wanted`.
const LOOK: Duration = Duration::from_secs(1);
/// The time after a failed fetch, unless the interval is shorter.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

impl TokenKeys {
    /// Reads the files, and fetches the key set once. A fetch that fails leaves the keys of the files.
    ///
    /// # Errors
    /// A file cannot be used. The error names the file, the problem and the remedy.
    pub(crate) fn read(files: KeyFiles, url: Option<KeySetUrl>) -> Result<Self, String> {
        let from_files = Keys::read(&files).map_err(|error| error.to_string())?;
        let (wanted, reload) = (Arc::default(), Arc::default());
        let from_url = Keys::default();
        let first_problem = None;
        let mut keys =
            TokenKeys { files, url, from_files, from_url, wanted, reload, first_problem };
        if let Some(url) = &keys.url {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let fetched = match runtime {
                Ok(runtime) => runtime.block_on(url.fetch()),
                Err(error) => Err(error.to_string()),
            };
            keys.first_problem = keys.take(fetched).err();
        }
        Ok(keys)
    }

    /// The keys in force.
    pub(crate) fn in_force(&self) -> Keys {
        let both = self.from_files.clone().with(self.from_url.clone());
        // `take` has checked it.
        both.unwrap_or_else(|_| self.from_files.clone())
    }

    /// Whether there are keys, or may be later.
    pub(crate) fn has_sources(&self) -> bool {
        self.url.is_some() || !self.from_files.is_empty()
    }

    /// The flag by which a shard asks for an early fetch; `None` without a URL.
    pub(crate) fn wanted(&self) -> Option<Arc<AtomicBool>> {
        self.url.is_some().then(|| Arc::clone(&self.wanted))
    }

    /// Warns if there are so many keys for an algorithm that its tokens need a `kid`.
    pub(crate) fn warn_of_key_ids(&self) {
        let algorithms = self.in_force().algorithms_with_key_ids();
        if !algorithms.is_empty() {
            tracing::warn!(
                algorithms,
                "tokens without `kid` are refused for these algorithms: there are more keys than are \
                 tried for one token; remove keys that no token needs, or let tokens have a `kid`"
            );
        }
    }

    /// Notified on SIGHUP.
    pub(crate) fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// Keeps the keys of all shards current.
    pub(crate) async fn run(mut self, boxes: Arc<[AppMailbox]>) -> Never {
        if let Some(problem) = self.first_problem.take() {
            self.warn(&problem);
        }
        let mut fetched_at = Instant::now();
        let (mut failed, mut early_left) = (self.from_url.is_empty(), true);
        loop {
            let reload = Arc::clone(&self.reload);
            let reloads = match &self.url {
                None => {
                    reload.notified().await;
                    true
                }
                Some(_) => tokio::time::timeout(LOOK, reload.notified()).await.is_ok(),
            };
            if reloads && !self.read_files().await {
                continue;
            }
            if let Some(url) = self.url.clone() {
                let passed = fetched_at.elapsed();
                let due =
                    passed >= if failed { url.interval.min(AFTER_FAILURE) } else { url.interval };
                let early = early_left && self.wanted.swap(false, Ordering::Relaxed);
                if !(reloads || due || early) {
                    continue;
                }
                early_left = !early;
                fetched_at = Instant::now();
                let taken = self.take(url.fetch().await);
                failed = taken.is_err();
                if let Err(problem) = taken {
                    self.warn(&problem);
                }
                if failed && !reloads {
                    continue;
                }
            }
            if hand_over(&self.in_force(), &boxes).await && reloads {
                tracing::info!(keys = self.in_force().len(), "keys of tokens are read again");
                self.warn_of_key_ids();
            }
        }
    }

    /// Reads the files again, on a thread on which a file may block. If one cannot be used, the keys in
    /// force stay.
    async fn read_files(&mut self) -> bool {
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || Keys::read(&files));
        match read.await.expect("it does not panic") {
            Ok(keys) => {
                self.from_files = keys;
                true
            }
            Err(error) => {
                tracing::error!(%error, "keys of tokens are not read again: those in force stay");
                false
            }
        }
    }

    /// Takes a key set that was fetched. If it cannot be used, the former one stays.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn take(&mut self, fetched: Result<Keys, String>) -> Result<(), String> {
        let keys = fetched?;
        self.from_files.clone().with(keys.clone())?;
        self.from_url = keys;
        Ok(())
    }

    fn warn(&self, problem: &str) {
        static NOTICE: Notice = Notice::new();
        if let Some(times) = NOTICE.occurred() {
            tracing::warn!(
                times,
                problem,
                keys = self.in_force().len(),
                flag = "--jwt-key-set-url",
                "the key set cannot be fetched: the keys in force stay, and it is tried again"
            );
        }
    }
}

impl KeySetUrl {
    async fn fetch(&self) -> Result<Keys, String> {
        let keys =
            match Endpoint::new(self.url.clone(), BYTES_MAX).get(Instant::now() + PATIENCE).await {
                Ok(answer) if answer.status == StatusCode::OK => Keys::of_public_set(&answer.body),
                Ok(answer) => Err(format!("it is answered with {}", answer.status)),
                Err(why) => Err(why.to_string()),
            };
        keys.map_err(|why| format!("{}: {why}", self.url))
    }
}

/// Hands keys to every shard. Returns whether all shards have them.
async fn hand_over(keys: &Keys, boxes: &[AppMailbox]) -> bool {
    for (shard, mailbox) in boxes.iter().enumerate() {
        let mut tries = 0..TRIES;
        let mail = || ServeMail::App(AppMail::Hub(HubMail::Keys(keys.clone())));
        while mailbox.post(mail()).is_err() {
            if tries.next().is_none() {
                tracing::error!(
                    shard,
                    "a shard is overloaded and keeps its keys: send SIGHUP again"
                );
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    true
}

/// A shard whose mailbox is full is told again, so often and after this time.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);
