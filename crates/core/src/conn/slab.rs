//! One shard's connections.

use crate::conn::id::ConnId;
use crate::conn::{Conn, State};
use crate::pool::NONE;
use crate::ring::Socket;

/// The slots of one shard. Address space for all of them is taken at startup, memory as they are
/// first used: the last freed slot, which is the warmest, is used next.
pub(crate) struct Slab {
    /// Never reallocated: made with room for `conns_max`.
    slots: Vec<Conn>,
    conns_max: u32,
    /// The last freed slot; the others are linked through `Conn::socket`.
    free: u32,
    used: u32,
}

impl Slab {
    pub(crate) fn new(conns_max: u32) -> Self {
        Slab { slots: Vec::with_capacity(conns_max as usize), conns_max, free: NONE, used: 0 }
    }

    /// Takes a slot for a connection to come; `None` when every slot is taken.
    pub(crate) fn reserve(&mut self) -> Option<ConnId> {
        let index = if self.free != NONE {
            let index = self.free;
            self.free = self.slots[index as usize].socket.0;
            index
        } else if (self.slots.len() as u32) < self.conns_max {
            self.slots.push(Conn::free());
            self.slots.len() as u32 - 1
        } else {
            return None;
        };
        let conn = &mut self.slots[index as usize];
        assert_eq!(conn.state, State::Free);
        conn.state = State::Reserved;
        conn.socket = Socket(NONE);
        self.used += 1;
        Some(ConnId::new(index, conn.generation))
    }

    /// Frees the slot of a connection that is over and of which the kernel holds nothing.
    pub(crate) fn free(&mut self, id: ConnId) {
        let free = self.free;
        let conn = self.get_mut(id).expect("freed once");
        assert!(conn.in_flight.is_empty() && conn.queue.is_empty() && conn.tail == NONE);
        *conn = Conn { generation: id.next().generation(), socket: Socket(free), ..Conn::free() };
        self.free = id.index();
        self.used -= 1;
    }

    /// `None` for a connection that is gone, whoever has its slot now.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Conn> {
        let conn = self.slots.get(id.index() as usize)?;
        (conn.generation == id.generation() && conn.state != State::Free).then_some(conn)
    }

    /// `None` for a connection that is gone, whoever has its slot now.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let conn = self.slots.get_mut(id.index() as usize)?;
        (conn.generation == id.generation() && conn.state != State::Free).then_some(conn)
    }

    /// The connection in slot `index`, if one is there.
    pub(crate) fn at(&self, index: u32) -> Option<ConnId> {
        let conn = self.slots.get(index as usize)?;
        (conn.state != State::Free).then(|| ConnId::new(index, conn.generation))
    }

    /// How many slots have ever been used: every connection is below.
    pub(crate) fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many slots are taken.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot's second connection has another name, and the first one's resolves to nothing.
    #[test]
    fn stale_names_resolve_to_nothing() {
        let mut slab = Slab::new(1);
        let first = slab.reserve().expect("a slot");
        assert!(slab.reserve().is_none(), "there is one slot");
        slab.free(first);
        let second = slab.reserve().expect("the slot again");
        assert_eq!(first.index(), second.index());
        assert!(slab.get(first).is_none() && slab.get(second).is_some());
    }

    /// Generations wrap at 24 bits without confusing a connection with its predecessor.
    #[test]
    fn generations_wrap() {
        let mut slab = Slab::new(1);
        let id = slab.reserve().expect("a slot");
        slab.free(id);
        slab.slots[0].generation = (1 << 24) - 1;
        let last = slab.reserve().expect("the slot again");
        slab.free(last);
        let wrapped = slab.reserve().expect("the slot again");
        assert_eq!(wrapped.generation(), 0);
        assert!(slab.get(last).is_none());
    }
}
