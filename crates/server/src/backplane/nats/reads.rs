//! Reads of streams: the newest publications of many channels, and those of one channel from an offset on.
//!
//! A read is answered by any server that keeps the stream, which may be behind the one that takes publications. The
//! owner of a channel notices an answer that is older than what has arrived, and asks again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_router::channels::{FetchReason, FetchedPublication, Head};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

use super::channels::Fetch;
use super::envelope;
use super::link::Requests;
use super::names::{Kind, Names};
use super::time::{self, NatsClock};
use super::wire::Message;
use crate::protocols::json::Validator;

/// Reads streams, from tasks on the thread of the link.
#[derive(Clone)]
pub(super) struct Reads {
    names: Arc<Names>,
    requests: Requests,
    clock: Arc<NatsClock>,
    /// Bounds what NATS sends at once: it closes a connection for which too much waits.
    at_once: Arc<Semaphore>,
    extent: Arc<Mutex<Option<ExtentRead>>>,
}

/// Why a read has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// There is no stream of this name.
    NoStream,
    /// NATS is away, or slow.
    Away,
    /// There are more bytes than a node takes at once.
    TooLarge,
}

/// The newest publications of some channels.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Their offsets, by channel.
    kept: HashMap<String, u64>,
    /// A sequence of the stream, below which all of those without one are that have been there.
    others: u64,
}

/// Publications of one channel.
#[derive(Debug)]
pub(super) struct Read {
    /// Oldest first.
    pub(super) publications: Vec<FetchedPublication>,
    /// The offset of the last message that was read.
    pub(super) reached: u64,
    /// Whether these are the first part.
    pub(super) has_more: bool,
    /// Whether the stream has dropped none of them.
    pub(super) is_complete: bool,
}

/// How much of its sequence a stream has.
#[derive(Clone, Copy)]
struct Extent {
    first: u64,
    last: u64,
}

/// The last answer about a stream, and when it was asked for.
struct ExtentRead {
    stream: String,
    asked: Instant,
    extent: Extent,
}

/// The messages of one channel after an offset.
struct Messages {
    after: u64,
    /// The offset of the next one at least.
    next: u64,
    /// Whether there is one at `after`.
    has_before: bool,
    count: u64,
    bytes: usize,
    publications: Vec<FetchedPublication>,
    validator: Validator,
}

/// The longest wait for one message of an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause before a server that was behind is asked again.
const BEHIND: Duration = Duration::from_millis(100);
/// Channels of one look-up; NATS has a limit of 1,024.
pub(super) const CHANNELS_MAX: usize = 1000;
/// Messages of one request, and bytes of them.
const BATCH: u32 = 512;
const BATCH_BYTES: usize = 4 << 20;
/// Requests for messages at once.
const AT_ONCE: usize = 8;
/// Bytes of one read at most, and of a part of a gap.
const BYTES_MAX: usize = 64 << 20;
const PART_BYTES: usize = 4 << 20;
/// A stream has published again what it has taken within this time, so that a connection in order has passed it on.
const REPUBLISHED: Duration = Duration::from_secs(2);
/// The number of this error of the JetStream API.
const STREAM_NOT_FOUND: u64 = 10059;

impl Extent {
    /// Whether no message after this one was too old.
    fn has_all_after(&self, after: u64) -> bool {
        self.first <= after.saturating_add(1) && after <= self.last
    }
}

impl Heads {
    /// The newest offset of the stream.
    pub(super) fn newest(&self) -> u64 {
        self.others
    }

    /// The offset after which what comes to a channel is new.
    pub(super) fn of(&self, channel: &str, epoch: u32) -> Head {
        let kept = self.kept.get(channel).copied();
        Head { epoch, newest: kept.unwrap_or(self.others), is_kept: kept.is_some() }
    }
}

impl Messages {
    fn after(after: u64) -> Self {
        Messages {
            after,
            next: after,
            has_before: false,
            count: 0,
            bytes: 0,
            publications: Vec::new(),
            validator: Validator::default(),
        }
    }

    fn take(&mut self, message: &Message, clock: &NatsClock) {
        let Some(offset) = message.number("Nats-Sequence") else { return };
        if offset < self.next {
            return;
        }
        self.next = offset.saturating_add(1);
        if offset == self.after {
            self.has_before = true;
            return;
        }
        self.count = self.count.saturating_add(1);
        // What others than nodes have published is nothing.
        let Some((payload, _)) = envelope::open(&message.payload, &mut self.validator) else {
            return;
        };
        self.bytes = self.bytes.saturating_add(message.payload.len());
        let at = message.header("Nats-Time-Stamp").and_then(time::unix_ms);
        let age_ms = at.map_or(0, |at| clock.since(at).as_millis() as u64);
        self.publications.push(FetchedPublication { offset, age_ms, payload });
    }
}

impl Reads {
    pub(super) fn new(names: Arc<Names>, requests: Requests, clock: Arc<NatsClock>) -> Self {
        Reads {
            names,
            requests,
            clock,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            extent: Arc::default(),
        }
    }

    /// The newest publication of each of these channels, at most [`CHANNELS_MAX`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) async fn heads(
        &self,
        stream: &str,
        channels: &[Arc<str>],
    ) -> Result<Heads, ReadError> {
        // Before the channels: what comes later to one of them has a greater offset.
        let others = self.extent(stream).await?.last;
        let mut kept: HashMap<String, u64> = HashMap::with_capacity(channels.len());
        loop {
            let left = channels.iter().filter(|channel| !kept.contains_key(&***channel));
            let subjects: Vec<_> =
                left.map(|channel| self.names.subject(Kind::ToStream, channel)).collect();
            let question = json!({"multi_last": subjects, "max_bytes": BATCH_BYTES});
            let found_before = kept.len();
            let end = self.read(stream, &question, |message| {
                let channel = message.header("Nats-Subject").and_then(Names::channel);
                kept.extend(channel.zip(message.number("Nats-Sequence")));
            });
            let end = end.await?;
            let number = |name| end.as_ref().and_then(|end| end.number(name));
            // A server that is behind the leader has older ones.
            if number("Nats-UpTo-Sequence").is_some_and(|newest| newest < others) {
                sleep(BEHIND).await;
                return Err(ReadError::Away);
            }
            let pending = number("Nats-Num-Pending");
            if pending.unwrap_or(0) == 0 || kept.len() == found_before {
                break;
            }
        }
        Ok(Heads { kept, others })
    }

    /// The publications that a fetch wants, or the first part of a gap.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) async fn range(&self, stream: &str, fetch: &Fetch) -> Result<Read, ReadError> {
        let &Fetch { ref channel, kept, after, reason, missed_since, .. } = fetch;
        let subject = self.names.subject(Kind::ToStream, channel);
        let is_gap = matches!(reason, FetchReason::Gap { .. });
        let bytes_max = if is_gap { PART_BYTES } else { BYTES_MAX };
        let mut read = Messages::after(after);
        // Messages after `after` that the stream has, here or not.
        let mut total = None;
        let has_more = loop {
            let question = json!({
                "seq": read.next.max(1),
                "next_by_subj": subject,
                "batch": BATCH,
                "max_bytes": BATCH_BYTES,
            });
            let answer =
                self.read(stream, &question, |message| read.take(message, &self.clock)).await;
            let pending = match answer {
                Ok(end) => end.and_then(|end| end.number("Nats-Num-Pending")).unwrap_or(0),
                // What has come is of use if it is known whether it is all up to there.
                Err(ReadError::Away)
                    if is_gap
                        && !read.publications.is_empty()
                        && (read.has_before || total.is_some()) =>
                {
                    break true;
                }
                Err(why) => return Err(why),
            };
            total = Some(read.count.saturating_add(pending));
            if pending == 0 {
                break false;
            }
            if read.bytes >= bytes_max {
                match reason {
                    FetchReason::Gap { .. } => break true,
                    FetchReason::Recovery => {
                        // More than a node keeps for it: it is told that it has missed something.
                        let publications = Vec::new();
                        let reached = after;
                        return Ok(Read {
                            publications,
                            reached,
                            has_more: false,
                            is_complete: false,
                        });
                    }
                    FetchReason::History => return Err(ReadError::TooLarge),
                }
            }
        };
        let kept = &self.names.kept()[kept];
        let is_recent = || {
            let missed_for = missed_since.map(|since| since.elapsed().saturating_add(REPUBLISHED));
            missed_for.is_some_and(|missed_for| missed_for < kept.ttl)
        };
        let is_complete = read.has_before
            || total.is_some_and(|total| total < u64::from(kept.size))
                && (is_recent()
                    // Messages that are too old are dropped in the order of the stream.
                    || self.extent_now(stream).await?.has_all_after(after));
        let Messages { publications, next, .. } = read;
        let reached = next.saturating_sub(1).max(after);
        Ok(Read { publications, reached, has_more, is_complete })
    }

    /// How much of its sequence a stream has, at a time from now on. Many that ask at once have one answer.
    async fn extent_now(&self, stream: &str) -> Result<Extent, ReadError> {
        let now = Instant::now();
        let mut last = self.extent.lock().await;
        if let Some(ExtentRead { stream: of, asked, extent }) = &*last
            && of == stream
            && *asked >= now
        {
            return Ok(*extent);
        }
        let asked = Instant::now();
        let extent = self.extent(stream).await?;
        *last = Some(ExtentRead { stream: stream.to_owned(), asked, extent });
        Ok(extent)
    }

    /// How much of its sequence a stream has.
    async fn extent(&self, stream: &str) -> Result<Extent, ReadError> {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let answer = self.requests.ask(subject, b"{}".to_vec(), PATIENCE).await;
        let answer = answer.map_err(|_| ReadError::Away)?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|_| ReadError::Away)?;
        let state = &answer["state"];
        match (state["first_seq"].as_u64(), state["last_seq"].as_u64()) {
            (Some(first), Some(last)) => Ok(Extent { first, last }),
            _ if answer["error"]["err_code"] == STREAM_NOT_FOUND => Err(ReadError::NoStream),
            _ => Err(ReadError::Away),
        }
    }

    /// Passes each message of an answer to `each`. Returns the message that ends it, if it says more than that
    /// nothing was found.
    async fn read(
        &self,
        stream: &str,
        question: &Value,
        mut each: impl FnMut(&Message),
    ) -> Result<Option<Message>, ReadError> {
        const WHOLE: Duration = Duration::from_secs(60);
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let _turn = self.at_once.acquire().await.map_err(|_| ReadError::Away)?;
        let mut answer = self.requests.send(subject, question.to_string().into_bytes(), WHOLE);
        loop {
            let message = timeout(PATIENCE, answer.recv()).await;
            let message = message.ok().flatten().ok_or(ReadError::Away)?;
            match message.status() {
                None => each(&message),
                Some(204) => return Ok(Some(message)),
                Some(404) => return Ok(None),
                Some(503) => return Err(ReadError::NoStream),
                Some(status) => {
                    tracing::warn!(stream, status, "a read of a stream failed");
                    return Err(ReadError::Away);
                }
            }
        }
    }
}
