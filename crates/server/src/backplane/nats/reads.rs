//! Reads of streams: the newest publications of many channels, and those of one channel from an offset on.
//!
//! A read is answered by any server that keeps the stream, which may be behind the one that takes publications. So
//! an answer that lacks what must be there is asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use murre_router::channels::FetchedPublication;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::channels::Fetch;
use super::envelope;
use super::link::Requests;
use super::names::{Kind, Names};
use super::time;
use super::wire::Message;
use crate::protocols::json::Validator;

/// Reads streams, from tasks on the thread of the link.
#[derive(Clone)]
pub(super) struct Reads {
    pub(super) names: Arc<Names>,
    pub(super) requests: Requests,
}

/// Why a read has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// There is no stream of this name.
    NoStream,
    /// NATS is away, or slow, or the outcome is too large.
    Away,
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
/// Channels of one request; NATS has a limit of 1,024.
pub(super) const CHANNELS_MAX: usize = 1000;
/// Messages of one request.
const BATCH: u32 = 512;
/// Bytes of one read at most.
const BYTES_MAX: usize = 64 << 20;
/// Attempts to find what a server that is behind has not yet.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The number of this error of the JetStream API.
const STREAM_NOT_FOUND: u64 = 10059;

impl Heads {
    /// The offset after which what comes to a channel is new.
    pub(super) fn of(&self, channel: &str) -> u64 {
        self.kept.get(channel).copied().unwrap_or(self.others)
    }
}

impl Reads {
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
        let subjects = channels.iter().map(|channel| self.names.subject(Kind::ToStream, channel));
        let question = json!({"multi_last": subjects.collect::<Vec<_>>()});
        let mut kept = HashMap::with_capacity(channels.len());
        self.read(stream, &question, |message| {
            let channel = message.header("Nats-Subject").and_then(Names::channel);
            kept.extend(channel.zip(message.number("Nats-Sequence")));
        })
        .await?;
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
        let &Fetch { ref channel, kept, after, up_to, .. } = fetch;
        let subject = self.names.subject(Kind::ToStream, channel);
        let now_ms = unix_ms();
        let mut validator = Validator::default();
        let mut publications = Vec::new();
        let (mut next, mut bytes, mut attempts) = (after, 0_usize, 0_u32);
        // Messages in the range, and whether the one before it is there.
        let (mut count, mut has_before) = (0_u64, false);
        while up_to.is_none_or(|up_to| next <= up_to) {
            let question = json!({"seq": next.max(1), "next_by_subj": subject, "batch": BATCH});
            let mut found = false;
            let end = self
                .read(stream, &question, |message| {
                    let Some(offset) = message.number("Nats-Sequence") else { return };
                    if offset < next {
                        return;
                    }
                    found = true;
                    next = offset.saturating_add(1);
                    has_before |= offset == after;
                    if offset == after || up_to.is_some_and(|up_to| offset > up_to) {
                        return;
                    }
                    count = count.saturating_add(1);
                    bytes = bytes.saturating_add(message.payload.len());
                    // What others than nodes have published is nothing.
                    if let Some((payload, _)) = envelope::open(&message.payload, &mut validator) {
                        let at = message.header("Nats-Time-Stamp").and_then(time::unix_ms);
                        let age_ms = at.map_or(0, |at| now_ms.saturating_sub(at));
                        publications.push(FetchedPublication { offset, age_ms, payload });
                    }
                })
                .await?;
            if bytes > BYTES_MAX {
                return Err(ReadError::Away);
            }
            let is_all = end.is_none_or(|end| end.number("Nats-Num-Pending").unwrap_or(0) == 0);
            match up_to {
                Some(up_to) if next <= up_to && is_all => {
                    // The message at the end was there once. It has been dropped, or this server is behind.
                    attempts = attempts.saturating_add(u32::from(!found));
                    if attempts >= ATTEMPTS {
                        break;
                    }
                    sleep(PAUSE).await;
                }
                None if is_all => break,
                _ => {}
            }
        }
        let kept = &self.names.kept()[kept];
        let is_complete = has_before
            || count < u64::from(kept.size)
                && (missed_for < kept.ttl
                    // Messages that are too old are dropped in the order of the stream.
                    || self.extent(stream).await?.first <= after.saturating_add(1));
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

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
