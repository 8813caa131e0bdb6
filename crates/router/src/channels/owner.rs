//! Channels on the shard that owns them: interested shards, numbering and history.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::backplane::{Backplane, Interest};
use super::event::{Begun, HistoryPage, Recovery};
use super::filling::Filling;
use super::history::{History, Retention, shared_bytes};
use super::holds::Holder;
use super::limits::Stats;
use super::list::List;
use super::name::{ByName, ChannelName};
use super::publication::{HistoryQuery, Origin, Payload, Publication, Start};
use crate::memory::Trim;
use crate::names::Shard;

/// The channels that one shard owns and that have subscribers on some shard, or history.
pub(super) struct Owner {
    rules: Rules,
    pub(super) channels: ByName<Owned>,
    /// The time at which the oldest publication of a channel expires, or an earlier one, with the
    /// channel's key. Each channel with publications has one entry, unless its oldest one is held. Entries
    /// with another time than `History::deadline_set` are stale: the channel has been forgotten, or has
    /// got older publications from the broker.
    deadlines: BinaryHeap<Reverse<(u64, u32)>>,
    /// The times at which the holds of all channels lapse.
    pub(super) lapses: BTreeSet<(u64, u32, Holder)>,
    /// Milliseconds that a hold lasts.
    pub(super) hold_ms: u64,
    /// The part of an epoch that all channels share. It goes up when a channel that has numbered
    /// publications is forgotten, so that no channel numbers two publications alike.
    epoch: u32,
    kept: usize,
    pub(super) bytes: usize,
    evicted: u64,
    pub(super) backplane: Box<dyn Backplane + Send>,
    pub(super) filling: Filling,
}

/// Says whether, and how, a channel keeps history.
pub(super) type Rules = Box<dyn Fn(&str) -> Option<Retention> + Send>;

pub(super) struct Owned {
    pub(super) interests: List<ShardInterest>,
    /// `None` for a channel without history.
    pub(super) history: Option<Box<History>>,
}

/// The subscribers on one shard.
pub(super) struct ShardInterest {
    pub(super) shard: Shard,
    /// Whether the shard's log of the channel is full.
    pub(super) is_behind: bool,
    /// The channel's key on that shard.
    pub(super) key: u32,
    /// The number of subscribers that the shard last reported.
    pub(super) subscribers: u32,
}

/// A cache line with its name, and the subscribers of two shards.
const _: () = assert!(ByName::<Owned>::SLOT_BYTES == 64);

/// Publications that one call of `expire` drops at most.
pub(super) const EXPIRED_PER_CALL: usize = 1024;

impl Owner {
    pub(super) fn new(
        rules: Rules,
        epoch: u32,
        hold_ms: u64,
        backplane: Box<dyn Backplane + Send>,
    ) -> Self {
        Owner {
            rules,
            channels: ByName::new(),
            deadlines: BinaryHeap::new(),
            lapses: BTreeSet::new(),
            hold_ms,
            epoch,
            kept: 0,
            bytes: 0,
            evicted: 0,
            backplane,
            filling: Filling::default(),
        }
    }

    /// The retention of the channel, if it keeps history.
    pub(super) fn retention(&self, channel: &str) -> Option<Retention> {
        (self.rules)(channel).filter(|retention| retention.size > 0)
    }

    /// Whether the channel, which has this key if it is known, keeps history.
    pub(super) fn keeps_history(&self, key: Option<u32>, channel: &str) -> bool {
        match key {
            Some(key) => self.channels.value(key).history.is_some(),
            None => self.retention(channel).is_some(),
        }
    }

    pub(super) fn find(&self, hash: u32, channel: &str) -> Option<u32> {
        self.channels.find(hash, channel)
    }

    pub(super) fn name(&self, key: u32) -> &ChannelName {
        self.channels.name(key)
    }

    /// The shards with subscribers of a channel.
    pub(super) fn interests(&self, key: u32) -> &[ShardInterest] {
        &self.channels.value(key).interests
    }

    /// The epoch of a channel that begins to count now. It has the hash of the name, so that a position
    /// of one channel is not taken for one of another: two channels have the same epoch by a chance of
    /// 1 in 2^32, which clients cannot raise, as they do not know the seed of the hash.
    pub(super) fn epoch_of(&self, name: &ChannelName) -> u32 {
        self.epoch.wrapping_add(name.hash)
    }

    /// Adds a new channel. The caller then adds an interest or a publication.
    pub(super) fn add(&mut self, name: ChannelName, retention: Option<Retention>) -> u32 {
        let epoch = self.epoch_of(&name);
        let history = |retention| match self.backplane.orders() {
            false => History::new(retention, epoch),
            true => History::of_broker(retention),
        };
        let history = retention.map(|retention| Box::new(history(retention)));
        self.channels.insert(name, Owned { interests: List::new(), history })
    }

    /// Adds the interest of a shard. Returns the channel's key.
    pub(super) fn add_interest(&mut self, name: &ChannelName, reported: ShardInterest) -> u32 {
        let key = self.find(name.hash, &name.text).unwrap_or_else(|| {
            let retention = self.retention(&name.text);
            self.add(name.clone(), retention)
        });
        let shard = reported.shard;
        let Owned { interests, history } = self.channels.value_mut(key);
        match interests.iter_mut().find(|interest| interest.shard == shard) {
            // `ChannelBehind` alone changes `is_behind`.
            Some(interest) => {
                *interest = ShardInterest { is_behind: interest.is_behind, ..reported };
            }
            None => {
                interests.push(reported);
                if interests.len() == 1 {
                    self.backplane.interest(&name.text, Interest::First, history.is_some());
                }
            }
        }
        key
    }

    /// Begins a subscription at `start`. In a channel with history the publications that it has missed are
    /// held until the `holder` has read them.
    pub(super) fn begin(&mut self, key: u32, start: Start, holder: Holder, now: u64) -> Begun {
        let Some(history) = &self.channels.value(key).history else {
            return Begun { recovery: None, missed: 0, next: 0 };
        };
        let missed = history.missed(start, now).map(|missed| missed as u64);
        self.begin_after(key, start, missed, holder, now)
    }

    /// The same in a channel with history, with the number of publications that the subscriber has missed;
    /// `None` if it does not get them.
    pub(super) fn begin_after(
        &mut self,
        key: u32,
        start: Start,
        missed: Option<u64>,
        holder: Holder,
        now: u64,
    ) -> Begun {
        if let Some((_, window)) = self.window(key) {
            window.is_marked = false;
        }
        let history = self.history(key);
        let (position, next) = (history.position(), history.newest() + 1);
        let recovered = (start != Start::Head).then_some(missed.is_some());
        let missed = missed.unwrap_or(0);
        if missed > 0 {
            self.hold(key, holder, next - missed, now);
        }
        Begun { recovery: Some(Recovery { position, recovered }), missed, next }
    }

    /// Sets the number of subscribers on a shard. With 0 the shard is not interested any more.
    pub(super) fn set_subscribers(&mut self, name: &ChannelName, shard: Shard, subscribers: u32) {
        let key = self.find(name.hash, &name.text).expect("the shard has asked before");
        let Owned { interests, history } = self.channels.value_mut(key);
        let at = interests.iter().position(|interest| interest.shard == shard);
        let at = at.expect("the shard has asked before");
        if subscribers > 0 {
            interests[at].subscribers = subscribers;
            return;
        }
        interests.swap_remove(at);
        if interests.is_empty() {
            self.backplane.interest(&name.text, Interest::Last, history.is_some());
            self.close_window(key);
        }
        self.forget_unused(key);
    }

    /// Sets whether a shard's log of the channel is full.
    pub(super) fn set_behind(&mut self, name: &ChannelName, shard: Shard, is_behind: bool) {
        let key = self.find(name.hash, &name.text).expect("the shard has asked before");
        let interests = &mut self.channels.value_mut(key).interests;
        let interest = interests.iter_mut().find(|interest| interest.shard == shard);
        interest.expect("the shard has asked before").is_behind = is_behind;
    }

    /// Forgets a channel without interested shards, publications and holds.
    fn forget_unused(&mut self, key: u32) {
        let Owned { interests, history } = self.channels.value(key);
        let is_kept = |history: &History| history.len() > 0 || history.holds.is_some();
        if !interests.is_empty() || history.as_deref().is_some_and(is_kept) {
            return;
        }
        let (_, Owned { history, .. }) = self.channels.remove(key);
        let counts = |history: &History| history.window.is_none() && history.position().offset > 0;
        if history.as_deref().is_some_and(counts) {
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    /// Appends a publication to its channel, with the offset that the broker has given to it. Returns it with
    /// its index; in a channel without history that is 0.
    pub(super) fn append(
        &mut self,
        key: u32,
        offset: Option<u64>,
        payload: Payload,
        except: Option<Origin>,
        now: u64,
    ) -> (u64, Publication) {
        let has_history = self.channels.value(key).history.is_some();
        let (index, position) = match has_history {
            true => {
                let kept = payload.clone();
                let appended = self.change(key, |history| {
                    let position = match offset {
                        None => history.append(kept, now),
                        Some(offset) => history.append_at(offset, kept, now),
                    };
                    (history.newest(), Some(position))
                });
                self.rearm(key);
                appended
            }
            false => (0, None),
        };
        let channel = self.channels.name(key).text.clone();
        (index, Publication { channel, position, payload, except })
    }

    /// A page of the history of a channel that keeps history, which the owner orders.
    pub(super) fn read(&self, name: &ChannelName, query: HistoryQuery, now: u64) -> HistoryPage {
        match self.find(name.hash, &name.text) {
            Some(key) => self.history(key).page(&self.channels.name(key).text, query, now),
            None => {
                let retention = Retention { size: 0, ttl_ms: 0 };
                History::new(retention, self.epoch_of(name)).page(&name.text, query, now)
            }
        }
    }

    /// Drops expired publications, at most `EXPIRED_PER_CALL` of them.
    pub(super) fn expire(&mut self, now: u64) {
        self.lapse(now);
        let mut left = EXPIRED_PER_CALL;
        while left > 0
            && let Some(&Reverse((deadline, _))) = self.deadlines.peek()
            && deadline <= now
        {
            let Some((_, key)) = self.pop_deadline() else { continue };
            let expired = self.change(key, |history| history.expire(now, left));
            left -= expired.max(1);
            self.rearm(key);
        }
    }

    /// The time at which the next publication expires, the next hold lapses or the next gap is fetched again,
    /// or somewhat earlier.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let deadline = self.deadlines.peek().map(|Reverse((deadline, _))| *deadline);
        let lapse = self.lapses.first().map(|(until, ..)| *until);
        let retry = self.filling.retries.first().map(|(at, _)| *at);
        deadline.into_iter().chain(lapse).chain(retry).min()
    }

    /// Drops the publications that would expire first, until no more than `bytes_max` bytes are left.
    pub(super) fn evict(&mut self, bytes_max: u64) {
        while self.bytes as u64 > bytes_max && !self.deadlines.is_empty() {
            let Some((deadline, key)) = self.pop_deadline() else { continue };
            if self.history(key).deadline() == Some(deadline) {
                self.change(key, History::evict);
                self.evicted += 1;
            }
            self.rearm(key);
        }
    }

    /// Removes the next deadline; `None` if it was stale.
    fn pop_deadline(&mut self) -> Option<(u64, u32)> {
        let Reverse((deadline, key)) = self.deadlines.pop()?;
        self.deadlines.trim();
        let history = self.channels.get_mut(key)?.history.as_mut()?;
        history.deadline_set.take_if(|set| *set == deadline)?;
        Some((deadline, key))
    }

    /// Adds the deadline of a channel that has no entry, or forgets the channel if it has none and nobody
    /// needs it.
    pub(super) fn rearm(&mut self, key: u32) {
        let history = self.channels.value_mut(key).history.as_mut().expect("it keeps history");
        match (history.deadline(), history.deadline_set) {
            // It may be too early, but not too late.
            (deadline, Some(set)) if deadline.is_none_or(|deadline| set <= deadline) => {}
            (Some(deadline), _) => {
                history.deadline_set = Some(deadline);
                self.deadlines.push(Reverse((deadline, key)));
            }
            (None, _) => self.forget_unused(key),
        }
    }

    pub(super) fn history(&self, key: u32) -> &History {
        self.channels.value(key).history.as_ref().expect("it keeps history")
    }

    /// Changes a history, and updates the counts of publications and bytes.
    pub(super) fn change<T>(&mut self, key: u32, change: impl FnOnce(&mut History) -> T) -> T {
        let slot = ByName::<Owned>::SLOT_BYTES + shared_bytes(self.channels.name(key).text.len());
        let history = self.channels.value_mut(key).history.as_mut().expect("it keeps history");
        let (kept, bytes) = (history.len(), bytes(slot, history));
        let result = change(history);
        self.kept = self.kept + history.len() - kept;
        self.bytes = self.bytes + self::bytes(slot, history) - bytes;
        result
    }

    /// Adds the counts of owned channels to the statistics.
    pub(super) fn count_into(&self, stats: &mut Stats) {
        stats.owned = self.channels.len() as u64;
        stats.kept = self.kept as u64;
        stats.history_bytes = self.bytes as u64;
        stats.evicted = self.evicted;
        stats.holds = self.lapses.len() as u64;
        stats.joins_waiting = self.filling.joins;
        stats.gaps = self.filling.gaps;
        stats.held_back_bytes = self.filling.held_back as u64;
        stats.arrivals_dropped = self.filling.arrivals_dropped;
        stats.losses = self.filling.losses;
    }
}

/// Bytes of a history, by the formula of `Stats::history_bytes`. An empty history counts as 0, so that
/// subscriptions alone cannot evict the history of other channels.
pub(super) fn bytes(slot: usize, history: &History) -> usize {
    if history.len() == 0 { 0 } else { slot + history.bytes() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::channels::name::Hashing;
    use crate::channels::{Cursor, Direction, Form, Local, Position};

    const TTL_MS: u64 = 1000;
    const READER: ShardInterest =
        ShardInterest { shard: 0, is_behind: false, key: 0, subscribers: 1 };

    fn owner(size: u32) -> Owner {
        let rules = move |channel: &str| {
            channel.starts_with("kept").then_some(Retention { size, ttl_ms: TTL_MS })
        };
        Owner::new(Box::new(rules), 7, 100, Box::new(Local))
    }

    fn name(text: &str) -> ChannelName {
        ChannelName { hash: Hashing::new(1).hash(text.as_bytes()), text: Arc::from(text) }
    }

    fn publish(owner: &mut Owner, name: &ChannelName, len: usize, now: u64) -> Option<Position> {
        let key = owner.find(name.hash, &name.text).unwrap_or_else(|| {
            let retention = owner.retention(&name.text);
            owner.add(name.clone(), retention)
        });
        owner.append(key, None, Payload::new(Form::Binary, vec![0; len]), None, now).1.position
    }

    /// Adds the interest of the reader's shard, and begins its subscription.
    fn join(
        owner: &mut Owner,
        name: ChannelName,
        interest: ShardInterest,
        start: Start,
        reader: u32,
        now: u64,
    ) -> (Option<Recovery>, u64) {
        let holder = (interest.shard, reader);
        let key = owner.add_interest(&name, interest);
        let Begun { recovery, missed, .. } = owner.begin(key, start, holder, now);
        (recovery, missed)
    }

    /// A channel without subscribers and history is forgotten with its count, so its next record has
    /// another epoch. A channel that has numbered nothing keeps its epoch.
    #[test]
    fn a_lost_count_does_not_come_again() {
        let (mut owner, kept) = (owner(10), name("kept"));
        let epoch = owner.epoch_of(&kept);
        let position =
            |(recovery, _): (Option<Recovery>, u64)| recovery.expect("it keeps history").position;
        for _ in 0..2 {
            let first = position(join(&mut owner, kept.clone(), READER, Start::Head, 0, 0));
            assert_eq!(first, Position { epoch, offset: 0 });
            owner.set_subscribers(&kept, 0, 0);
        }
        assert_eq!(publish(&mut owner, &kept, 1, 0), Some(Position { epoch, offset: 1 }));
        owner.expire(TTL_MS);
        assert_eq!((owner.channels.len(), owner.bytes, owner.kept), (0, 0, 0));
        let second = position(join(&mut owner, kept.clone(), READER, Start::Head, 0, TTL_MS));
        assert_eq!(second, Position { epoch: epoch.wrapping_add(1), offset: 0 });
    }

    /// Channels of one owner have different epochs, whether they have counted or not.
    #[test]
    fn channels_do_not_share_an_epoch() {
        let mut owner = owner(10);
        let [one, other] = ["kept", "kept too"].map(name);
        let asked = HistoryQuery {
            start: Start::Head,
            limit: 0,
            bytes_max: 0,
            direction: Direction::Forward,
        };
        let before = [&one, &other].map(|name| owner.read(name, asked, 0).position.epoch);
        let counted = [&one, &other].map(|name| publish(&mut owner, name, 1, 0));
        let counted = counted.map(|position| position.expect("it keeps history").epoch);
        assert_ne!(counted[0], counted[1]);
        assert_eq!(counted, before);
    }

    /// A hold keeps the publications that a recovering reader has missed until the reader has read them,
    /// has left, asks without a hold, or has let the time pass; nothing of the hold is left then.
    #[test]
    fn holds_end() {
        for how in 0..4 {
            let (mut owner, kept) = (owner(2), name("kept"));
            (0..2).for_each(|_| _ = publish(&mut owner, &kept, 10, 0));
            let start = Start::AfterOffset(0);
            let (recovery, missed) = join(&mut owner, kept.clone(), READER, start, 9, 0);
            assert_eq!((recovery.expect("history").recovered, missed), (Some(true), 2));
            (0..5).for_each(|_| _ = publish(&mut owner, &kept, 10, 0));
            owner.expire(99);
            assert_eq!((owner.kept, owner.lapses.len()), (7, 1));
            assert!(owner.is_overheld(0, 49, u64::MAX, 0) && owner.is_overheld(0, 50, 1, 0));
            assert!(!owner.is_overheld(0, 50, u64::MAX, 0));
            let (first, slice) = owner.slice(&kept, (0, 9), (1, 20), true, 50);
            assert_eq!((first, slice.len(), owner.kept), (1, 2, 5));
            match how {
                0 => owner.release_by_name(&kept, (0, 9)),
                1 => {
                    let (_, slice) = owner.slice(&kept, (0, 9), (3, 1000), true, 50);
                    assert_eq!((slice.len(), owner.kept, owner.lapses.len()), (5, 2, 1));
                    (0..3).for_each(|_| _ = publish(&mut owner, &kept, 10, 0));
                    assert_eq!(
                        (owner.kept, owner.slice(&kept, (0, 9), (8, 1), true, 50).0),
                        (3, 8)
                    );
                    owner.release_by_name(&kept, (0, 9));
                }
                2 => _ = owner.slice(&kept, (0, 9), (3, 10), false, 50),
                _ => {
                    owner.expire(149);
                    assert_eq!((owner.kept, owner.next_expiry()), (5, Some(150)));
                    owner.expire(150);
                }
            }
            assert_eq!((owner.kept, owner.lapses.len()), (2, 0), "{how}");
            assert!(!owner.is_overheld(0, 0, 0, 0));
            assert_eq!(owner.next_expiry(), Some(TTL_MS));
            owner.set_subscribers(&kept, 0, 0);
            owner.expire(TTL_MS);
            assert_eq!((owner.channels.len(), owner.bytes, owner.next_expiry()), (0, 0, None));
        }
    }

    /// Channels without publications count as 0 bytes: subscriptions evict no history of others.
    #[test]
    fn empty_histories_drop_nothing() {
        let mut owner = owner(10);
        publish(&mut owner, &name("kept:full"), 1000, 0);
        let bytes = owner.bytes;
        for channel in 0..1000 {
            join(&mut owner, name(&format!("kept:{channel}")), READER, Start::Head, 0, 0);
        }
        owner.evict(bytes as u64);
        assert_eq!((owner.kept, owner.evicted, owner.bytes), (1, 0, bytes));
    }

    /// A shard that is behind stays so when another of its members joins.
    #[test]
    fn questions_do_not_unset_behind() {
        let (mut owner, kept) = (owner(10), name("kept"));
        join(&mut owner, kept.clone(), READER, Start::Head, 0, 0);
        owner.set_behind(&kept, 0, true);
        join(&mut owner, kept, READER, Start::Head, 0, 0);
        assert!(owner.interests(0)[0].is_behind);
    }

    /// A channel with subscribers keeps its count when its history expires.
    #[test]
    fn readers_keep_the_count() {
        let (mut owner, kept) = (owner(10), name("kept"));
        join(&mut owner, kept.clone(), READER, Start::Head, 0, 0);
        publish(&mut owner, &kept, 1, 0);
        owner.expire(TTL_MS);
        let epoch = owner.epoch_of(&kept);
        assert_eq!(publish(&mut owner, &kept, 1, TTL_MS), Some(Position { epoch, offset: 2 }));
    }

    /// Channels expire in the order of their times, a bounded number of publications a call, and each has
    /// one deadline.
    #[test]
    fn expiry_is_sliced() {
        let mut owner = owner(300);
        let names: Vec<ChannelName> =
            (0..20).map(|channel| name(&format!("kept:{channel}"))).collect();
        for now in 0..300 {
            names.iter().for_each(|name| _ = publish(&mut owner, name, 1, now));
        }
        assert_eq!((owner.deadlines.len(), owner.next_expiry()), (20, Some(TTL_MS)));
        owner.expire(TTL_MS - 1);
        assert_eq!(owner.kept, 6000);
        owner.expire(TTL_MS + 149);
        assert_eq!(owner.kept, 6000 - EXPIRED_PER_CALL);
        while owner.next_expiry().is_some_and(|due| due < TTL_MS + 150) {
            owner.expire(TTL_MS + 149);
        }
        assert_eq!((owner.kept, owner.deadlines.len()), (3000, 20));
    }

    /// Beyond the bound the publications that would expire first are dropped, of whatever channel.
    #[test]
    fn the_bound_drops_the_oldest() {
        let mut owner = owner(10);
        let [a, b] = ["kept:a", "kept:b"].map(name);
        for now in 0..20 {
            publish(&mut owner, if now % 2 == 0 { &a } else { &b }, 1000, now);
        }
        let bytes_max = owner.bytes as u64 - 5000;
        owner.evict(bytes_max);
        assert_eq!((owner.kept, owner.evicted), (15, 5));
        assert!(owner.bytes as u64 <= bytes_max);
        assert_eq!(owner.next_expiry().map(|due| due - TTL_MS), Some(5));
        owner.evict(0);
        assert_eq!((owner.kept, owner.evicted, owner.channels.len()), (0, 20, 0));
    }

    /// A listing has every channel once, however small its pages.
    #[test]
    fn pages_have_every_channel_once() {
        let mut owner = owner(1);
        let names: Vec<ChannelName> =
            (0..500).map(|channel| name(&format!("kept:{channel}"))).collect();
        for (now, name) in names.iter().enumerate() {
            publish(&mut owner, name, 1, now as u64);
        }
        owner.expire(TTL_MS + 299);
        let (mut listed, mut next) = (Vec::new(), Some(Cursor::default()));
        while let Some(from) = next {
            let (page, more) = owner.list(from, 7);
            assert!(page.len() <= 7);
            listed.extend(page.into_iter().map(|info| info.name.to_string()));
            next = more;
        }
        listed.sort_unstable();
        let mut expected: Vec<&str> = names[300..].iter().map(|name| &*name.text).collect();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    }
}
