//! The newest publications of one channel, and its position.
//!
//! Inside the router publications have consecutive numbers, their *indices*. Clients see *offsets*: the
//! same numbers if the owner numbers publications, and numbers with gaps if a broker orders them.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backplane::{Fetched, FetchedPublication};
use super::event::HistoryPage;
use super::holds::Holds;
use super::publication::{Direction, HistoryQuery, Payload, Position, Publication, Start};
use super::window::Window;

/// How many publications of a channel are kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Number of publications at most. With 0 the channel has no history.
    pub size: u32,
    /// Milliseconds after which a publication is dropped.
    pub ttl_ms: u64,
}

/// A channel's history, at its owner.
pub(super) struct History {
    retention: Retention,
    /// The position of the newest publication, whether or not it is still kept.
    position: Position,
    /// The index of the newest publication. It is also its offset, if the owner numbers publications.
    newest: u64,
    /// Oldest first. Their indices end at `newest` without a gap, and their times go up. There are more than
    /// the retention allows only because of a hold.
    kept: VecDeque<Kept>,
    payload_bytes: usize,
    /// Bytes of payload beyond the retention's size.
    held_bytes: u64,
    /// `None` without holds.
    pub(super) holds: Option<Box<Holds>>,
    /// The time for which the owner has a deadline.
    pub(super) deadline_set: Option<u64>,
    /// The state of the broker's stream in a channel that a broker orders; `None` if the owner numbers publications.
    pub(super) window: Option<Box<Window>>,
}

/// The index before the first one of a window. There is room for as many older publications.
const FIRST_INDEX: u64 = 1 << 62;

struct Kept {
    published: u64,
    payload: Payload,
}

const _: () = assert!(size_of::<Kept>() == 32);

impl History {
    pub(super) fn new(retention: Retention, epoch: u32) -> Self {
        History {
            retention,
            position: Position { epoch, offset: 0 },
            newest: 0,
            kept: VecDeque::new(),
            payload_bytes: 0,
            held_bytes: 0,
            holds: None,
            deadline_set: None,
            window: None,
        }
    }

    /// A window of what a broker keeps, which is not open yet.
    pub(super) fn of_broker(retention: Retention) -> Self {
        let window = Some(Box::new(Window::new()));
        History { newest: FIRST_INDEX, window, ..History::new(retention, 0) }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The index of the newest publication.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The index of the oldest publication, or of the next one if there is none.
    fn oldest(&self) -> u64 {
        self.newest + 1 - self.kept.len() as u64
    }

    /// Whether a hold keeps the oldest publication, whatever the retention.
    fn is_held(&self) -> bool {
        self.holds.as_ref().is_some_and(|holds| holds.lowest() <= self.oldest())
    }

    /// The time at which the oldest publication expires; `None` while it is held.
    pub(super) fn deadline(&self) -> Option<u64> {
        let oldest = self.kept.front().filter(|_| !self.is_held())?;
        Some(self.end_of(oldest))
    }

    fn end_of(&self, kept: &Kept) -> u64 {
        kept.published.saturating_add(self.retention.ttl_ms)
    }

    /// Numbers a publication and keeps it.
    pub(super) fn append(&mut self, payload: Payload, now: u64) -> Position {
        let offset = self.position.offset + 1;
        self.append_at(offset, payload, now)
    }

    /// Keeps a publication that has this offset, which is greater than those before.
    pub(super) fn append_at(&mut self, offset: u64, payload: Payload, now: u64) -> Position {
        let size = self.retention.size as usize;
        if self.kept.len() >= size && !self.is_held() {
            self.drop_oldest();
        }
        if self.kept.len() == self.kept.capacity() {
            let room = (self.kept.len() + 1).next_power_of_two();
            let room = if self.kept.len() < size { room.min(size) } else { room };
            self.kept.reserve_exact(room - self.kept.len());
        }
        self.payload_bytes += shared_bytes(payload.bytes.len());
        self.kept.push_back(Kept { published: now, payload });
        if let Some(beyond) = self.beyond().checked_sub(1) {
            self.held_bytes += self.kept[beyond].payload.bytes.len() as u64;
        }
        if let Some(window) = &mut self.window {
            window.offsets.push_back(offset);
            window.is_marked = false;
        }
        self.newest += 1;
        self.position.offset = offset;
        self.position
    }

    /// Takes the position at which the window begins.
    pub(super) fn begin(&mut self, position: Position) {
        assert!(self.kept.is_empty(), "it is not open yet");
        self.position = position;
    }

    /// A window of what the broker has answered to a request for all publications after this offset.
    pub(super) fn of_fetched(
        retention: Retention,
        after: u64,
        Fetched { epoch, publications, is_complete, .. }: Fetched,
        now: u64,
    ) -> Self {
        let mut history = History::of_broker(retention);
        history.begin(Position { epoch, offset: if is_complete { after } else { 0 } });
        let window = history.window.as_mut().expect("just made");
        window.complete_after = is_complete.then_some(after);
        for FetchedPublication { offset, payload, .. } in publications {
            history.append_at(offset, payload, now);
        }
        history
    }

    /// Drops all that is kept.
    pub(super) fn clear(&mut self) {
        self.kept = VecDeque::new();
        (self.payload_bytes, self.held_bytes) = (0, 0);
        if let Some(window) = &mut self.window {
            window.offsets = VecDeque::new();
        }
    }

    /// Takes note of a loss after the newest publication: drops what is kept, and returns the index that
    /// stands for the loss.
    pub(super) fn lose(&mut self, position: Position) -> u64 {
        self.clear();
        self.newest += 1;
        self.position = position;
        self.window.as_mut().expect("a broker orders it").mark(self.newest);
        self.newest
    }

    /// Adds the publications before those that are here. `fetched` are all after the offset `after`, up to
    /// the offset `to` at least.
    pub(super) fn prepend(
        &mut self,
        (after, to): (u64, u64),
        fetched: &[FetchedPublication],
        now: u64,
    ) {
        let window = self.window.as_mut().expect("a broker orders it");
        let to = fetched.last().map_or(to, |last| last.offset.max(to));
        // Later publications may have been dropped here since the broker was asked.
        let is_adjacent = |from: &u64| after < *from && *from <= to;
        let Some(complete_after) = window.complete_after.filter(is_adjacent) else { return };
        let older = fetched.partition_point(|publication| publication.offset <= complete_after);
        let mut before = after;
        let mut next_published = self.kept.front().map_or(now, |kept| kept.published);
        let mut left = self.newest - self.kept.len() as u64 - window.floor;
        for FetchedPublication { offset, age_ms, payload } in fetched[..older].iter().rev() {
            if left == 0 {
                before = *offset;
                break;
            }
            left -= 1;
            next_published = next_published.min(now.saturating_sub(*age_ms));
            self.payload_bytes += shared_bytes(payload.bytes.len());
            self.kept.push_front(Kept { published: next_published, payload: payload.clone() });
            window.offsets.push_front(*offset);
        }
        window.complete_after = Some(before);
        let beyond = self.beyond();
        let bytes = self.kept.iter().take(beyond).map(|kept| kept.payload.bytes.len() as u64);
        self.held_bytes = bytes.sum();
    }

    /// Number of publications beyond the retention's size, which only holds keep.
    fn beyond(&self) -> usize {
        self.kept.len().saturating_sub(self.retention.size as usize)
    }

    /// Bytes of payload of the publications beyond the retention's size.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Number of publications that a reader at `start` has missed; `None` if that is unknown, or if not
    /// all of them are still within the retention.
    pub(super) fn missed(&self, start: Start, now: u64) -> Option<usize> {
        let missed = self.missed_here(start)?;
        (missed <= self.visible(now) as u64).then_some(missed as usize)
    }

    /// The same, whatever the retention; more than are kept are not here.
    pub(super) fn missed_here(&self, start: Start) -> Option<u64> {
        let missed = self.position.offset.checked_sub(self.offset(start)?)?;
        match &self.window {
            None => Some(missed),
            Some(window) => {
                let offset = self.offset(start)?;
                window.reaches(offset).then(|| window.newer_than(offset) as u64)
            }
        }
    }

    /// Whether a page for the query needs nothing that only the broker may have.
    pub(super) fn has_page(&self, query: HistoryQuery, now: u64) -> bool {
        let HistoryQuery { start, limit, direction, .. } = query;
        match (start, direction) {
            (Start::Head, _) => self.visible(now) as u64 >= u64::from(limit),
            (_, Direction::Forward) => self.missed(start, now).is_some(),
            (_, Direction::Reverse) => false,
        }
    }

    /// The offset of a start, if it has one of this epoch.
    pub(super) fn offset(&self, start: Start) -> Option<u64> {
        match start {
            Start::Head => None,
            Start::After(position) => {
                (position.epoch == self.position.epoch).then_some(position.offset)
            }
            Start::AfterOffset(offset) => Some(offset),
        }
    }

    /// Number of publications within the retention.
    fn visible(&self, now: u64) -> usize {
        self.fresh(now).min(self.retention.size as usize)
    }

    /// Number of publications that have not expired; expired ones may still be here.
    fn fresh(&self, now: u64) -> usize {
        self.kept.len() - self.kept.partition_point(|kept| self.end_of(kept) <= now)
    }

    /// The page for a query.
    pub(super) fn page(&self, channel: &Arc<str>, query: HistoryQuery, now: u64) -> HistoryPage {
        let HistoryQuery { start, limit, bytes_max, direction } = query;
        let (kept, visible) = (self.kept.len(), self.visible(now));
        let within = |places: &mut dyn Iterator<Item = usize>| {
            self.within(places, limit as usize, u64::from(bytes_max))
        };
        let publications = |places: &mut dyn Iterator<Item = usize>| {
            places.map(|at| self.at(channel, at)).collect()
        };
        let (recovered, publications, more) = match direction {
            Direction::Forward => {
                let missed = self.missed(start, now);
                let (first, count, asked) = match missed {
                    Some(missed) => {
                        let first = kept - missed;
                        (first, within(&mut (first..kept)), missed)
                    }
                    None => {
                        let count = within(&mut (kept - visible..kept).rev());
                        (kept - count, count, visible)
                    }
                };
                (missed.is_some(), publications(&mut (first..first + count)), count < asked)
            }
            Direction::Reverse => {
                let before = self.offset(start);
                // Without a start, all publications count as older.
                let newer = before.map_or(0, |before| {
                    let newer = match &self.window {
                        None => self.position.offset.saturating_add(1).saturating_sub(before),
                        Some(window) => match before.checked_sub(1) {
                            None => u64::MAX,
                            Some(before) => window.newer_than(before) as u64,
                        },
                    };
                    usize::try_from(newer).unwrap_or(usize::MAX).min(visible)
                });
                let older = kept - visible..kept - newer;
                let count = within(&mut older.clone().rev());
                let newest = publications(&mut older.clone().rev().take(count));
                (before.is_some(), newest, count < older.len())
            }
        };
        let recovered = (start != Start::Head).then_some(recovered);
        HistoryPage { position: self.position, recovered, publications, more: more && limit > 0 }
    }

    /// Consecutive publications from the index `from` on, or from the oldest one that is still here, and the
    /// index of the first of them. They have more than `bytes_max` bytes only if the first one has.
    pub(super) fn slice(
        &self,
        channel: &Arc<str>,
        from: u64,
        bytes_max: u32,
    ) -> (u64, Vec<Publication>) {
        let first = from.max(self.oldest()).min(self.newest + 1);
        let places = (first - self.oldest()) as usize..self.kept.len();
        let count = self.within(&mut places.clone(), usize::MAX, u64::from(bytes_max));
        (first, places.take(count).map(|at| self.at(channel, at)).collect())
    }

    /// Number of publications at `places` within the bounds: at least one, unless `limit` is 0.
    fn within(
        &self,
        places: &mut dyn Iterator<Item = usize>,
        limit: usize,
        bytes_max: u64,
    ) -> usize {
        let mut bytes = 0;
        let fits = |(count, at): &(usize, usize)| {
            bytes += self.kept[*at].payload.bytes.len() as u64;
            *count == 0 || bytes <= bytes_max
        };
        places.take(limit).enumerate().take_while(fits).count()
    }

    fn at(&self, channel: &Arc<str>, at: usize) -> Publication {
        let offset = match &self.window {
            None => self.oldest() + at as u64,
            Some(window) => window.offsets[at],
        };
        let position = Some(Position { offset, ..self.position });
        let payload = self.kept[at].payload.clone();
        Publication { channel: channel.clone(), position, payload, except: None }
    }

    /// Drops at most `max` expired publications. Returns how many.
    pub(super) fn expire(&mut self, now: u64, max: usize) -> usize {
        let expired = (self.kept.len() - self.fresh(now)).min(max);
        let dropped = (0..expired).take_while(|_| self.evict_one()).count();
        self.give_back();
        dropped
    }

    /// Drops the oldest publication before it expires, unless it is held.
    pub(super) fn evict(&mut self) {
        self.evict_one();
        self.give_back();
    }

    /// Drops the publications beyond the size that no hold keeps any more. The others expire in time.
    pub(super) fn drop_released(&mut self) {
        while self.beyond() > 0 && self.evict_one() {}
        self.give_back();
    }

    fn evict_one(&mut self) -> bool {
        let evicted = !self.is_held() && !self.kept.is_empty();
        if evicted {
            self.drop_oldest();
        }
        evicted
    }

    fn drop_oldest(&mut self) {
        let is_beyond = self.beyond() > 0;
        let oldest = self.kept.pop_front().expect("something is kept");
        if is_beyond {
            self.held_bytes -= oldest.payload.bytes.len() as u64;
        }
        self.payload_bytes -= shared_bytes(oldest.payload.bytes.len());
        if let Some(window) = &mut self.window {
            window.complete_after = window.offsets.pop_front();
        }
    }

    /// Shrinks when at most a quarter of the room is used.
    fn give_back(&mut self) {
        if self.kept.len() <= self.kept.capacity() / 4 {
            self.kept.shrink_to(self.kept.len());
            if let Some(window) = &mut self.window {
                window.offsets.shrink_to(self.kept.len());
            }
        }
    }

    /// Bytes of the history while it has publications, by the formula of `Stats::history_bytes`.
    pub(super) fn bytes(&self) -> usize {
        let room = self.kept.capacity() * size_of::<Kept>();
        let offsets = self.window.as_ref().map_or(0, |window| {
            allocated(size_of::<Window>()) + allocated(window.offsets.capacity() * size_of::<u64>())
        });
        allocated(size_of::<History>()) + allocated(room) + self.payload_bytes + offsets
    }
}

/// What bytes behind an `Arc` take: two counts come with them.
pub(super) fn shared_bytes(len: usize) -> usize {
    allocated(2 * size_of::<usize>() + len)
}

/// What the allocator takes for so many bytes: its own 8, rounded up (glibc; others differ little).
fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => (bytes + 8).next_multiple_of(16).max(32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::Form;

    fn history(size: u32) -> History {
        History::new(Retention { size, ttl_ms: 10 }, 5)
    }

    fn payload(byte: u8) -> Payload {
        Payload::new(Form::Binary, [byte])
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 5, offset }
    }

    fn after(offset: u64) -> Start {
        Start::After(at(offset))
    }

    /// Of the page for a query: whether it recovers, its offsets, and whether there is more.
    fn page(
        history: &History,
        start: Start,
        (limit, bytes_max): (u32, u32),
        direction: Direction,
    ) -> (Option<bool>, Vec<u64>, bool) {
        let query = HistoryQuery { start, limit, bytes_max, direction };
        let page = history.page(&Arc::from("channel"), query, 0);
        let offset = |publication: &Publication| {
            let position = publication.position.expect("it has one");
            assert_eq!(publication.payload.bytes[0], position.offset as u8);
            position.offset
        };
        (page.recovered, page.publications.iter().map(offset).collect(), page.more)
    }

    /// The newest publications are kept, up to the retention's size, with their offsets.
    #[test]
    fn the_newest_are_kept() {
        let mut history = history(3);
        for byte in 1..=5 {
            assert_eq!(history.append(payload(byte), 0), at(u64::from(byte)));
        }
        let newest = page(&history, Start::Head, (9, 9), Direction::Forward);
        assert_eq!(newest, (None, vec![3, 4, 5], false));
    }

    /// A page begins where the query says, ends within its bounds, and says whether they left more out.
    #[test]
    fn pages_have_bounds() {
        let mut history = history(10);
        (1..=12).for_each(|byte| _ = history.append(payload(byte), 0));
        let forward = |start, bounds| page(&history, start, bounds, Direction::Forward);
        let reverse = |start, bounds| page(&history, start, bounds, Direction::Reverse);
        assert_eq!(forward(after(9), (9, 9)), (Some(true), vec![10, 11, 12], false));
        assert_eq!(forward(after(9), (2, 9)), (Some(true), vec![10, 11], true));
        assert_eq!(forward(after(9), (9, 2)), (Some(true), vec![10, 11], true));
        assert_eq!(forward(after(9), (9, 0)), (Some(true), vec![10], true));
        assert_eq!(forward(after(9), (0, 9)), (Some(true), vec![], false));
        assert_eq!(forward(after(12), (9, 9)), (Some(true), vec![], false));
        assert_eq!(forward(Start::AfterOffset(11), (9, 9)), (Some(true), vec![12], false));
        for lost in [after(1), after(13), after(u64::MAX), Start::AfterOffset(u64::MAX)] {
            assert_eq!(forward(lost, (2, 9)), (Some(false), vec![11, 12], true));
        }
        assert_eq!(forward(Start::Head, (9, 3)), (None, vec![10, 11, 12], true));
        assert_eq!(reverse(Start::Head, (2, 9)), (None, vec![12, 11], true));
        assert_eq!(reverse(after(5), (9, 9)), (Some(true), vec![4, 3], false));
        assert_eq!(reverse(after(5), (1, 9)), (Some(true), vec![4], true));
        assert_eq!(reverse(after(0), (9, 9)), (Some(true), vec![], false));
        assert_eq!(reverse(after(u64::MAX), (1, 9)), (Some(true), vec![12], true));
        let other = Start::After(Position { epoch: 4, offset: 5 });
        assert_eq!(reverse(other, (2, 9)), (Some(false), vec![12, 11], true));
    }

    /// A slice has consecutive publications from an offset on, or from the oldest that is left, and at
    /// least one if there is one.
    #[test]
    fn slices_follow_each_other() {
        let mut history = history(3);
        (1..=5).for_each(|byte| _ = history.append(payload(byte), 0));
        let slice = |from, bytes_max| {
            let (first, slice) = history.slice(&Arc::from("channel"), from, bytes_max);
            (first, slice.len())
        };
        assert_eq!([slice(1, 9), slice(4, 9), slice(3, 2)], [(3, 3), (4, 2), (3, 2)]);
        assert_eq!([slice(3, 0), slice(6, 9), slice(u64::MAX, 9)], [(3, 1), (6, 0), (6, 0)]);
    }

    /// The number of publications that a reader has missed is exact, or unknown when one of them is gone
    /// or its position is of another epoch.
    #[test]
    fn what_was_missed_is_there_or_not() {
        let mut history = history(3);
        assert_eq!((history.missed(after(0), 0), history.missed(after(1), 0)), (Some(0), None));
        for now in 0..5 {
            history.append(payload(0), now);
        }
        let missed = |start| history.missed(start, 5);
        assert_eq!([5, 4, 2].map(after).map(missed), [Some(0), Some(1), Some(3)]);
        assert_eq!([1, 6, u64::MAX].map(after).map(missed), [None; 3]);
        let other = Position { epoch: 4, offset: 5 };
        assert_eq!([Start::After(other), Start::Head].map(missed), [None; 2]);
        assert_eq!([3, 1, 6].map(Start::AfterOffset).map(missed), [Some(2), None, None]);
        // The one of moment 2 is past its time, though it has not been dropped.
        assert_eq!((history.missed(after(3), 12), history.missed(after(2), 12)), (Some(2), None));
    }

    /// Expired publications are dropped, a bounded number a call. The count goes on.
    #[test]
    fn time_drops() {
        let mut history = history(100);
        for now in 0..40 {
            history.append(payload(0), now);
        }
        assert_eq!(history.deadline(), Some(10));
        assert_eq!((history.expire(30, 15), history.expire(30, 15)), (15, 6));
        assert_eq!((history.expire(30, 15), history.len(), history.deadline()), (0, 19, Some(31)));
        history.expire(1000, 1000);
        assert_eq!((history.len(), history.deadline(), history.position()), (0, None, at(40)));
    }

    /// Held publications stay whatever size, time and bytes say, are counted, and are in no page; once
    /// released they are dropped.
    #[test]
    fn holds_keep_what_they_need() {
        let mut history = history(3);
        (1..=3).for_each(|byte| _ = history.append(payload(byte), 0));
        history.holds.get_or_insert_default().set((0, 1), 2, 0);
        (4..=6).for_each(|byte| _ = history.append(payload(byte), 0));
        assert_eq!((history.len(), history.held_bytes(), history.deadline()), (5, 2, None));
        assert_eq!(history.expire(100, 100), 0);
        history.evict();
        assert_eq!(history.slice(&Arc::from("channel"), 1, 100).0, 2);
        assert_eq!(history.missed(after(1), 0), None, "it is beyond the size");
        let newest = page(&history, Start::Head, (9, 9), Direction::Reverse);
        assert_eq!(newest, (None, vec![6, 5, 4], false));
        history.holds = None;
        history.drop_released();
        assert_eq!((history.len(), history.held_bytes(), history.deadline()), (3, 0, Some(10)));
    }

    /// Room grows up to the retention's size and is given back, and the counted bytes follow it.
    #[test]
    fn room_follows_what_is_kept() {
        let mut history = history(100);
        let empty = history.bytes();
        for now in 0..150 {
            history.append(payload(0), now);
            let room = history.len().next_power_of_two().min(100);
            assert_eq!(history.kept.capacity(), room);
            assert_eq!(history.bytes(), empty + allocated(room * 32) + history.len() * 32);
        }
        for now in 50..200 {
            history.expire(now, 100);
            assert!(history.kept.capacity() <= 4 * history.len());
        }
        assert_eq!((history.bytes(), history.kept.capacity()), (empty, 0));
    }
}
