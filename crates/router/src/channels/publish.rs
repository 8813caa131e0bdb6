//! Publications on their way in: to the owner, past the backplane, into history and logs.

use super::backplane::{Append, AppendId, Outgoing};
use super::channel::{Channel, NONE};
use super::event::{ChannelError, Event};
use super::limits::ChannelLimits;
use super::message::ShardMessage;
use super::owner::ShardInterest;
use super::pending::Appending;
use super::publication::{HistoryQuery, Origin, Payload, Position, Publication, Publisher};
use super::shard::Channels;
use super::subscribers::Encoded;
use crate::memory::Trim;
use crate::names::{Shard, Ticket};

/// Milliseconds between two reviews of full logs.
const REVIEW_MS: u64 = 20;

impl<E: Encoded> Channels<E> {
    /// Publishes to a channel. `Event::Published` reports the outcome, see [`Publisher::ticket`].
    ///
    /// # Errors
    /// `Overloaded`. No event follows then.
    pub fn publish(
        &mut self,
        channel: &str,
        payload: Payload,
        publisher: Publisher,
        now: u64,
    ) -> Result<(), ChannelError> {
        let hash = self.hashing.hash(channel.as_bytes());
        let owner = self.owner_of(hash);
        if owner != self.shard {
            if self.is_overloaded(owner) {
                return Err(ChannelError::Overloaded);
            }
            // Another shard owns it, so only a subscription can have brought the name here.
            let channel = self.subscribed_name(hash, channel);
            self.outboxes[usize::from(owner)].push(ShardMessage::Publish {
                channel,
                payload,
                publisher,
            });
            return Ok(());
        }
        match self.accept(owner, hash, channel, payload, publisher, now) {
            Some(Err(refused)) => return Err(refused),
            Some(outcome) if publisher.ticket.is_some() => {
                let channel = self.name(hash, channel).text;
                self.report_outcome(owner, publisher, channel, outcome);
            }
            _ => {}
        }
        Ok(())
    }

    /// As the owner: numbers a publication, passes it to the broker, or refuses it. Returns the outcome, or
    /// `None` if the broker reports it later.
    pub(super) fn accept(
        &mut self,
        from: Shard,
        hash: u32,
        channel: &str,
        payload: Payload,
        publisher: Publisher,
        now: u64,
    ) -> Option<Result<Option<Position>, ChannelError>> {
        let key = self.owner.find(hash, channel);
        let refuses = key.is_some_and(|key| self.refuses(key, now));
        if refuses || self.appending.len() >= self.limits.messages_max {
            return Some(Err(ChannelError::Overloaded));
        }
        let id = AppendId(self.appending.vacant_key() as u32);
        let except = publisher.except.then_some(publisher.origin);
        let keeps_history = self.owner.keeps_history(key, channel);
        let outgoing = Outgoing { channel, payload: &payload, except, keeps_history };
        match self.owner.backplane.append(id, outgoing) {
            Append::Number => Some(Ok(self.number(key, hash, channel, payload, except, now))),
            Append::Later => {
                let channel = self.name(hash, channel).text;
                self.appending.insert(Appending { channel, publisher, from });
                None
            }
            Append::Refuse => Some(Err(ChannelError::Overloaded)),
        }
    }

    /// Takes the outcome of a publication that was passed to the broker: its position, in a channel with
    /// history. Subscribers get it when it [arrives](Self::arrived).
    ///
    /// # Panics
    /// If no publication with this id waits for the broker.
    pub fn appended(&mut self, id: AppendId, outcome: Result<Option<Position>, ChannelError>) {
        let Appending { channel, publisher, from } = self.appending.remove(id.0 as usize);
        self.appending.trim();
        self.report_outcome(from, publisher, channel, outcome);
    }

    /// Reports an outcome to the publisher, if the publication has a ticket or is refused.
    pub(super) fn report_outcome(
        &mut self,
        to: Shard,
        Publisher { origin, ticket, .. }: Publisher,
        channel: std::sync::Arc<str>,
        outcome: Result<Option<Position>, ChannelError>,
    ) {
        if ticket.is_none() && outcome.is_ok() {
            return;
        }
        if to == self.shard {
            self.events.push_back(Event::Published { ticket, origin, channel, outcome });
        } else {
            let message = ShardMessage::Published { ticket, origin, channel, outcome };
            self.outboxes[usize::from(to)].push(message);
        }
    }

    /// Whether the owner refuses publications to a channel: a shard that would get them is behind, or
    /// holds keep as much history as the bounds allow.
    pub(super) fn refuses(&mut self, key: u32, now: u64) -> bool {
        let is_full = |interest: &ShardInterest| {
            interest.is_behind
                || self.behind[usize::from(interest.shard)]
                || self.is_overloaded(interest.shard)
        };
        let ChannelLimits { log_bytes_max, history_bytes_max, .. } = self.limits;
        self.owner.interests(key).iter().any(is_full)
            || self.owner.is_overheld(key, log_bytes_max, history_bytes_max, now)
    }

    /// As the owner: numbers a publication, keeps it, and sends it to the interested shards.
    pub(super) fn number(
        &mut self,
        key: Option<u32>,
        hash: u32,
        channel: &str,
        payload: Payload,
        except: Option<Origin>,
        now: u64,
    ) -> Option<Position> {
        let key = match key {
            Some(key) => key,
            None => {
                // Without history and subscribers nobody gets it, now or later.
                let retention = self.owner.retention(channel)?;
                self.owner.add(self.name(hash, channel), Some(retention))
            }
        };
        let (index, publication) = self.owner.append(key, None, payload, except, now);
        let position = publication.position;
        self.send_publication(key, index, publication, now);
        self.owner.evict(self.limits.history_bytes_max);
        position
    }

    /// As the owner: sends a publication to the interested shards.
    pub(super) fn send_publication(
        &mut self,
        key: u32,
        index: u64,
        publication: Publication,
        now: u64,
    ) {
        let mut here = None;
        for &ShardInterest { shard, key, .. } in self.owner.interests(key) {
            if shard == self.shard {
                here = Some(key);
                continue;
            }
            let publication = publication.clone();
            let message = ShardMessage::Publication { key, index, publication };
            self.outboxes[usize::from(shard)].push(message);
        }
        if let Some(key) = here {
            self.log(key, index, publication, now);
        }
    }

    /// Reads the history of a channel. `Event::History` has the page.
    ///
    /// # Errors
    /// `NoHistory` and `Overloaded`.
    pub fn history(
        &mut self,
        channel: &str,
        query: HistoryQuery,
        ticket: Ticket,
        now: u64,
    ) -> Result<(), ChannelError> {
        if self.owner.retention(channel).is_none() {
            return Err(ChannelError::NoHistory);
        }
        let hash = self.hashing.hash(channel.as_bytes());
        let owner = self.owner_of(hash);
        if self.is_overloaded(owner) {
            return Err(ChannelError::Overloaded);
        }
        let channel = self.name(hash, channel);
        self.send(owner, ShardMessage::Read { channel, query, ticket }, now);
        Ok(())
    }

    /// Appends a publication to the log of its channel on this shard. If the channel has been forgotten,
    /// the key may belong to another channel; a new record of the same channel has no subscribers before
    /// it has joined.
    pub(super) fn log(&mut self, key: u32, index: u64, publication: Publication, now: u64) {
        match self.channels.get(key) {
            Some((name, channel)) if name.is(&publication.channel) && channel.joined => {}
            _ => return,
        }
        let channel = self.channels.value_mut(key);
        let listed = channel.subscribers.len() as u32;
        if listed == 0 && channel.log == NONE {
            return;
        }
        let keeps_history = channel.keeps_history;
        let log = self.logs.open(key, channel, index);
        assert!(!keeps_history || index == self.logs[log].end(), "a gap");
        self.logs.push(log, listed, publication);
        self.logs.trim(log);
        self.logs.evict(log, &mut self.readers, now);
        self.update_full(log);
        self.limit_logs(now);
        self.update_backpressure();
    }

    /// Drops publications beyond the bound of all logs, or notes that they cannot be dropped now.
    pub(super) fn limit_logs(&mut self, now: u64) {
        let bytes_max = self.limits.logs_bytes_max;
        if self.logs.bytes() > bytes_max && !self.logs_are_full {
            self.logs.evict_oldest(bytes_max, &mut self.readers, now);
            self.logs_are_full = self.logs.bytes() > bytes_max;
        }
    }

    /// Reviews full logs: readers that have become slow hold nothing any more.
    pub(super) fn review(&mut self, now: u64) {
        if !self.has_full_logs() || now < self.next_review {
            return;
        }
        self.next_review = now.saturating_add(REVIEW_MS);
        let mut next = self.logs.full.first().copied();
        while let Some(log) = next {
            self.logs.evict(log, &mut self.readers, now);
            self.logs.is_held(log, &mut self.readers, now);
            self.update_full(log);
            next = self.logs.full.range(log + 1..).next().copied();
        }
        if self.logs_are_full {
            self.logs.evict_oldest(self.limits.logs_bytes_max / 2, &mut self.readers, now);
        }
        self.update_backpressure();
    }

    pub(super) fn has_full_logs(&self) -> bool {
        self.logs_are_full || !self.logs.full.is_empty()
    }

    /// Tells the owner of a channel when the channel's log on this shard becomes full, and when it has
    /// room again.
    pub(super) fn update_full(&mut self, log: u32) {
        let was_full = self.logs[log].is_behind;
        let is_full = match was_full {
            true => !self.logs.has_room(log),
            false => self.logs.is_full(log),
        };
        if is_full != was_full {
            self.set_full(log, is_full);
        }
    }

    fn set_full(&mut self, log: u32, behind: bool) {
        self.logs[log].is_behind = behind;
        match behind {
            true => _ = self.logs.full.insert(log),
            false => _ = self.logs.full.remove(&log),
        }
        let key = self.logs[log].channel.expect("a log that is forgotten is not full");
        let Channel { owner, .. } = *self.channels.value(key);
        let channel = self.channels.name(key).clone();
        match owner == self.shard {
            true => self.owner.set_behind(&channel, owner, behind),
            false => self.outboxes[usize::from(owner)]
                .push(ShardMessage::ChannelBehind { channel, behind }),
        }
    }

    /// Removes a log that is idle.
    pub(super) fn close_log(&mut self, log: u32) {
        assert!(!self.logs[log].is_behind, "an empty log has room");
        if let Some(key) = self.logs[log].channel {
            self.channels.value_mut(key).log = NONE;
        }
        self.logs.remove(log);
    }

    /// Tells all other shards when the deliveries or the logs of this shard reach their bound, and when
    /// they are down to half of it.
    pub(super) fn update_backpressure(&mut self) {
        let deliveries_max = match self.deliveries_are_full {
            true => self.limits.deliveries_max / 2 + 1,
            false => self.limits.deliveries_max,
        };
        self.deliveries_are_full = self.logs.waiting() >= deliveries_max;
        self.logs_are_full &= self.logs.bytes() > self.limits.logs_bytes_max / 2;
        let behind = self.deliveries_are_full || self.logs_are_full;
        if self.behind[usize::from(self.shard)] == behind {
            return;
        }
        self.behind[usize::from(self.shard)] = behind;
        for (shard, outbox) in self.outboxes.iter_mut().enumerate() {
            if shard != usize::from(self.shard) {
                outbox.push(ShardMessage::Behind(behind));
            }
        }
    }
}
