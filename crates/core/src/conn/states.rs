//! The protocol's state of each connection, beside the slab.

use std::ops::{Index, IndexMut};

use super::id::ConnId;

/// The protocol's states by slot. They are apart from the slab, so that a protocol can hold the state of
/// one connection while it queues bytes on any.
pub(crate) struct States<S>(Vec<Option<S>>);

impl<S> States<S> {
    /// Reserves address space for `max_conns` states. Memory is used as slots are first used.
    pub(crate) fn new(max_conns: u32) -> Self {
        States(Vec::with_capacity(max_conns as usize))
    }

    /// Stores the state of a connection that has just opened.
    pub(crate) fn insert(&mut self, conn: ConnId, state: S) {
        let index = conn.index() as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(state);
    }

    /// Takes the state of a connection that has closed. `None` if it never opened.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<S> {
        self.0.get_mut(conn.index() as usize)?.take()
    }
}

/// Panics for a connection that is not open.
impl<S> Index<ConnId> for States<S> {
    type Output = S;

    fn index(&self, conn: ConnId) -> &S {
        self.0[conn.index() as usize].as_ref().expect(IS_OPEN)
    }
}

impl<S> IndexMut<ConnId> for States<S> {
    fn index_mut(&mut self, conn: ConnId) -> &mut S {
        self.0[conn.index() as usize].as_mut().expect(IS_OPEN)
    }
}

const IS_OPEN: &str = "the protocol has a state of every open connection";
