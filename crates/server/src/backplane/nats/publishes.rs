//! Publications on their way to NATS.
//!
//! One without history is done when the connection has taken it. One with history waits for the acknowledgement of its
//! stream. A stream acknowledges in the order in which it has taken publications, so one is lost when another one
//! that was sent later is acknowledged. It is sent again then, with the same id: the stream keeps it once. When a
//! stream acknowledges nothing at all, one publication a second is sent again.

use std::collections::{BTreeMap, VecDeque};
use std::str;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use murre_router::channels::{AppendId, ChannelError, Position};
use serde::Deserialize;

use super::Shared;
use super::link::Link;
use super::mail::{FromNats, Mail};
use super::names::{KeptIndex, epoch};
use super::settings::Kept;
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
    shared: Arc<Shared>,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// When each is looked at again, in this order.
    due: VecDeque<(Instant, u64)>,
    bytes: usize,
    streams: Vec<Stream>,
    /// The number of the connection.
    connection: u64,
    /// Publications with history that were sent.
    sent: u64,
    /// When the log was last told that a stream does not take a publication.
    told: Option<Instant>,
}

struct Waiting {
    publish: Publish,
    /// `None` if it was not sent, or if there was no stream that takes it.
    sent: Option<Sent>,
    /// When it is not sent again any more.
    again_until: Instant,
    /// When its publisher is told that it has failed.
    until: Instant,
}

/// The last time that a publication was sent.
#[derive(Clone, Copy)]
struct Sent {
    connection: u64,
    /// The number of publications that were sent before.
    order: u64,
}

/// What waits for one stream.
struct Stream {
    /// The longest time for which the stream is certain to know a publication again.
    repeat_for: Duration,
    /// Number of publications that wait for it.
    waiting: usize,
    /// The greatest order among those that it has acknowledged.
    acknowledged: u64,
    /// When it has acknowledged one, or one was sent again though it has not.
    heard: Option<Instant>,
}

/// What the acknowledgement of a publication says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// Nothing is left to do.
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
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u64,
}

/// The wait for an acknowledgement before a publication is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest wait for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Publications, and bytes of them, that wait at most.
const WAITING_MAX: usize = 1 << 16;
const BYTES_MAX: usize = 64 << 20;
/// Publications that wait for one stream at most. NATS queues 10,000 for a stream (100,000 since 2.14), and refuses those
/// that come then (`max_buffered_msgs`).
const OF_STREAM_MAX: usize = 8192;
/// Lines about publications that a stream does not take are so far apart.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The beginning of the end of reply subjects of publications.
const REPLY: char = 'p';
/// An error of JetStream: a publication with this id is being stored (`server/errors.json`).
const BEING_STORED: u64 = 10158;

impl Publishes {
    /// Nothing on its way to the streams of these namespaces.
    pub(super) fn new(shared: Arc<Shared>, kept: &[Kept]) -> Self {
        let stream = |kept: &Kept| Stream {
            // A stream forgets an id when publications expire, if that is earlier than otherwise.
            repeat_for: PATIENCE.min(kept.ttl.checked_div(2).unwrap_or_default()),
            waiting: 0,
            acknowledged: 0,
            heard: None,
        };
        Publishes {
            shared,
            next: 0,
            waiting: BTreeMap::new(),
            due: VecDeque::new(),
            bytes: 0,
            streams: kept.iter().map(stream).collect(),
            connection: 0,
            sent: 0,
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
        if publish.kept.is_none() && link.takes(publish.payload.len()) {
            return send_plain(&publish, link, mail);
        }
        let stream = publish.kept.as_ref().map(|(kept, _)| &mut self.streams[*kept]);
        let bytes = self.bytes.saturating_add(publish.payload.len());
        let is_full = self.waiting.len() >= WAITING_MAX
            || bytes > BYTES_MAX
            || stream.as_ref().is_some_and(|stream| stream.waiting >= OF_STREAM_MAX);
        // Without a connection it waits for one.
        if is_full || (link.is_up() && !link.takes(publish.payload.len())) {
            return refuse(&publish, mail);
        }
        let repeat_for = stream.as_ref().map_or(PATIENCE, |stream| stream.repeat_for);
        let at = |time| now.checked_add(time);
        let (Some(due), Some(again_until), Some(until)) = (at(AGAIN), at(repeat_for), at(PATIENCE))
        else {
            return;
        };
        if let Some(stream) = stream {
            stream.waiting = stream.waiting.saturating_add(1);
        }
        self.bytes = bytes;
        let number = self.next;
        self.next = number.saturating_add(1);
        self.waiting.insert(number, Waiting { publish, sent: None, again_until, until });
        self.due.push_back((due, number));
        self.send(number, link, mail);
    }

    /// Sends a publication, if the connection takes it.
    fn send(&mut self, number: u64, link: &mut Link, mail: &mut Mail) {
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        let Publish { subject, kept, payload, .. } = &waiting.publish;
        if !link.takes(payload.len()) {
            return;
        }
        if kept.is_none() {
            send_plain(&waiting.publish, link, mail);
            return self.end(number);
        }
        let order = self.sent;
        self.sent = order.saturating_add(1);
        let reply = link.reply_subject(format_args!("{REPLY}{number}-{order}"));
        let message_id = format!("{:016x}-{number}", self.shared.node.incarnation);
        link.publish(subject, Some(&reply), Some(&message_id), payload);
        if waiting.sent.is_some() {
            self.shared.counts.repeated.fetch_add(1, Relaxed);
        }
        waiting.sent = Some(Sent { connection: self.connection, order });
    }

    /// Sends what waits, and once more what another connection has taken: there is a new one.
    pub(super) fn connected(&mut self, link: &mut Link, mail: &mut Mail, now: Instant) {
        self.connection = self.connection.saturating_add(1);
        let is_repeated = |waiting: &&Waiting| waiting.sent.is_none() || now < waiting.again_until;
        let numbers: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| is_repeated(waiting))
            .map(|(number, _)| *number)
            .collect();
        numbers.into_iter().for_each(|number| self.send(number, link, mail));
    }

    /// Sends what no stream has taken: there is one for those of a namespace.
    pub(super) fn stream_found(&mut self, of: KeptIndex, link: &mut Link, mail: &mut Mail) {
        let is_meant = |waiting: &&Waiting| {
            let kept = waiting.publish.kept.as_ref();
            waiting.sent.is_none() && kept.is_some_and(|(kept, _)| *kept == of)
        };
        let numbers: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| is_meant(waiting))
            .map(|(number, _)| *number)
            .collect();
        numbers.into_iter().for_each(|number| self.send(number, link, mail));
    }

    /// Sends again what is lost, and gives up what has waited for too long.
    pub(super) fn tick(&mut self, link: &mut Link, mail: &mut Mail, now: Instant) {
        while let Some(&(due, number)) = self.due.front() {
            if due > now {
                return;
            }
            self.due.pop_front();
            let Some(waiting) = self.waiting.get(&number) else { continue };
            if waiting.until <= now {
                refuse(&waiting.publish, mail);
                self.end(number);
                continue;
            }
            if self.is_sent_now(number, now) {
                self.send(number, link, mail);
            }
            if let Some(again) = now.checked_add(AGAIN) {
                self.due.push_back((again, number));
            }
        }
    }

    /// Whether a publication that has waited is sent now, or again.
    fn is_sent_now(&mut self, number: u64, now: Instant) -> bool {
        let Some(Waiting { publish, sent, again_until, .. }) = self.waiting.get(&number) else {
            return false;
        };
        let (Some(sent), Some((kept, _))) = (sent, &publish.kept) else { return true };
        let stream = &mut self.streams[*kept];
        if now >= *again_until {
            false
        } else if sent.connection != self.connection || sent.order < stream.acknowledged {
            true
        } else {
            let silence = stream.heard.map(|heard| now.saturating_duration_since(heard));
            let is_probe = silence.is_none_or(|silence| silence >= AGAIN);
            if is_probe {
                stream.heard = Some(now);
            }
            is_probe
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
        let (number, order) = reply.strip_prefix(REPLY)?.split_once('-')?;
        let (number, order): (u64, u64) = (number.parse().ok()?, order.parse().ok()?);
        // A second acknowledgement of what was sent twice finds nothing.
        let Some(waiting) = self.waiting.get_mut(&number) else { return Some(Acknowledged::Done) };
        let (kept, channel) = waiting.publish.kept.as_ref()?;
        if message.status() == Some(503) {
            let kept = *kept;
            // Another sending may be on its way.
            waiting.sent.take_if(|sent| sent.order == order);
            return Some(Acknowledged::NoStream(kept));
        }
        let outcome = match serde_json::from_slice(&message.payload) {
            Ok(Ack { stream, seq, error: None }) if seq > 0 => {
                let of = &mut self.streams[*kept];
                of.acknowledged = of.acknowledged.max(order);
                of.heard = Some(now);
                Ok(Some(Position { epoch: epoch(stream, channel), offset: seq }))
            }
            Ok(Ack { error: Some(AckError { err_code: BEING_STORED }), .. }) => {
                return Some(Acknowledged::Done);
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
        if let Some(Waiting { publish, .. }) = self.waiting.remove(&number) {
            self.bytes = self.bytes.saturating_sub(publish.payload.len());
            if let Some((kept, _)) = publish.kept {
                let stream = &mut self.streams[kept];
                stream.waiting = stream.waiting.saturating_sub(1);
            }
        }
    }
}

/// Sends a publication without history, which is its end.
fn send_plain(publish: &Publish, link: &mut Link, mail: &mut Mail) {
    let Publish { shard, id, subject, payload, .. } = publish;
    link.publish(subject, None, None, payload);
    mail.add(*shard, FromNats::Appended { id: *id, outcome: Ok(None) });
}

/// Tells the publisher that its publication has failed.
fn refuse(Publish { shard, id, .. }: &Publish, mail: &mut Mail) {
    mail.add(*shard, FromNats::Appended { id: *id, outcome: Err(ChannelError::Overloaded) });
}

#[cfg(test)]
mod tests;
