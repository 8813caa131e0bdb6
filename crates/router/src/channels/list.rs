//! A contiguous list with room for two values inline, which wastes little memory when it is long.

use std::ops::{Deref, DerefMut};

use smallvec::SmallVec;

/// A list in the size of a `Vec`, which needs no allocation for two values of 8 bytes.
pub(super) struct List<T>(SmallVec<[T; 2]>);

/// From this length on a list grows fourfold. Unused room is not touched, so it takes no memory. The
/// memory that a list leaves behind each time it moves does, and growing fourfold keeps the sum of it
/// at a third of the list; growing twofold would leave as much as the list itself.
const LARGE: usize = 1024;
const GROWTH: usize = 4;
/// A list that uses less than this part of its room moves to a smaller one.
const SPARSE: usize = 16;

impl<T> List<T> {
    pub(super) fn new() -> Self {
        List(SmallVec::new())
    }

    pub(super) fn push(&mut self, value: T) {
        if self.0.len() == self.0.capacity() && self.0.len() >= LARGE {
            self.0.reserve_exact((GROWTH - 1) * self.0.len());
        }
        self.0.push(value);
    }

    /// Drops the last value. Gives room back when most of it is unused.
    pub(super) fn pop(&mut self) {
        self.0.pop();
        if self.0.spilled() && self.0.len() <= self.0.capacity() / SPARSE {
            self.0.shrink_to_fit();
        }
    }

    /// Drops the value at `place`. The last value takes its place.
    pub(super) fn swap_remove(&mut self, place: usize) {
        let last = self.0.len() - 1;
        self.0.swap(place, last);
        self.pop();
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room grows with the length, and what is left of it when that shrinks goes back.
    #[test]
    fn room_follows_the_length() {
        let mut list = List::new();
        for value in 0..100_000_u64 {
            list.push(value);
            let factor = if list.len() > LARGE { GROWTH } else { 2 };
            assert!(list.0.capacity() <= factor * list.len().max(2));
        }
        while !list.is_empty() {
            list.swap_remove(0);
            assert!(list.0.capacity() <= (SPARSE * list.len()).max(2 * SPARSE));
        }
        assert!(!list.0.spilled());
    }
}
