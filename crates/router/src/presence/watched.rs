//! Watchers on one shard, and the news that wait for them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::member::{Count, News, Watch};
use super::message::{PresenceMessage, Watchers};
use super::shard::Presence;
use crate::channels::{ChannelError, ChannelName, Encoded, Taken};
use crate::memory::Trim;
use crate::names::{Member, Shard};

/// The caller's side of presence: the watchers of a shard.
pub trait Watching<E> {
    /// Hands news of a channel to a watcher. `encoded` is the caller's encoding of the news, empty at
    /// first, which the caller may fill in.
    fn offer(&mut self, member: Member, channel: &Arc<str>, news: &News, encoded: &mut E) -> Taken;
}

/// The watchers of all channels on one shard.
pub(super) struct Watchings<E> {
    pub(super) channels: crate::channels::name::ByName<Watched<E>>,
    /// The place of each watcher in the list of its channel.
    places: HashMap<(u32, Member), u32>,
    /// Watchers that need the state of their channel anew.
    pub(super) behind: BTreeSet<(Member, u32)>,
    /// The number of the next question for the state of a channel.
    next_id: u32,
    /// News in the order in which they came.
    pub(super) news: VecDeque<Waiting>,
    /// Channels whose newest counts are being handed out.
    pub(super) counting: VecDeque<u32>,
}

/// A channel with watchers on this shard.
pub(super) struct Watched<E> {
    owner: Shard,
    watchers: Vec<Watcher>,
    /// Number of watchers of members.
    members: u32,
    /// Whether watchers of members get counts.
    is_large: bool,
    /// The newest counts, with the caller's encoding.
    count: Option<(Count, E)>,
    /// The watchers before this place have the newest counts.
    cursor: u32,
    /// Whether the channel is in the list of those whose counts are handed out.
    is_counting: bool,
    /// Whether the counts have changed since the first watchers got them.
    starts_again: bool,
}

#[derive(Clone, Copy)]
struct Watcher {
    member: Member,
    /// The number of its last question for the state of the channel.
    id: u32,
    watch: Watch,
    state: State,
}

/// What a watcher knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: it waits for the state of the channel.
    Waiting,
    /// All up to the last news.
    Live,
    /// Something old: its connection was congested, and has yet to take what is queued.
    Behind,
}

const _: () = assert!(size_of::<Watcher>() == 12);

/// News that wait to be handed to watchers.
pub(super) enum Waiting {
    /// The state of a channel for one watcher.
    One { key: u32, member: Member, id: u32, news: News },
    /// News for the watchers of members of a channel.
    All { key: u32, channel: Arc<str>, news: News },
}

impl<E> Watchings<E> {
    pub(super) fn new() -> Self {
        Watchings {
            channels: crate::channels::name::ByName::new(),
            places: HashMap::new(),
            behind: BTreeSet::new(),
            next_id: 0,
            news: VecDeque::new(),
            counting: VecDeque::new(),
        }
    }

    /// Number of watchers.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn watcher(&mut self, key: u32, member: Member) -> Option<&mut Watcher> {
        let place = *self.places.get(&(key, member))?;
        self.channels.value_mut(key).watchers.get_mut(place as usize)
    }
}

impl<E: Encoded> Presence<E> {
    /// Whether a member of this shard watches a channel.
    pub fn watches(&self, member: Member, channel: &str) -> bool {
        let key = self.watching.channels.find(self.hash(channel), channel);
        key.is_some_and(|key| self.watching.places.contains_key(&(key, member)))
    }

    /// A member of this shard watches a channel from now on, or watches something else of it. It is first
    /// handed the state of the channel.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn watch(
        &mut self,
        member: Member,
        channel: &str,
        watch: Watch,
        now: u64,
    ) -> Result<(), ChannelError> {
        let (name, owner) = self.name_and_owner(channel)?;
        let watching = &mut self.watching;
        let key = watching
            .channels
            .find(name.hash, &name.text)
            .unwrap_or_else(|| watching.channels.insert(name.clone(), Watched::new(owner)));
        let new = Watcher { member, id: 0, watch, state: State::Waiting };
        let before = match watching.watcher(key, member) {
            Some(watcher) => Some(std::mem::replace(watcher, new).watch),
            None => {
                let watched = watching.channels.value_mut(key);
                watching.places.insert((key, member), watched.watchers.len() as u32);
                watched.watchers.push(new);
                None
            }
        };
        let watched = watching.channels.value_mut(key);
        watched.members += u32::from(watch == Watch::Members);
        watched.members -= u32::from(before == Some(Watch::Members));
        watching.behind.remove(&(member, key));
        self.ask_for_state(key, member, now);
        Ok(())
    }

    /// Asks the owner of a channel for its state.
    fn ask_for_state(&mut self, key: u32, member: Member, now: u64) {
        let watching = &mut self.watching;
        watching.next_id = watching.next_id.wrapping_add(1);
        let id = watching.next_id;
        let watcher = watching.watcher(key, member).expect("it watches");
        (watcher.id, watcher.state) = (id, State::Waiting);
        let watch = watcher.watch;
        let channel = watching.channels.name(key).clone();
        let watched = watching.channels.value(key);
        let (owner, watchers) = (watched.owner, watched.counts());
        let message = PresenceMessage::Watch { channel, key, watchers, watcher: member, id, watch };
        self.send(owner, message, now);
    }

    /// A member does not watch a channel any more, if it did.
    pub fn unwatch(&mut self, member: Member, channel: &str, now: u64) {
        let hash = self.hash(channel);
        let watching = &mut self.watching;
        let Some(key) = watching.channels.find(hash, channel) else { return };
        let Some(place) = watching.places.remove(&(key, member)) else { return };
        watching.places.trim();
        watching.behind.remove(&(member, key));
        let watched = watching.channels.value_mut(key);
        let removed = watched.remove(place, |member, place| {
            watching.places.insert((key, member), place);
        });
        watched.members -= u32::from(removed.watch == Watch::Members);
        let (owner, watchers) = (watched.owner, watched.counts());
        let channel = match watched.watchers.is_empty() {
            true => watching.channels.remove(key).0,
            false => watching.channels.name(key).clone(),
        };
        self.send(owner, PresenceMessage::Watching { channel, watchers }, now);
    }

    /// The connection of a member has taken what was queued for it: the member gets the state of the
    /// channels of which it has missed news.
    pub fn resume(&mut self, member: Member, now: u64) {
        while let Some(&(_, key)) =
            self.watching.behind.range((member, 0)..=(member, u32::MAX)).next()
        {
            self.watching.behind.remove(&(member, key));
            self.ask_for_state(key, member, now);
        }
    }

    /// Whether no watcher has missed news.
    pub fn nobody_behind(&self) -> bool {
        self.watching.behind.is_empty()
    }

    /// Takes news of a channel for its watchers.
    pub(super) fn take_news(&mut self, key: u32, channel: Arc<str>, news: News, is_large: bool) {
        let watching = &mut self.watching;
        match watching.channels.get(key) {
            Some((name, _)) if name.is(&channel) => {}
            _ => return,
        }
        let watched = watching.channels.value_mut(key);
        watched.is_large = is_large;
        let News::Count(count) = news else {
            return watching.news.push_back(Waiting::All { key, channel, news });
        };
        watched.count = Some((count, E::default()));
        watched.starts_again = watched.cursor > 0;
        if !std::mem::replace(&mut watched.is_counting, true) {
            watching.counting.push_back(key);
        }
    }

    /// Hands news to watchers, to about `limit` of them. Returns whether news are left.
    pub fn deliver(&mut self, limit: usize, now: u64, watchers: &mut impl Watching<E>) -> bool {
        let mut left = limit;
        while left > 0 {
            if let Some(waiting) = self.watching.news.pop_front() {
                self.watching.news.trim();
                match waiting {
                    Waiting::One { key, member, id, news } => {
                        self.deliver_state(key, (member, id), news, watchers);
                        left -= 1;
                    }
                    Waiting::All { key, channel, news } => {
                        let told = self.deliver_to_all(key, &channel, &news, now, watchers);
                        left = left.saturating_sub(told.max(1));
                    }
                }
            } else if let Some(key) = self.watching.counting.pop_front() {
                self.watching.counting.trim();
                left = self.watching.deliver_count(key, left, watchers);
            } else {
                return false;
            }
        }
        !self.watching.news.is_empty() || !self.watching.counting.is_empty()
    }

    fn deliver_state(
        &mut self,
        key: u32,
        (member, id): (Member, u32),
        mut news: News,
        watchers: &mut impl Watching<E>,
    ) {
        let watching = &mut self.watching;
        match watching.watcher(key, member) {
            Some(watcher) if watcher.id == id && watcher.state == State::Waiting => {}
            _ => return,
        }
        let watched = watching.channels.value(key);
        // The channel has become large since.
        if let (News::Members(_), true, Some((count, _))) =
            (&news, watched.is_large, &watched.count)
        {
            news = News::Count(*count);
        }
        let channel = watching.channels.name(key).text.clone();
        let taken = watchers.offer(member, &channel, &news, &mut E::default());
        watching.told(key, member, taken);
    }

    fn deliver_to_all(
        &mut self,
        key: u32,
        channel: &Arc<str>,
        news: &News,
        now: u64,
        watchers: &mut impl Watching<E>,
    ) -> usize {
        let watching = &mut self.watching;
        let name: ChannelName = match watching.channels.get(key) {
            Some((name, _)) if name.is(channel) => name.clone(),
            _ => return 0,
        };
        let watched = watching.channels.value_mut(key);
        let (owner, mut encoded, mut told) = (watched.owner, E::default(), 0);
        if !watched.is_large {
            for watcher in &mut watched.watchers {
                if watcher.watch == Watch::Members && watcher.state == State::Live {
                    told += 1;
                    if watchers.offer(watcher.member, channel, news, &mut encoded) == Taken::Full {
                        watcher.state = State::Behind;
                        watching.behind.insert((watcher.member, key));
                    }
                }
            }
        }
        self.send(owner, PresenceMessage::Taken { channel: name }, now);
        told
    }
}

impl<E: Encoded> Watchings<E> {
    fn told(&mut self, key: u32, member: Member, taken: Taken) {
        let state = match taken {
            Taken::Yes | Taken::Gone => State::Live,
            Taken::Full => State::Behind,
        };
        self.watcher(key, member).expect("it watches").state = state;
        if state == State::Behind {
            self.behind.insert((member, key));
        }
    }

    /// Hands the newest counts of a channel to watchers, to `left` of them at most. Returns how many more
    /// may be handed something.
    fn deliver_count(
        &mut self,
        key: u32,
        mut left: usize,
        watchers: &mut impl Watching<E>,
    ) -> usize {
        let Watchings { channels, behind, counting, .. } = self;
        match channels.get(key) {
            Some((_, watched)) if watched.is_counting => {}
            _ => return left,
        }
        let channel = channels.name(key).text.clone();
        let Watched { watchers: list, count, cursor, is_large, is_counting, starts_again, .. } =
            channels.value_mut(key);
        let Some((count, encoded)) = count else { unreachable!("counts came") };
        loop {
            let Some(watcher) = list.get_mut(*cursor as usize) else {
                *cursor = 0;
                match std::mem::take(starts_again) {
                    true => continue,
                    false => break,
                }
            };
            if left == 0 {
                counting.push_front(key);
                return 0;
            }
            *cursor += 1;
            let gets = *is_large || watcher.watch == Watch::Counts;
            if gets && watcher.state == State::Live {
                left -= 1;
                let news = News::Count(*count);
                if watchers.offer(watcher.member, &channel, &news, encoded) == Taken::Full {
                    watcher.state = State::Behind;
                    behind.insert((watcher.member, key));
                }
            }
        }
        *is_counting = false;
        left
    }
}

impl<E> Watched<E> {
    fn new(owner: Shard) -> Self {
        Watched {
            owner,
            watchers: Vec::new(),
            members: 0,
            is_large: false,
            count: None,
            cursor: 0,
            is_counting: false,
            starts_again: false,
        }
    }

    fn counts(&self) -> Watchers {
        let all = self.watchers.len() as u32;
        Watchers { members: self.members, counts: all - self.members }
    }

    /// Removes the watcher at a place. `moved` is told the new places of others. Those that have the newest
    /// counts stay before the cursor.
    fn remove(&mut self, place: u32, mut moved: impl FnMut(Member, u32)) -> Watcher {
        let mut gap = place as usize;
        if place < self.cursor {
            self.cursor -= 1;
            let last = self.cursor as usize;
            self.watchers.swap(gap, last);
            if gap != last {
                moved(self.watchers[gap].member, place);
            }
            gap = last;
        }
        let removed = self.watchers.swap_remove(gap);
        if let Some(watcher) = self.watchers.get(gap) {
            moved(watcher.member, gap as u32);
        }
        self.watchers.trim();
        removed
    }
}
