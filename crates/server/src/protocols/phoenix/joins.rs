//! The join refs of all sessions of a shard: 8 bytes for each joined topic.

use std::borrow::Cow;

use murre_core::Pool;

use super::refs::{Packed, Ref};

/// The join refs by slot. A session names a topic by the key of its channel in the router.
#[derive(Default)]
pub(crate) struct Joins {
    slots: Vec<Slot>,
    /// The joins of sessions with more than one.
    lists: Pool<Vec<Join>>,
    /// Refs that no client is known to make.
    texts: Pool<Box<str>>,
}

/// One joined topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Join {
    /// The key of the channel, which is below 2^30, and the flags in the two bits above.
    channel: u32,
    join_ref: Packed,
}

/// What a join asks for beside publications. Clients without the additions of Supabase ask for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinFlags {
    /// Broadcasts of the client are answered.
    pub(crate) ack: bool,
    /// Broadcasts of the client come back to it.
    pub(crate) echo: bool,
}

impl Join {
    const ACK: u32 = 1 << 30;
    const ECHO: u32 = 1 << 31;

    fn new(channel: u32, JoinFlags { ack, echo }: JoinFlags, join_ref: Packed) -> Self {
        let bits = (u32::from(ack) * Join::ACK) | (u32::from(echo) * Join::ECHO);
        Join { channel: channel | bits, join_ref }
    }

    fn is_of(self, channel: u32) -> bool {
        self.channel & !(Join::ACK | Join::ECHO) == channel
    }

    fn flags(self) -> JoinFlags {
        JoinFlags { ack: self.channel & Join::ACK != 0, echo: self.channel & Join::ECHO != 0 }
    }
}

/// The joins of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(Join);

const _: () = assert!(size_of::<Slot>() == 8);

/// In place of a channel. The router has fewer than 2^30 - 2 channels.
const NONE: u32 = u32::MAX;
/// In place of a channel: the join ref is the key of a list.
const LIST: u32 = u32::MAX - 1;

const EMPTY: Slot = Slot(Join { channel: NONE, join_ref: Packed(0) });

impl Joins {
    fn of(&self, slot: u32) -> &[Join] {
        match self.slots.get(slot as usize) {
            None | Some(Slot(Join { channel: NONE, .. })) => &[],
            Some(Slot(Join { channel: LIST, join_ref })) => self.lists.get(join_ref.0),
            Some(Slot(join)) => std::slice::from_ref(join),
        }
    }

    /// The join ref of a topic, as JSON text; null if the session has not joined it.
    pub(crate) fn get(&self, slot: u32, channel: u32) -> Cow<'_, str> {
        let join = self.find(slot, channel);
        join.map_or("null".into(), |join| self.text(join.join_ref))
    }

    /// The flags of a topic's join.
    pub(crate) fn flags(&self, slot: u32, channel: u32) -> JoinFlags {
        self.find(slot, channel).map(|join| join.flags()).unwrap_or_default()
    }

    fn find(&self, slot: u32, channel: u32) -> Option<&Join> {
        self.of(slot).iter().find(|join| join.is_of(channel))
    }

    fn text(&self, join_ref: Packed) -> Cow<'_, str> {
        match join_ref.key() {
            Some(key) => (&**self.texts.get(key)).into(),
            None => join_ref.to_string().into(),
        }
    }

    /// Records that a session has joined a topic. Replaces an earlier join ref of the topic, or of one
    /// whose subscription the server has ended, so that another topic has its key now.
    pub(crate) fn insert(&mut self, slot: u32, channel: u32, join_ref: &Ref<'_>, flags: JoinFlags) {
        self.remove(slot, channel);
        let join_ref = Packed::small(join_ref).unwrap_or_else(|| {
            let key = self.texts.insert(join_ref.json().into());
            Packed::text(key).expect("fewer than 2^31 refs are kept")
        });
        let join = Join::new(channel, flags, join_ref);
        let index = slot as usize;
        if index >= self.slots.len() {
            let slots = index + 1;
            if slots > self.slots.capacity() {
                // As the router does: an eighth more, so little memory is unused.
                self.slots.reserve_exact(slots + slots / 8 - self.slots.len());
            }
            self.slots.resize(slots, EMPTY);
        }
        self.slots[index] = match self.slots[index] {
            Slot(Join { channel: NONE, .. }) => Slot(join),
            list @ Slot(Join { channel: LIST, join_ref }) => {
                self.lists.get_mut(join_ref.0).push(join);
                list
            }
            Slot(first) => {
                let key = self.lists.insert(vec![first, join]);
                Slot(Join { channel: LIST, join_ref: Packed(key) })
            }
        };
    }

    /// Removes a topic of a session, and returns its join ref as JSON text.
    pub(crate) fn remove(&mut self, slot: u32, channel: u32) -> Option<String> {
        let at = self.of(slot).iter().position(|join| join.is_of(channel))?;
        let entry = &mut self.slots[slot as usize];
        let removed = match *entry {
            Slot(Join { channel: LIST, join_ref: list }) => {
                let joins = self.lists.get_mut(list.0);
                let removed = joins.swap_remove(at);
                if let [last] = joins[..] {
                    *entry = Slot(last);
                    self.lists.remove(list.0);
                }
                removed
            }
            Slot(join) => {
                *entry = EMPTY;
                join
            }
        };
        let text = self.text(removed.join_ref).into_owned();
        self.drop_text(removed);
        Some(text)
    }

    /// Removes all topics of a session that ends.
    pub(crate) fn leave(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        match std::mem::replace(entry, EMPTY) {
            Slot(Join { channel: NONE, .. }) => {}
            Slot(Join { channel: LIST, join_ref }) => {
                let joins = self.lists.remove(join_ref.0);
                joins.into_iter().for_each(|join| self.drop_text(join));
            }
            Slot(join) => self.drop_text(join),
        }
    }

    fn drop_text(&mut self, join: Join) {
        if let Some(key) = join.join_ref.key() {
            self.texts.remove(key);
        }
    }

    /// The number of sessions that have joined a topic, of lists and of texts.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn kept(&self) -> usize {
        let used = self.slots.iter().filter(|slot| **slot != EMPTY).count();
        used + self.lists.len() as usize + self.texts.len() as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A table beside one of maps, through random joins and leaves of many sessions, with refs of all
    /// kinds. Nothing is left when all have left.
    #[test]
    fn agrees_with_a_map() {
        let refs = ["null", "\"1\"", "\"2147483647\"", "\"x\"", "7", "\"07\""];
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut joins = Joins::default();
            let mut map: HashMap<(u32, u32), &str> = HashMap::new();
            for _ in 0..400 {
                let (slot, channel) = (random.u32(..5), random.u32(..6));
                match random.u32(..9) {
                    0 => {
                        joins.leave(slot);
                        map.retain(|&(of, _), _| of != slot);
                    }
                    1..4 => {
                        let removed = joins.remove(slot, channel);
                        assert_eq!(removed.as_deref(), map.remove(&(slot, channel)));
                    }
                    _ => {
                        let json = refs[random.usize(..refs.len())];
                        let flags = JoinFlags { ack: random.bool(), echo: random.bool() };
                        joins.insert(slot, channel, &Ref::new(json).expect("a ref"), flags);
                        assert_eq!(joins.flags(slot, channel), flags);
                        map.insert((slot, channel), json);
                    }
                }
                assert_eq!(joins.get(slot, channel), *map.get(&(slot, channel)).unwrap_or(&"null"));
                let count = map.keys().filter(|(of, _)| *of == slot).count();
                assert_eq!(joins.of(slot).len(), count, "{seed}");
            }
            (0..5).for_each(|slot| joins.leave(slot));
            assert_eq!(joins.kept(), 0, "{seed}");
        }
    }
}
