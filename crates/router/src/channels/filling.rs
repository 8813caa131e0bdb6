//! Publications from a broker on their way into the windows of channels: in order, without gaps, or with a
//! loss that readers are told.

use std::collections::BTreeSet;

use super::backplane::{Arrived, Fetch, FetchId, FetchReason, Fetched, Head, Place};
use super::event::ChannelError;
use super::name::ChannelName;
use super::owner::Owner;
use super::pending::Fetching;
use super::publication::{Position, Publication};
use super::shard::Channels;
use super::subscribers::Encoded;
use super::window::{Arrival, Gap, Losses, Need, Opened, Phase, Window};
use crate::memory::Trim;

/// The retries and counts of all windows of an owner.
#[derive(Default)]
pub(super) struct Filling {
    /// The times at which gaps are fetched again, with the keys of their channels.
    pub(super) retries: BTreeSet<(u64, u32)>,
    /// Number of channels with a gap.
    pub(super) gaps: u64,
    /// Bytes that gaps hold back.
    pub(super) held_back: usize,
    /// Number of joins that wait.
    pub(super) joins: u64,
    pub(super) connection_losses: Losses,
    pub(super) losses: u64,
    pub(super) arrivals_dropped: u64,
}

/// Milliseconds after which a gap is fetched again that the broker could not fill.
const RETRY_MS: u64 = 500;
/// Milliseconds after which publications are fetched that could not be taken, because a shard was behind.
const BEHIND_MS: u64 = 20;

impl<E: Encoded> Channels<E> {
    /// Takes a publication from the broker. Those of one channel come in its order; some may be missing, and
    /// some may come again. The broker has taken it since the time `since`.
    pub fn arrived(&mut self, channel: &str, arrived: Arrived, since: u64, now: u64) {
        let hash = self.hashing.hash(channel.as_bytes());
        let Some(key) = self.owner.find(hash, channel) else { return };
        let Some(place) = arrived.place else {
            // Processes may differ in their rules while they are being restarted.
            if self.owner.keeps_history(Some(key), channel) {
                return;
            }
            if self.refuses(key, now) {
                self.owner.filling.arrivals_dropped += 1;
                return;
            }
            self.number(Some(key), hash, channel, arrived.payload, arrived.except, now);
            return;
        };
        let losses = self.owner.filling.connection_losses.count;
        let Some((newest, window)) = self.owner.window(key) else { return };
        match window.arrive(place, newest, losses) {
            Arrival::Repeat => {}
            Arrival::Next if !self.refuses(key, now) => {
                self.append(key, arrived, place.position.offset, now);
                self.owner.evict(self.limits.history_bytes_max);
            }
            Arrival::Next => {
                self.hold_back(key, arrived, place, since);
                self.owner.fetch_later(key, now, BEHIND_MS);
            }
            Arrival::Gap => {
                self.owner.gap(key, since).may_miss = true;
                self.hold_back(key, arrived, place, since);
                self.fetch_gap(key, now);
            }
            Arrival::AfterGap => self.hold_back(key, arrived, place, since),
            Arrival::OtherEpoch => {
                // It may be older than the head. The broker's answer says which count is the new one.
                self.owner.gap(key, since).miss();
                self.fetch_gap(key, now);
            }
        }
    }

    /// Takes the newest position of a channel with history: the subscription is in force, for the first time
    /// or again after it may have lost publications.
    pub fn opened(&mut self, channel: &str, head: Head, now: u64) {
        let Some(key) = self.owner.find(self.hashing.hash(channel.as_bytes()), channel) else {
            return;
        };
        let Some((newest, window, losses)) = self.owner.window_and_losses(key) else { return };
        match window.open(head, newest, losses) {
            Opened::First(position) => {
                self.owner.change(key, |history| history.begin(position));
                self.answer_joins(key, now);
                return;
            }
            Opened::Same if window.gap.is_none() => return,
            Opened::Same => return self.fetch_gap(key, now),
            Opened::Gap => {}
            Opened::OtherEpoch => self.count_anew(key, head.epoch, now),
        }
        let gap = self.owner.gap(key, now);
        // An answer that is on its way may be older than the head.
        gap.miss();
        gap.reached = gap.reached.max(head.newest);
        if head.is_kept {
            gap.expected = gap.expected.max(head.newest);
        }
        self.fetch_gap(key, now);
    }

    /// Refuses the joins of a channel that could not be opened.
    pub fn unopened(&mut self, channel: &str, now: u64) {
        let Some(key) = self.owner.find(self.hashing.hash(channel.as_bytes()), channel) else {
            return;
        };
        let Some((_, window)) = self.owner.window(key) else { return };
        if window.phase != Phase::Open {
            window.phase = Phase::Unopened;
            self.answer_joins(key, now);
        }
    }

    /// Takes note that publications of a channel may be missing, or of all channels with `None`, from those
    /// on that the caller has passed on: publications that the broker has taken since the time `since`.
    /// [`opened`](Self::opened) follows for each of them with history.
    pub fn lost(&mut self, channel: Option<&str>, since: u64) {
        let Some(channel) = channel else {
            return self.owner.filling.connection_losses.add(since);
        };
        let key = self.owner.find(self.hashing.hash(channel.as_bytes()), channel);
        if let Some((_, window)) = key.and_then(|key| self.owner.window(key)) {
            window.lose(since);
        }
    }

    /// Takes the answer to a request of [`Backplane::fetch`](super::Backplane::fetch).
    ///
    /// # Panics
    /// If no request with this id waits.
    pub fn fetched(&mut self, id: FetchId, answer: Result<Fetched, ChannelError>, now: u64) {
        let fetching = self.fetches.remove(id.0 as usize);
        self.fetches.trim();
        match fetching {
            Fetching::Gap { name, after, since } => {
                self.fill(&name, (id, after, since), answer, now);
            }
            Fetching::Recovery { name } => self.recover(&name, id, answer, now),
            Fetching::Read { name, query, ticket, from } => {
                self.answer_read((from, ticket), &name, query, answer, now);
            }
        }
    }

    /// Fetches again what is due.
    pub(super) fn retry_gaps(&mut self, now: u64) {
        while let Some(&(at, key)) = self.owner.filling.retries.first()
            && at <= now
        {
            self.fetch_gap(key, now);
        }
    }

    /// Asks the broker for the publications after the newest one, unless the answer is on its way. While a shard
    /// does not take more, that is put off.
    pub(super) fn fetch_gap(&mut self, key: u32, now: u64) {
        let gap = self.owner.gap(key, now);
        if gap.fetch.is_some() {
            return;
        }
        if let Some(at) = gap.retry_at.take() {
            self.owner.filling.retries.remove(&(at, key));
        }
        if self.refuses(key, now) {
            return self.owner.fetch_later(key, now, BEHIND_MS);
        }
        let id = FetchId(self.fetches.vacant_key() as u32);
        let gap = self.owner.gap(key, now);
        gap.begin_fetch(id);
        let began = gap.since;
        let (newest, window, losses) = self.owner.window_and_losses(key).expect("it has a gap");
        let since = window.missing_since(losses).map_or(began, |since| since.min(began));
        for join in &mut window.joins {
            if join.need == Need::Unasked && join.start.offset() > Some(newest.offset) {
                join.need = Need::Asked(id);
            }
        }
        let name = self.owner.name(key).clone();
        let (channel, after) = (&*name.text, newest.offset);
        let reason = FetchReason::Gap { missed_ms: now.saturating_sub(since) };
        let fetch = Fetch { channel, after, up_to: None, reason };
        self.owner.backplane.fetch(id, fetch);
        self.fetches.insert(Fetching::Gap { name, after, since });
    }

    /// Takes what was missing after the newest publication.
    fn fill(
        &mut self,
        name: &ChannelName,
        (id, after, since): (FetchId, u64, u64),
        answer: Result<Fetched, ChannelError>,
        now: u64,
    ) {
        let Some(key) = self.owner.find(name.hash, &name.text) else { return };
        let Some((newest, window, losses)) = self.owner.window_and_losses(key) else { return };
        let missing_since = window.missing_since(losses);
        // The channel may have been forgotten and opened again.
        let Some(gap) = &mut window.gap else { return };
        if gap.fetch.take_if(|fetch| *fetch == id).is_none() {
            return;
        }
        let may_miss = gap.may_miss;
        // Older ones were lost, or had no room, meanwhile.
        let is_for_newer =
            missing_since.is_some_and(|missing| missing < since) || gap.since < since;
        let Fetched { epoch, publications, reached, has_more, is_complete } = match answer {
            Ok(fetched) => fetched,
            Err(error) => {
                self.owner.fetch_later(key, now, RETRY_MS);
                return self.refuse_joins(key, id, error, now);
            }
        };
        let is_behind = self.refuses(key, now);
        let is_of_use =
            epoch == newest.epoch && after <= newest.offset && !is_behind && !is_for_newer;
        // If not, the joins that wait for it wait for the next one.
        let need = if is_of_use && !has_more { Need::Answered } else { Need::Unasked };
        self.owner.window(key).expect("it has a gap").1.set_need(id, need);
        if epoch != newest.epoch {
            self.count_anew(key, epoch, now);
            return self.fetch_gap(key, now);
        }
        if after > newest.offset || is_for_newer {
            return self.fetch_gap(key, now);
        }
        if is_behind {
            return self.owner.fetch_later(key, now, BEHIND_MS);
        }
        let is_adjacent = publications.first().is_some_and(|first| first.offset <= newest.offset);
        let mut follows = is_complete || is_adjacent;
        for publication in publications {
            if publication.offset <= self.owner.history(key).position().offset {
                continue;
            }
            if !follows {
                if !may_miss {
                    // The answer has a hole: the publications in it are on their way, and come first.
                    break;
                }
                self.lose(key, newest, now);
                follows = true;
            }
            let arrived = Arrived { payload: publication.payload, except: None, place: None };
            self.append(key, arrived, publication.offset, now);
        }
        // Without a step forward the rest is on its way.
        if has_more && self.owner.history(key).position().offset > after {
            self.fetch_gap(key, now);
        } else {
            self.end_gap(key, reached, is_complete || !may_miss, now);
        }
        self.owner.evict(self.limits.history_bytes_max);
        self.answer_joins(key, now);
    }

    /// Takes what was held back, after the broker has answered with what it has, up to the offset `reached`.
    fn end_gap(&mut self, key: u32, reached: u64, is_complete: bool, now: u64) {
        let mut gap = self.owner.take_gap(key).expect("it was just filled");
        loop {
            let is_covered = gap.covered > 0;
            let newest = self.owner.history(key).position();
            if !is_covered && !is_complete && newest.offset < std::mem::take(&mut gap.reached) {
                self.lose(key, newest, now);
            }
            let Some((arrived, place)) = gap.held.pop_front() else { break };
            gap.covered = gap.covered.saturating_sub(1);
            if place.position.offset <= newest.offset {
                continue;
            }
            // Without an offset it proves nothing: it may have come after a loss.
            if !(1..=newest.offset).contains(&place.previous) {
                if !is_covered || is_complete && !gap.believes() {
                    gap.held.push_front((arrived, place));
                    gap.may_miss = true;
                    self.owner.put_gap(key, gap);
                    return match is_covered {
                        true => self.owner.fetch_later(key, now, RETRY_MS),
                        false => self.fetch_gap(key, now),
                    };
                }
                self.lose(key, newest, now);
            }
            self.append(key, arrived, place.position.offset, now);
        }
        let newest = self.owner.history(key).position();
        if gap.overflowed {
            gap.may_miss = true;
            self.owner.put_gap(key, gap);
            return self.fetch_gap(key, now);
        }
        // The broker has had one that is neither in its answer nor dropped.
        if is_complete && newest.offset.max(reached) < gap.expected {
            if !gap.believes() {
                gap.may_miss = true;
                self.owner.put_gap(key, gap);
                return self.owner.fetch_later(key, now, RETRY_MS);
            }
            self.lose(key, newest, now);
        }
        self.owner.window(key).expect("it had a gap").1.repair();
    }

    /// Holds back a publication that comes after a gap. The broker has taken it since the time `since`.
    fn hold_back(&mut self, key: u32, arrived: Arrived, place: Place, since: u64) {
        let total_left = self.limits.logs_bytes_max as usize;
        let total_left = total_left.saturating_sub(self.owner.filling.held_back);
        let gap = self.owner.gap(key, since);
        gap.since = gap.since.min(since);
        let bytes_max = (self.limits.slice_bytes as usize).min(gap.held_bytes + total_left);
        let held = gap.hold(arrived, place, bytes_max);
        self.owner.filling.held_back += held;
    }

    /// Begins a new count. Readers have lost the publications of the old one.
    fn count_anew(&mut self, key: u32, epoch: u32, now: u64) {
        // The answer to a request may be on its way, but does not begin where this count does.
        let fetch = self.owner.take_gap(key).and_then(|gap| gap.fetch);
        *self.owner.gap(key, now) = Gap { fetch, may_miss: true, ..Gap::new(now) };
        self.owner.window(key).expect("it counts").1.is_marked = false;
        self.lose(key, Position { epoch, offset: 0 }, now);
    }

    /// Tells readers that publications after the newest one are lost, once. Later ones come after `position`.
    fn lose(&mut self, key: u32, position: Position, now: u64) {
        if self.owner.window(key).expect("it keeps history").1.is_marked {
            return;
        }
        let index = self.owner.change(key, |history| history.lose(position));
        self.owner.rearm(key);
        self.owner.filling.losses += 1;
        let loss = Publication::loss(self.owner.name(key).text.clone());
        self.send_publication(key, index, loss, now);
    }

    /// Appends a publication that the broker has numbered.
    fn append(&mut self, key: u32, arrived: Arrived, offset: u64, now: u64) {
        let Arrived { payload, except, .. } = arrived;
        let (index, publication) = self.owner.append(key, Some(offset), payload, except, now);
        self.send_publication(key, index, publication, now);
    }
}

impl Owner {
    /// The newest position and the window of a channel with history that a broker orders.
    pub(super) fn window(&mut self, key: u32) -> Option<(Position, &mut Window)> {
        let history = self.channels.value_mut(key).history.as_mut()?;
        let newest = history.position();
        Some((newest, history.window.as_mut()?))
    }

    /// The same, and the losses of the connection.
    fn window_and_losses(&mut self, key: u32) -> Option<(Position, &mut Window, &Losses)> {
        let history = self.channels.value_mut(key).history.as_mut()?;
        let newest = history.position();
        Some((newest, history.window.as_mut()?, &self.filling.connection_losses))
    }

    /// The channel's gap, which begins at this time if it has none.
    fn gap(&mut self, key: u32, since: u64) -> &mut Gap {
        let history = self.channels.value_mut(key).history.as_mut();
        let window = history.and_then(|history| history.window.as_mut());
        window.expect("a broker orders it").gap.get_or_insert_with(|| {
            self.filling.gaps += 1;
            Gap::new(since)
        })
    }

    /// Has a gap fetched after this number of milliseconds.
    fn fetch_later(&mut self, key: u32, now: u64, after_ms: u64) {
        let at = now.saturating_add(after_ms);
        let gap = self.gap(key, now);
        if gap.fetch.is_none() && gap.retry_at.is_none() {
            gap.retry_at = Some(at);
            self.filling.retries.insert((at, key));
        }
    }

    /// Ends the channel's gap, if it has one.
    fn take_gap(&mut self, key: u32) -> Option<Gap> {
        let gap = self.window(key)?.1.gap.take()?;
        self.filling.gaps -= 1;
        self.filling.held_back -= gap.held_bytes;
        if let Some(at) = gap.retry_at {
            self.filling.retries.remove(&(at, key));
        }
        Some(gap)
    }

    /// Goes on with a gap, with less held back than before.
    fn put_gap(&mut self, key: u32, mut gap: Gap) {
        gap.retry_at = None;
        gap.held_bytes = gap.held.iter().map(|(arrived, _)| Gap::bytes(arrived)).sum();
        self.filling.held_back += gap.held_bytes;
        let since = gap.since;
        *self.gap(key, since) = gap;
    }

    /// Drops what a channel without interest has kept of the broker.
    pub(super) fn close_window(&mut self, key: u32) {
        drop(self.take_gap(key));
        let Some((_, window)) = self.window(key) else { return };
        assert!(window.joins.is_empty(), "joins of a shard end with its interest");
        let holds = self.change(key, |history| {
            history.clear();
            history.holds.take()
        });
        for (holder, until) in holds.iter().flat_map(|holds| holds.holders()) {
            self.lapses.remove(&(until, key, holder));
        }
    }
}
