//! Reads of streams: the newest publications of many channels, and those of one channel from an offset on.
//!
//! A read is answered by any server that keeps the stream, which may be behind the one that takes publications. The
//! owner of a channel notices an answer that is older than what has arrived, and asks again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use murre_router::channels::FetchedPublication;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
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
    /// Whether the stream has dropped none of them.
    pub(super) is_complete: bool,
}

/// How much of its sequence a stream has.
struct Extent {
    first: u64,
    last: u64,
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
/// Bytes of one read at most.
const BYTES_MAX: usize = 64 << 20;
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
    pub(super) fn of(&self, channel: &str) -> u64 {
        self.kept.get(channel).copied().unwrap_or(self.others)
    }
}

impl Reads {
    pub(super) fn new(names: Arc<Names>, requests: Requests, clock: Arc<NatsClock>) -> Self {
        Reads { names, requests, clock, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
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

    /// The publications that a fetch wants. Messages of the last `missed_for` may have been missed, no older ones.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) async fn range(
        &self,
        stream: &str,
        fetch: &Fetch,
        missed_for: Duration,
    ) -> Result<Read, ReadError> {
        let &Fetch { ref channel, kept, after, .. } = fetch;
        let subject = self.names.subject(Kind::ToStream, channel);
        let mut validator = Validator::default();
        let mut publications = Vec::new();
        let (mut next, mut bytes) = (after, 0_usize);
        // Messages behind `after`, and whether there is one at it.
        let (mut count, mut has_before) = (0_u64, false);
        loop {
            let question = json!({
                "seq": next.max(1),
                "next_by_subj": subject,
                "batch": BATCH,
                "max_bytes": BATCH_BYTES,
            });
            let end = self.read(stream, &question, |message| {
                let Some(offset) = message.number("Nats-Sequence") else { return };
                if offset < next {
                    return;
                }
                next = offset.saturating_add(1);
                if offset == after {
                    has_before = true;
                    return;
                }
                count = count.saturating_add(1);
                bytes = bytes.saturating_add(message.payload.len());
                // What others than nodes have published is nothing.
                if let Some((payload, _)) = envelope::open(&message.payload, &mut validator) {
                    let at = message.header("Nats-Time-Stamp").and_then(time::unix_ms);
                    let age_ms = at.map_or(0, |at| self.clock.since(at).as_millis() as u64);
                    publications.push(FetchedPublication { offset, age_ms, payload });
                }
            });
            let end = end.await?;
            if bytes > BYTES_MAX {
                return Err(ReadError::TooLarge);
            }
            if end.is_none_or(|end| end.number("Nats-Num-Pending").unwrap_or(0) == 0) {
                break;
            }
        }
        let kept = &self.names.kept()[kept];
        let is_complete = has_before
            || count < u64::from(kept.size)
                && (missed_for < kept.ttl
                    // Messages that are too old are dropped in the order of the stream.
                    || self.extent(stream).await?.has_all_after(after));
        Ok(Read { publications, is_complete })
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
