//! One rule for all collections that follow the load: they give back what a burst took.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;

use slab::Slab;

/// Collections with no more room than this are left as they are.
pub(crate) const KEPT: usize = 128;

/// Whether so little of the room is used that it is worth moving what is there.
fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 8
}

/// A collection that halves its room or better once it uses less than an eighth. A removal costs O(1)
/// on average.
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

/// Keys do not move: the room behind the last value goes back.
impl<T> Trim for Slab<T> {
    fn trim(&mut self) {
        if self.is_empty() && self.capacity() > KEPT {
            *self = Slab::new();
        } else if is_sparse(self.len(), self.capacity()) {
            self.shrink_to_fit();
        }
    }
}
