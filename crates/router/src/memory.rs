//! One rule for all collections that grow with the load: they give the memory of a burst back.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;

use slab::Slab;

/// Collections with no more room than this number of entries never shrink.
pub(crate) const KEPT: usize = 128;

/// Whether so little of the room is used that it is worth moving the entries.
fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 8
}

/// A collection that gives back at least half of its room once it uses less than an eighth of it. A
/// removal costs O(1) on average.
pub(crate) trait Trim {
    fn trim(&mut self);
}

macro_rules! trim {
    ($type:ty, $($bounds:tt)*) => {
        impl<$($bounds)*> Trim for $type {
            fn trim(&mut self) {
                if is_sparse(self.len(), self.capacity()) {
                    self.shrink_to(2 * self.len());
                }
            }
        }
    };
}

trim!(HashMap<K, V>, K: Eq + Hash, V);
trim!(Vec<T>, T);
trim!(VecDeque<T>, T);
trim!(BinaryHeap<T>, T: Ord);

/// Keys do not move, so only the room behind the last value is given back.
impl<T> Trim for Slab<T> {
    fn trim(&mut self) {
        if self.is_empty() && self.capacity() > KEPT {
            *self = Slab::new();
        } else if is_sparse(self.len(), self.capacity()) {
            self.shrink_to_fit();
        }
    }
}
