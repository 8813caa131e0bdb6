//! Publications on their way to NATS.
//!
//! One without history is done when the connection has taken it. One with history waits for the acknowledgement of its
//! stream, and is sent again with the same id until that comes or its time is over: the stream keeps it once.

use std::collections::{BTreeMap, VecDeque};
use std::str;
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_router::channels::{AppendId, ChannelError, Position};
use serde::Deserialize;

use super::link::Link;
use super::mail::{FromNats, Mail};
use super::names::{KeptIndex, epoch};
use super::wire::Message;

/// A publication that a shard has handed over.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) shard: usize,
    pub(super) id: AppendId,
    pub(super) subject: Box<str>,
    /// The channel and its namespace, with history.
    pub(super) kept: Option<(KeptIndex, Arc<str>)>,
    /// The bytes that it has taken of the room on the way to the thread.
    pub(super) room: usize,
    pub(super) payload: Vec<u8>,
}

/// Those without an outcome yet, by number, which is their order.
pub(super) struct Publishes {
    incarnation: u64,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// When each is sent again, in this order.
    due: VecDeque<(Instant, u64)>,
    bytes: usize,
    /// When the log was last told that a stream does not take a publication.
    told: Option<Instant>,
}

struct Waiting {
    publish: Publish,
    /// When its publisher is told that it has failed.
    until: Instant,
}

/// What the acknowledgement of a publication says.
pub(super) enum Acknowledged {
    /// It has an outcome.
    Done,
    /// There is no stream that takes it.
    NoStream(KeptIndex),
}

/// An acknowledgement of JetStream.
#[derive(Deserialize)]
struct Ack<'a> {
    #[serde(borrow, default)]
    stream: &'a str,
    #[serde(default)]
    seq: u64,
    error: Option<serde::de::IgnoredAny>,
}

/// The wait for an acknowledgement before a publication is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest wait for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Publications, and bytes of them, that wait at most.
const WAITING_MAX: usize = 1 << 16;
const BYTES_MAX: usize = 64 << 20;
/// Log lines about publications that a stream does not take are so far apart.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The beginning of the end of reply subjects of publications.
const REPLY: char = 'p';

impl Publishes {
    pub(super) fn new(incarnation: u64) -> Self {
        Publishes {
            incarnation,
            next: 0,
            waiting: BTreeMap::new(),
            due: VecDeque::new(),
            bytes: 0,
            told: None,
        }
    }

    /// Number of publications without an outcome.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a publication, and sends it as soon as there is a connection.
    pub(super) fn begin(
        &mut self,
        publish: Publish,
        link: &mut Link,
        mail: &mut Mail,
        now: Instant,
    ) {
        let bytes = self.bytes.saturating_add(publish.payload.len());
        let is_full = self.waiting.len() >= WAITING_MAX || bytes > BYTES_MAX;
        // Without a connection it waits for one.
        if is_full || (link.is_up() && !link.takes(publish.payload.len())) {
            let outcome = Err(ChannelError::Overloaded);
            return mail.add(publish.shard, FromNats::Appended { id: publish.id, outcome });
        }
        let (Some(again), Some(until)) = (now.checked_add(AGAIN), now.checked_add(PATIENCE)) else {
            return;
        };
        let number = self.next;
        self.next = number.saturating_add(1);
        let waiting = Waiting { publish, until };
        if self.send(number, &waiting, link, mail) {
            return;
        }
        self.bytes = bytes;
        self.waiting.insert(number, waiting);
        self.due.push_back((again, number));
    }

    /// Sends a publication. Returns whether that is its end.
    fn send(&self, number: u64, waiting: &Waiting, link: &mut Link, mail: &mut Mail) -> bool {
        let Publish { shard, id, subject, kept, payload, .. } = &waiting.publish;
        if !link.takes(payload.len()) {
            return false;
        }
        if kept.is_none() {
            link.publish(subject, None, None, payload);
            mail.add(*shard, FromNats::Appended { id: *id, outcome: Ok(None) });
            return true;
        }
        let reply = link.reply_subject(format_args!("{REPLY}{number}"));
        let message_id = format!("{:016x}-{number}", self.incarnation);
        link.publish(subject, Some(&reply), Some(&message_id), payload);
        false
    }

    /// Sends again what waits: there is a new connection, or a stream for those of a namespace.
    pub(super) fn again(&mut self, of: Option<KeptIndex>, link: &mut Link, mail: &mut Mail) {
        let is_meant = |waiting: &Waiting| match (&waiting.publish.kept, of) {
            (Some((kept, _)), Some(of)) => *kept == of,
            (_, of) => of.is_none(),
        };
        let meant = self.waiting.iter().filter(|(_, waiting)| is_meant(waiting));
        let ended: Vec<u64> = meant
            .filter(|(number, waiting)| self.send(**number, waiting, link, mail))
            .map(|(number, _)| *number)
            .collect();
        for number in ended {
            self.end(number);
        }
    }

    /// Sends again what has waited for long, and gives up what has waited for too long.
    pub(super) fn tick(&mut self, link: &mut Link, mail: &mut Mail, now: Instant) {
        while let Some(&(due, number)) = self.due.front() {
            if due > now {
                return;
            }
            self.due.pop_front();
            let Some(waiting) = self.waiting.get(&number) else { continue };
            if waiting.until <= now {
                let Publish { shard, id, .. } = waiting.publish;
                let outcome = Err(ChannelError::Overloaded);
                mail.add(shard, FromNats::Appended { id, outcome });
                self.end(number);
            } else if self.send(number, waiting, link, mail) {
                self.end(number);
            } else if let Some(again) = now.checked_add(AGAIN) {
                self.due.push_back((again, number));
            }
        }
    }

    /// Takes a reply to a publication; `None` if it is none.
    pub(super) fn acknowledged(
        &mut self,
        reply: &str,
        message: &Message,
        mail: &mut Mail,
        now: Instant,
    ) -> Option<Acknowledged> {
        let number = reply.strip_prefix(REPLY)?.parse().ok()?;
        // A second acknowledgement of what was sent twice finds nothing.
        let Some(waiting) = self.waiting.get(&number) else { return Some(Acknowledged::Done) };
        let (kept, channel) = waiting.publish.kept.as_ref()?;
        if message.status() == Some(503) {
            return Some(Acknowledged::NoStream(*kept));
        }
        let outcome = match serde_json::from_slice(&message.payload) {
            Ok(Ack { stream, seq, error: None }) if seq > 0 => {
                Ok(Some(Position { epoch: epoch(stream, channel), offset: seq }))
            }
            _ => {
                let since = self.told.map(|told| now.saturating_duration_since(told));
                if since.is_none_or(|since| since >= TELL_EVERY) {
                    self.told = Some(now);
                    let why = String::from_utf8_lossy(&message.payload);
                    tracing::warn!(%why, "a stream does not take publications");
                }
                Err(ChannelError::Overloaded)
            }
        };
        let Publish { shard, id, .. } = waiting.publish;
        mail.add(shard, FromNats::Appended { id, outcome });
        self.end(number);
        Some(Acknowledged::Done)
    }

    fn end(&mut self, number: u64) {
        if let Some(ended) = self.waiting.remove(&number) {
            self.bytes = self.bytes.saturating_sub(ended.publish.payload.len());
        }
    }
}
