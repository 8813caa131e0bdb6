//! What the owner of a channel knows of it: which shards care, its order, its history.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::history::{History, Retention, shared_bytes};
use super::list::List;
use super::name::{ByName, ChannelName};
use super::{Past, Payload, Position, Publication, Stats};
use crate::Shard;

/// The channels that one shard owns: those that some shard cares about, and those with history.
pub(super) struct Owner {
    rules: Rules,
    channels: ByName<Owned>,
    /// When the oldest publication of a channel is past its time, or earlier, and the channel's key.
    /// Each channel with publications is in here once.
    deadlines: BinaryHeap<Reverse<(u64, u32)>>,
    /// Of channels to come. Goes up when the count of any channel is forgotten, so that none counts the
    /// same twice; a channel that was forgotten before it had counted may go on.
    epoch: u32,
    kept: usize,
    bytes: usize,
    evicted: u64,
}

/// Says whether, and how, a channel keeps history.
pub(super) type Rules = Box<dyn Fn(&str) -> Option<Retention> + Send>;

struct Owned {
    readers: List<Readers>,
    /// `None` if the channel keeps none.
    history: Option<Box<History>>,
}

/// The subscribers on one shard.
pub(super) struct Readers {
    pub(super) shard: Shard,
    /// The channel's key there.
    pub(super) key: u32,
    /// As the shard last reported.
    pub(super) subscribers: u32,
}

/// A cache line with its name, and the subscribers of two shards.
const _: () = assert!(ByName::<Owned>::SLOT_BYTES == 64);

/// A channel, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Those who are subscribed anywhere or have asked to be, within an eighth.
    pub subscribers: u64,
    /// Of the newest publication, if the channel keeps history.
    pub position: Option<Position>,
    /// Publications in its history.
    pub kept: u64,
    /// What the history takes, by the formula of `Stats::history_bytes`.
    pub history_bytes: u64,
}

/// Where a listing of channels goes on. Channels have no order in it, but one that is there all the
/// time comes once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u32);

/// Publications that are put out in one go.
const EXPIRED_SLICE: usize = 1024;

impl Owner {
    pub(super) fn new(rules: Rules, epoch: u32) -> Self {
        let (channels, deadlines) = (ByName::new(), BinaryHeap::new());
        Owner { rules, channels, deadlines, epoch, kept: 0, bytes: 0, evicted: 0 }
    }

    /// How the channel keeps history, if it does.
    pub(super) fn retention(&self, channel: &str) -> Option<Retention> {
        (self.rules)(channel).filter(|retention| retention.size > 0)
    }

    pub(super) fn find(&self, hash: u32, channel: &str) -> Option<u32> {
        self.channels.find(hash, channel)
    }

    /// The shards that care about a channel.
    pub(super) fn readers(&self, key: u32) -> &[Readers] {
        &self.channels.value(key).readers
    }

    /// Adds a channel that is not here yet. Who adds it sees to it that it gets a reader or history.
    pub(super) fn add(&mut self, name: ChannelName, retention: Option<Retention>) -> u32 {
        let history = retention.map(|retention| Box::new(History::new(retention, self.epoch)));
        self.bytes += history.as_ref().map_or(0, |history| bytes(&name, history));
        self.channels.insert(name, Owned { readers: List::new(), history })
    }

    /// A shard has a subscriber more, who wants to hear what comes after `from`. Returns, for a
    /// channel with history, what came until now.
    pub(super) fn join(
        &mut self,
        name: ChannelName,
        reported: Readers,
        from: Option<Position>,
        now: u64,
    ) -> Option<Past> {
        let key = self.find(name.hash, &name.text).unwrap_or_else(|| {
            let retention = self.retention(&name.text);
            self.add(name, retention)
        });
        let Owned { readers, .. } = self.channels.value_mut(key);
        match readers.iter_mut().find(|readers| readers.shard == reported.shard) {
            Some(readers) => *readers = reported,
            None => readers.push(reported),
        }
        let history = self.channels.value(key).history.as_ref()?;
        let missed = from.map(|from| history.missed(from, now));
        Some(Past {
            position: history.position(),
            recovered: missed.map(|missed| missed.is_some()),
            publications: match missed.flatten() {
                Some(missed) => history.publications(&self.channels.name(key).text, missed, missed),
                None => Vec::new(),
            },
        })
    }

    /// A shard has so many subscribers now. With none, it does not care any more.
    pub(super) fn count(&mut self, name: &ChannelName, shard: Shard, subscribers: u32) {
        let key = self.find(name.hash, &name.text).expect("the shard has asked before");
        let readers = &mut self.channels.value_mut(key).readers;
        let at = readers.iter().position(|readers| readers.shard == shard);
        let at = at.expect("the shard has asked before");
        if subscribers > 0 {
            readers[at].subscribers = subscribers;
            return;
        }
        readers.swap_remove(at);
        self.forget_unused(key);
    }

    /// Forgets a channel that nobody cares about and of which nothing is kept.
    fn forget_unused(&mut self, key: u32) {
        let Owned { readers, history } = self.channels.value(key);
        if !readers.is_empty() || history.as_ref().is_some_and(|history| history.len() > 0) {
            return;
        }
        let (name, Owned { history, .. }) = self.channels.remove(key);
        let Some(history) = history else { return };
        self.bytes -= bytes(&name, &history);
        if history.position().offset > 0 {
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    /// Puts a publication at the end of its channel.
    pub(super) fn append(&mut self, key: u32, payload: Payload, now: u64) -> Publication {
        let kept = self.channels.value(key).history.as_ref().map(|history| history.len());
        let position =
            kept.map(|_| self.change(key, |history| history.append(payload.clone(), now)));
        if kept == Some(0) {
            self.rearm(key);
        }
        Publication { channel: self.channels.name(key).text.clone(), position, payload }
    }

    /// At most `limit` publications: the oldest of those after `after`, or, if that is not given or
    /// not there any more, the newest. The channel is one that keeps history.
    pub(super) fn read(&self, name: &ChannelName, after: Option<Position>, limit: u32, now: u64) -> Past {
        let Some(key) = self.find(name.hash, &name.text) else {
            let position = Position { epoch: self.epoch, offset: 0 };
            let recovered = after.map(|after| after == position);
            return Past { position, recovered, publications: Vec::new() };
        };
        let history = self.history(key);
        let missed = after.map(|after| history.missed(after, now));
        let limit = limit as usize;
        let newest = missed.flatten().unwrap_or_else(|| history.fresh(now).min(limit));
        Past {
            position: history.position(),
            recovered: missed.map(|missed| missed.is_some()),
            publications: history.publications(&self.channels.name(key).text, newest, limit),
        }
    }

    /// Puts out what is past its time, a bounded slice of it.
    pub(super) fn expire(&mut self, now: u64) {
        let mut left = EXPIRED_SLICE;
        while left > 0
            && let Some(&Reverse((deadline, key))) = self.deadlines.peek()
            && deadline <= now
        {
            self.deadlines.pop();
            let expired = self.change(key, |history| history.expire(now, left));
            left -= expired.max(1);
            self.rearm(key);
        }
    }

    /// When there is something to put out, or somewhat earlier.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Puts out what is closest to the end of its time until `bytes_max` are enough.
    pub(super) fn evict(&mut self, bytes_max: u64) {
        while self.bytes as u64 > bytes_max
            && let Some(Reverse((deadline, key))) = self.deadlines.pop()
        {
            if self.history(key).deadline() == Some(deadline) {
                self.change(key, History::evict);
                self.evicted += 1;
            }
            self.rearm(key);
        }
    }

    /// Lists the deadline of a channel that is not listed; forgets the channel if there is no need for
    /// either.
    fn rearm(&mut self, key: u32) {
        match self.history(key).deadline() {
            Some(deadline) => self.deadlines.push(Reverse((deadline, key))),
            None => self.forget_unused(key),
        }
        if self.deadlines.is_empty() && self.deadlines.capacity() > KEPT {
            self.deadlines = BinaryHeap::new();
        }
    }

    fn history(&self, key: u32) -> &History {
        self.channels.value(key).history.as_ref().expect("it keeps history")
    }

    /// Changes a history, and what is counted of it.
    fn change<T>(&mut self, key: u32, change: impl FnOnce(&mut History) -> T) -> T {
        let history = self.channels.value_mut(key).history.as_mut().expect("it keeps history");
        let (kept, bytes) = (history.len(), history.bytes());
        let result = change(history);
        self.kept = self.kept + history.len() - kept;
        self.bytes = self.bytes + history.bytes() - bytes;
        result
    }

    /// Adds what is owned to the statistics.
    pub(super) fn count_into(&self, stats: &mut Stats) {
        stats.owned = self.channels.len() as u64;
        stats.kept = self.kept as u64;
        stats.history_bytes = self.bytes as u64;
        stats.evicted = self.evicted;
    }

    /// What there is to say of a channel, if it is here.
    pub(super) fn info(&self, key: u32) -> Option<ChannelInfo> {
        let (name, Owned { readers, history }) = self.channels.get(key)?;
        Some(ChannelInfo {
            name: name.text.clone(),
            subscribers: readers.iter().map(|readers| u64::from(readers.subscribers)).sum(),
            position: history.as_ref().map(|history| history.position()),
            kept: history.as_ref().map_or(0, |history| history.len() as u64),
            history_bytes: history.as_ref().map_or(0, |history| bytes(name, history) as u64),
        })
    }

    /// At most `limit` channels from `from` on. Looks at a bounded number of keys.
    pub(super) fn list(
        &self,
        Cursor(from): Cursor,
        limit: usize,
    ) -> (Vec<ChannelInfo>, Option<Cursor>) {
        let end = self.channels.keys_end();
        let mut channels = Vec::new();
        let mut key = from;
        while key < end && channels.len() < limit && ((key - from) as usize) < KEYS_A_CHANNEL * limit {
            channels.extend(self.info(key));
            key += 1;
        }
        (channels, (key < end).then_some(Cursor(key)))
    }
}

/// With no deadlines, room for this many is kept.
const KEPT: usize = 1024;
/// Keys that are looked at for each channel that is wanted, as most may be free.
const KEYS_A_CHANNEL: usize = 16;

/// What a channel that keeps history takes; the formula is at `Stats::history_bytes`.
fn bytes(name: &ChannelName, history: &History) -> usize {
    ByName::<Owned>::SLOT_BYTES + shared_bytes(name.text.len()) + history.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::Form;
    use crate::channels::name::Hashing;

    const TTL_MS: u64 = 1000;
    const READER: Readers = Readers { shard: 0, key: 0, subscribers: 1 };

    fn owner(size: u32) -> Owner {
        let rules = move |channel: &str| {
            channel.starts_with("kept").then_some(Retention { size, ttl_ms: TTL_MS })
        };
        Owner::new(Box::new(rules), 7)
    }

    fn name(text: &str) -> ChannelName {
        ChannelName { hash: Hashing::new(1).hash(text.as_bytes()), text: Arc::from(text) }
    }

    fn publish(owner: &mut Owner, name: &ChannelName, len: usize, now: u64) -> Option<Position> {
        let key = owner.find(name.hash, &name.text).unwrap_or_else(|| {
            let retention = owner.retention(&name.text);
            owner.add(name.clone(), retention)
        });
        let bytes = vec![0; len].into();
        owner.append(key, Payload { form: Form::Raw, bytes }, now).position
    }

    /// A channel without readers and history is forgotten, and its count with it: the next one has
    /// another epoch. One that had not counted yet goes on.
    #[test]
    fn a_lost_count_does_not_come_again() {
        let (mut owner, kept) = (owner(10), name("kept"));
        let position = |past: Option<Past>| past.expect("it keeps history").position;
        for _ in 0..2 {
            let first = position(owner.join(kept.clone(), READER, None, 0));
            assert_eq!(first, Position { epoch: 7, offset: 0 });
            owner.count(&kept, 0, 0);
        }
        assert_eq!(publish(&mut owner, &kept, 1, 0), Some(Position { epoch: 7, offset: 1 }));
        owner.expire(TTL_MS);
        assert_eq!((owner.channels.len(), owner.bytes, owner.kept), (0, 0, 0));
        let second = position(owner.join(kept.clone(), READER, None, TTL_MS));
        assert_eq!(second, Position { epoch: 8, offset: 0 });
    }

    /// A channel with readers keeps its count when its history is past its time.
    #[test]
    fn readers_keep_the_count() {
        let (mut owner, kept) = (owner(10), name("kept"));
        owner.join(kept.clone(), READER, None, 0);
        publish(&mut owner, &kept, 1, 0);
        owner.expire(TTL_MS);
        assert_eq!(publish(&mut owner, &kept, 1, TTL_MS), Some(Position { epoch: 7, offset: 2 }));
    }

    /// Channels expire in the order of their time, a bounded slice in one go, and each is listed once.
    #[test]
    fn expiry_is_sliced() {
        let mut owner = owner(300);
        let names: Vec<ChannelName> = (0..20).map(|channel| name(&format!("kept:{channel}"))).collect();
        for now in 0..300 {
            names.iter().for_each(|name| _ = publish(&mut owner, name, 1, now));
        }
        assert_eq!((owner.deadlines.len(), owner.next_expiry()), (20, Some(TTL_MS)));
        owner.expire(TTL_MS - 1);
        assert_eq!(owner.kept, 6000);
        owner.expire(TTL_MS + 149);
        assert_eq!(owner.kept, 6000 - EXPIRED_SLICE);
        while owner.next_expiry().is_some_and(|due| due < TTL_MS + 150) {
            owner.expire(TTL_MS + 149);
        }
        assert_eq!((owner.kept, owner.deadlines.len()), (3000, 20));
    }

    /// What would exceed the bound puts out what is closest to its end, in whatever channel.
    #[test]
    fn the_bound_puts_out_the_oldest() {
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
        let names: Vec<ChannelName> = (0..500).map(|channel| name(&format!("kept:{channel}"))).collect();
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
