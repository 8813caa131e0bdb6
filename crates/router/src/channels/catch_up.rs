//! Deliveries: to subscribers that have caught up, and to readers, which are behind.

use std::mem;
use std::sync::Arc;

use super::channel::Channel;
use super::channel::Subscriber;
use super::message::ShardMessage;
use super::readers::{Reader, ReaderState, Slice};
use super::shard::Channels;
use super::subscribers::{Encoded, Overrun, Pulled, Subscribers, Taken};
use crate::memory::Trim;
use crate::names::Member;

/// Deliveries in one turn of a channel.
const TURN: usize = 256;

/// The result of offering publications to one reader.
enum Read {
    /// It has all publications.
    CaughtUp,
    /// Its member's connection is congested.
    Full,
    /// The owner has been asked for the next slice of history.
    Waiting,
    /// It gets nothing more, because its connection ends.
    Ended,
}

impl<E: Encoded> Channels<E> {
    /// Makes at most `budget` deliveries: offers each publication, with its encoding, to the subscribers
    /// that have caught up. Channels take turns; each subscriber gets the publications of a channel in
    /// order, from its subscription on. Returns whether deliveries are left. Call it once a turn, also
    /// when nothing waits but a member is behind.
    pub fn deliver(&mut self, budget: usize, now: u64, to: &mut impl Subscribers<E>) -> bool {
        self.readers.begin_turn(now);
        self.review(now);
        let mut left = self.sweep(budget, to);
        while left > 0
            && let Some(log) = self.logs.next_turn()
        {
            let turn = left.min(TURN);
            left -= self.take_turn(log, turn, now, to);
            if self.logs.end_turn(log) {
                self.close_log(log);
            }
        }
        self.limit_logs(now);
        self.update_backpressure();
        self.logs.has_work()
    }

    /// Makes at most `budget` deliveries of one channel. Returns how many.
    fn take_turn(
        &mut self,
        log: u32,
        budget: usize,
        now: u64,
        to: &mut impl Subscribers<E>,
    ) -> usize {
        let mut made = 0;
        while made < budget
            && let Some(channel) = self.logs[log].channel
            && let Some(places) = self.logs[log].fanout.next(budget - made)
        {
            let deliveries = places.len();
            let keeps_history = self.logs[log].keeps_history;
            let (sequence, entry) = self.logs[log].waiting();
            let first = places.start;
            let subscribers = &self.channels.value(channel).subscribers[places];
            let is_loss = keeps_history && entry.publication.is_loss();
            for (at, subscriber) in subscribers.iter().enumerate() {
                if is_loss {
                    to.dropped(subscriber.member, &entry.publication.channel, 1);
                    continue;
                }
                let taken = to.offer(subscriber.member, &entry.publication, &mut entry.encoded);
                if taken == Taken::Full {
                    self.fell_behind.push((first + at) as u32);
                }
            }
            self.logs.delivered(log, sequence, deliveries);
            made += deliveries;
            // From the highest place down, because removing one may move those above it.
            while let Some(place) = self.fell_behind.pop() {
                self.fall_behind(channel, place, sequence, now);
            }
            self.logs.trim(log);
            // The encoding counts against the bound, too.
            self.logs.evict(log, &mut self.readers, now);
            self.update_full(log);
        }
        self.fell_behind.trim();
        made
    }

    /// Makes a listed subscriber, which has not taken this publication, a reader.
    fn fall_behind(&mut self, key: u32, place: u32, sequence: u64, now: u64) {
        let channel = self.channels.value(key);
        let (log, Subscriber { member, index }) =
            (channel.log, channel.subscribers[place as usize]);
        self.unlist(place, key);
        self.channels.value_mut(key).unlisted += 1;
        let reader = Reader {
            member,
            index,
            channel: key,
            id: self.readers.next_id(),
            state: ReaderState::Fast,
            held: false,
            cursor: sequence,
            dropped: 0,
        };
        self.add_reader(log, reader, now);
    }

    /// Whether the member is behind in a channel and has to [`pull`](Self::pull) when its connection takes
    /// more. O(1).
    pub fn is_behind(&self, member: Member) -> bool {
        self.readers.is_behind(member)
    }

    /// Whether no member is behind. O(1), and cheaper than `is_behind`.
    pub fn nobody_behind(&self) -> bool {
        self.readers.is_empty()
    }

    /// Offers a member the publications that it has yet to get, until its connection is congested. Call it
    /// when the connection has taken everything that was queued. The channels in which the member is
    /// behind take turns.
    pub fn pull(&mut self, member: Member, now: u64, to: &mut impl Subscribers<E>) -> Pulled {
        if !self.is_behind(member) {
            return Pulled::CaughtUp;
        }
        self.readers.begin_pull(member, now);
        let pulled = loop {
            let Some(reader) = self.readers.next(member) else { break Pulled::CaughtUp };
            match self.read(reader, now, to) {
                Read::CaughtUp | Read::Ended => {}
                Read::Waiting => break Pulled::Waiting,
                Read::Full => {
                    self.readers.rotate(member);
                    break Pulled::Full;
                }
            }
        };
        self.limit_logs(now);
        self.update_backpressure();
        pulled
    }

    /// Offers a reader the publications that it has yet to get.
    fn read(&mut self, key: u32, now: u64, to: &mut impl Subscribers<E>) -> Read {
        let Reader { member, index, channel, cursor, .. } = self.readers[key];
        if let Slice::Asked { .. } = self.readers.slice(member) {
            return Read::Waiting;
        }
        let log = self.channels.value(channel).log;
        let name = self.channels.name(channel).text.clone();
        self.logs[log].remove_reader(cursor, key);
        let is_slow = self.readers.is_slow(member, now);
        let newest = self.logs[log].end().saturating_sub(1);
        if is_slow && cursor < newest && to.conflates(&name) {
            self.readers[key].skip_to(newest);
        }
        let read = self.read_on(key, &name, is_slow, now, to);
        match read {
            Read::CaughtUp => {
                self.report_dropped(key, &name, to);
                self.readers.remove(key);
                self.channels.value_mut(channel).unlisted -= 1;
                self.list(member, index, channel);
            }
            Read::Full | Read::Waiting => {
                let state = if is_slow { ReaderState::Slow } else { ReaderState::Fast };
                let reader = &mut self.readers[key];
                reader.state = state;
                self.logs[log].add_reader(reader.cursor, key, state);
            }
            Read::Ended => self.end_reader(key),
        }
        self.logs.evict(log, &mut self.readers, now);
        self.tidy_log(log);
        read
    }

    /// The same, while the reader is not in its log's set of readers.
    fn read_on(
        &mut self,
        key: u32,
        name: &Arc<str>,
        is_slow: bool,
        now: u64,
        to: &mut impl Subscribers<E>,
    ) -> Read {
        loop {
            let Reader { member, channel, cursor, .. } = self.readers[key];
            let Channel { log, keeps_history, .. } = *self.channels.value(channel);
            let base = self.logs[log].base();
            if cursor >= base {
                self.leave_history(key);
                return self.read_log(key, log, name, to);
            }
            let first = match self.readers.slice(member) {
                _ if !keeps_history => Some(base),
                Slice::Here { reader, first, .. } if *reader == key => Some(*first),
                _ => None,
            };
            let Some(first) = first else {
                match self.ask_slice(key, !is_slow, now) {
                    true => continue,
                    false => return Read::Waiting,
                }
            };
            let oldest = base.min(first);
            if cursor < oldest {
                if !self.overrun(key, oldest, name, to) {
                    return Read::Ended;
                }
            } else if !self.read_slice(key, name, to) {
                return Read::Full;
            }
        }
    }

    /// Offers a reader the publications in its channel's log.
    fn read_log(
        &mut self,
        key: u32,
        log: u32,
        name: &Arc<str>,
        to: &mut impl Subscribers<E>,
    ) -> Read {
        let member = self.readers[key].member;
        let keeps_history = self.logs[log].keeps_history;
        while self.readers[key].cursor < self.logs[log].end() {
            let cursor = self.readers[key].cursor;
            if keeps_history && self.logs[log].entry(cursor).publication.is_loss() {
                self.readers[key].skip_to(cursor + 1);
                continue;
            }
            self.report_dropped(key, name, to);
            let entry = self.logs[log].entry(cursor);
            let taken = to.offer(member, &entry.publication, &mut entry.encoded);
            self.logs.measure(log, cursor);
            if taken == Taken::Full {
                return Read::Full;
            }
            self.readers[key].cursor += 1;
        }
        Read::CaughtUp
    }

    /// Offers a reader its slice of history. Returns whether it has taken all of it.
    fn read_slice(&mut self, key: u32, name: &Arc<str>, to: &mut impl Subscribers<E>) -> bool {
        let member = self.readers[key].member;
        let Slice::Here { first, mut publications, .. } = mem::take(self.readers.slice(member))
        else {
            unreachable!("it is here")
        };
        let mut index = first;
        while let Some(publication) = publications.front() {
            let cursor = self.readers[key].cursor;
            // The reader may have skipped a part of the slice.
            if index == cursor {
                self.report_dropped(key, name, to);
                let taken = to.offer(member, publication, &mut E::default());
                if taken == Taken::Full {
                    let slice = Slice::Here { reader: key, first: cursor, publications };
                    *self.readers.slice(member) = slice;
                    return false;
                }
                self.readers[key].cursor += 1;
            }
            publications.pop_front();
            index += 1;
        }
        true
    }

    /// Asks the owner of a reader's channel for a slice of history. Returns whether the slice is here.
    fn ask_slice(&mut self, key: u32, hold: bool, now: u64) -> bool {
        let reader = &mut self.readers[key];
        reader.held = hold;
        let Reader { member, channel, id, cursor: from, .. } = *reader;
        let owner = self.channels.value(channel).owner;
        let channel = self.channels.name(channel).clone();
        if owner != self.shard {
            let message = ShardMessage::Slice { channel, member, reader: id, from, hold };
            self.outboxes[usize::from(owner)].push(message);
            *self.readers.slice(member) = Slice::Asked { reader: key };
            return false;
        }
        let bounds = (from, self.limits.slice_bytes);
        let (first, slice) = self.owner.slice(&channel, (owner, id), bounds, hold, now);
        *self.readers.slice(member) =
            Slice::Here { reader: key, first, publications: slice.into() };
        true
    }

    /// Moves a reader from history to the log: drops its slice and its hold.
    fn leave_history(&mut self, key: u32) {
        self.readers.drop_slice(key);
        let Reader { held, channel, id, .. } = self.readers[key];
        if held {
            self.readers[key].held = false;
            self.release(channel, id);
        }
    }

    /// Handles a reader whose next publication was dropped; `oldest` is the first that is left. Returns
    /// whether the reader continues.
    fn overrun(
        &mut self,
        key: u32,
        oldest: u64,
        name: &Arc<str>,
        to: &mut impl Subscribers<E>,
    ) -> bool {
        let Reader { member, channel, .. } = self.readers[key];
        let end = self.logs[self.channels.value(channel).log].end();
        let next = match to.overrun(member, name) {
            Overrun::SkipToOldest => oldest,
            Overrun::SkipToNewest => oldest.max(end.saturating_sub(1)),
            Overrun::End => return false,
        };
        self.readers[key].skip_to(next);
        true
    }

    /// Ends a reader that is not in its log's set of readers.
    fn end_reader(&mut self, key: u32) {
        self.leave_history(key);
        self.readers.end(key);
    }

    /// Tells a member how many publications were skipped, before it gets the next one.
    fn report_dropped(&mut self, key: u32, name: &Arc<str>, to: &mut impl Subscribers<E>) {
        let reader = &mut self.readers[key];
        let dropped = mem::take(&mut reader.dropped);
        if dropped > 0 {
            to.dropped(reader.member, name, dropped);
        }
    }

    /// Moves or ends the readers of channels without history whose next publication was dropped. Returns
    /// the rest of the budget.
    fn sweep(&mut self, budget: usize, to: &mut impl Subscribers<E>) -> usize {
        let mut left = budget;
        while left > 0
            && let Some(log) = self.logs.next_sweep()
        {
            let Some(key) = self.logs[log].overrun() else {
                self.logs.end_sweep();
                self.tidy_log(log);
                continue;
            };
            left -= 1;
            let Reader { channel, cursor, state, .. } = self.readers[key];
            let name = self.channels.name(channel).text.clone();
            self.logs[log].remove_reader(cursor, key);
            let base = self.logs[log].base();
            match self.overrun(key, base, &name, to) {
                true => self.logs[log].add_reader(self.readers[key].cursor, key, state),
                false => self.end_reader(key),
            }
        }
        left
    }
}
