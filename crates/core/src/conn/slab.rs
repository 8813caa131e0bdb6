//! The connections of one shard, by slot.

use std::ops::{Index, IndexMut};

use super::id::ConnId;
use super::{Conn, State};
use crate::pool::NONE;
use crate::ring::Socket;

/// The slots of one shard. Address space for all of them is reserved at startup; memory is used as slots
/// are first used. The slot that was freed last, which is the warmest in the caches, is used next.
///
/// `slab[conn]` is for a connection that the caller knows to be alive, because an operation of it is in
/// flight or has just completed; it panics otherwise. [`get`](Slab::get) is for a [`ConnId`] that may be
/// stale.
pub(crate) struct Slab {
    /// Never reallocated: made with capacity for `max_conns`.
    slots: Vec<Conn>,
    max_conns: u32,
    /// The slot that was freed last; the others are linked through `Conn::socket`.
    free: u32,
    used: u32,
}

impl Slab {
    /// An empty slab for at most `max_conns` connections.
    pub(crate) fn new(max_conns: u32) -> Self {
        Slab { slots: Vec::with_capacity(max_conns as usize), max_conns, free: NONE, used: 0 }
    }

    /// Takes a slot for an accept or a connect; `None` when every slot is taken.
    pub(crate) fn reserve(&mut self) -> Option<ConnId> {
        let index = if self.free != NONE {
            let index = self.free;
            self.free = self.slots[index as usize].socket.0;
            index
        } else if (self.slots.len() as u32) < self.max_conns {
            self.slots.push(Conn::free());
            self.slots.len() as u32 - 1
        } else {
            return None;
        };
        let slot = &mut self.slots[index as usize];
        assert_eq!(slot.state, State::Free);
        slot.state = State::Reserved;
        slot.socket = Socket(NONE);
        self.used += 1;
        Some(ConnId::new(index, slot.generation))
    }

    /// Frees the slot of a connection that is over and of which the kernel holds nothing.
    pub(crate) fn free(&mut self, conn: ConnId) {
        let free = self.free;
        let slot = &mut self[conn];
        assert!(slot.in_flight.is_empty() && slot.queue.is_empty() && slot.tail == NONE);
        *slot = Conn { generation: conn.next().generation(), socket: Socket(free), ..Conn::free() };
        self.free = conn.index();
        self.used -= 1;
    }

    /// The connection, or `None` if it is gone, even if another connection has its slot now.
    pub(crate) fn get(&self, conn: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(conn.index() as usize)?;
        (slot.generation == conn.generation() && slot.state != State::Free).then_some(slot)
    }

    /// The connection, or `None` if it is gone, even if another connection has its slot now.
    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(conn.index() as usize)?;
        (slot.generation == conn.generation() && slot.state != State::Free).then_some(slot)
    }

    /// The connection in slot `index`, if the slot is taken.
    pub(crate) fn at(&self, index: u32) -> Option<ConnId> {
        let slot = self.slots.get(index as usize)?;
        (slot.state != State::Free).then(|| ConnId::new(index, slot.generation))
    }

    /// Every connection whose slot is taken, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        let taken = self.slots.iter().zip(0..).filter(|(slot, _)| slot.state != State::Free);
        taken.map(|(slot, index)| (ConnId::new(index, slot.generation), slot))
    }

    /// How many slots have ever been used: the indices of all connections are less.
    pub(crate) fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many slots are taken.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }
}

impl Index<ConnId> for Slab {
    type Output = Conn;

    #[track_caller]
    fn index(&self, conn: ConnId) -> &Conn {
        self.get(conn).expect(IS_ALIVE)
    }
}

impl IndexMut<ConnId> for Slab {
    #[track_caller]
    fn index_mut(&mut self, conn: ConnId) -> &mut Conn {
        self.get_mut(conn).expect(IS_ALIVE)
    }
}

const IS_ALIVE: &str = "a connection keeps its slot until its last completion";

#[cfg(test)]
mod tests {
    use super::*;

    /// The second connection in a slot has another id, and that of the first resolves to nothing.
    #[test]
    fn stale_ids_resolve_to_nothing() {
        let mut slab = Slab::new(1);
        let first = slab.reserve().expect("a slot");
        assert!(slab.reserve().is_none(), "there is one slot");
        slab.free(first);
        let second = slab.reserve().expect("the slot again");
        assert_eq!(first.index(), second.index());
        assert!(slab.get(first).is_none() && slab.get(second).is_some());
    }

    /// Generations wrap at 24 bits, and a connection is still told from the one before it.
    #[test]
    fn generations_wrap() {
        let mut slab = Slab::new(1);
        let conn = slab.reserve().expect("a slot");
        slab.free(conn);
        slab.slots[0].generation = (1 << 24) - 1;
        let last = slab.reserve().expect("the slot again");
        slab.free(last);
        let wrapped = slab.reserve().expect("the slot again");
        assert_eq!(wrapped.generation(), 0);
        assert!(slab.get(last).is_none());
    }

    /// `iter` gives the connections of the taken slots only, by their current ids.
    #[test]
    fn iteration_skips_free_slots() {
        let mut slab = Slab::new(3);
        let conns: Vec<ConnId> = (0..3).filter_map(|_| slab.reserve()).collect();
        slab.free(conns[1]);
        let found: Vec<ConnId> = slab.iter().map(|(conn, _)| conn).collect();
        assert_eq!(found, [conns[0], conns[2]]);
    }
}
