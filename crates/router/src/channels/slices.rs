//! Slices of history for readers, and the holds that keep history until they have read it.

use super::history::History;
use super::holds::Holder;
use super::name::ChannelName;
use super::owner::{EXPIRED_PER_CALL, Owner};
use super::publication::Publication;

impl Owner {
    /// Publications from the index `from` on, for a reader, and the index of the first of them. With
    /// `hold` all later publications stay until the reader asks for them, is released, or the hold
    /// lapses; so the reader's shard may drop them from its log.
    pub(super) fn slice(
        &mut self,
        name: &ChannelName,
        holder: Holder,
        (from, bytes_max): (u64, u32),
        hold: bool,
        now: u64,
    ) -> (u64, Vec<Publication>) {
        let key = self.find(name.hash, &name.text).expect("the shard has asked before");
        let (first, slice) =
            self.history(key).slice(&self.channels.name(key).text, from, bytes_max);
        let next = first + slice.len() as u64;
        match hold {
            true => self.hold(key, holder, next, now),
            false => self.release(key, holder),
        }
        (first, slice)
    }

    /// Holds history from the index `from` on for a holder, for `hold_ms` milliseconds.
    pub(super) fn hold(&mut self, key: u32, holder: Holder, from: u64, now: u64) {
        let until = now.saturating_add(self.hold_ms);
        let before = self
            .change(key, |history| history.holds.get_or_insert_default().set(holder, from, until));
        if let Some(before) = before {
            self.lapses.remove(&(before, key, holder));
        }
        self.lapses.insert((until, key, holder));
        self.drop_released(key);
    }

    /// Ends the hold of a holder, if it has one.
    fn release(&mut self, key: u32, holder: Holder) {
        let until = self.change(key, |history| {
            let holds = history.holds.as_mut()?;
            let until = holds.release(holder);
            if holds.is_empty() {
                history.holds = None;
            }
            until
        });
        if let Some(until) = until {
            self.lapses.remove(&(until, key, holder));
            self.drop_released(key);
        }
    }

    /// Drops the publications that only an ended hold has kept.
    pub(super) fn drop_released(&mut self, key: u32) {
        self.change(key, History::drop_released);
        self.rearm(key);
    }

    /// Ends the hold of a reader that has left or has reached its shard's log.
    pub(super) fn release_by_name(&mut self, name: &ChannelName, holder: Holder) {
        if let Some(key) = self.find(name.hash, &name.text)
            && self.channels.value(key).history.is_some()
        {
            self.release(key, holder);
        }
    }

    /// Ends holds that have lapsed, a bounded number of them.
    pub(super) fn lapse(&mut self, now: u64) {
        for _ in 0..EXPIRED_PER_CALL {
            let Some(&(until, key, holder)) = self.lapses.first() else { return };
            if until > now {
                return;
            }
            self.release(key, holder);
        }
    }

    /// Whether holds keep so much history of the channel that the owner refuses publications.
    pub(super) fn is_overheld(
        &mut self,
        key: u32,
        held_max: u64,
        bytes_max: u64,
        now: u64,
    ) -> bool {
        if self.lapses.is_empty() {
            return false;
        }
        self.lapse(now);
        let bytes = self.bytes as u64;
        let history = self.channels.get(key).and_then(|(_, owned)| owned.history.as_ref());
        history.is_some_and(|history| {
            history.holds.is_some() && (history.held_bytes() > held_max || bytes > bytes_max)
        })
    }
}
