//! What a burst took goes back.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Tables with no more room than this are left as they are.
pub(super) const KEPT: usize = 64;

/// Whether so little of the room is used that it is worth moving what is there.
fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 8
}

/// Halves a sparse map's room or better: a removal costs O(1) on average.
pub(super) fn shrink_map<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to(2 * map.len());
    }
}

/// The same for a list.
pub(super) fn shrink_list<T>(list: &mut Vec<T>) {
    if is_sparse(list.len(), list.capacity()) {
        list.shrink_to(2 * list.len());
    }
}

/// The same for a queue.
pub(super) fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if is_sparse(queue.len(), queue.capacity()) {
        queue.shrink_to(2 * queue.len());
    }
}
