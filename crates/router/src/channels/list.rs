//! A contiguous list: two inline, and little that is touched and not used when there are many.

use std::ops::{Deref, DerefMut};

use smallvec::SmallVec;

/// A list in the size of a `Vec`, which needs no allocation for two values of 8 bytes.
pub(super) struct List<T>(SmallVec<[T; 2]>);

/// From here on a list grows fourfold. Room that is not used yet is not touched, and takes no memory;
/// what a list leaves behind when it moves does, and is a third of it so, not twice as much.
const LARGE: usize = 1024;
const GROWTH: usize = 4;
/// A list that uses less of its room than this part moves to a smaller one.
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

    /// Drops the last value, and room when most of it is unused.
    pub(super) fn pop(&mut self) {
        self.0.pop();
        if self.0.spilled() && self.0.len() <= self.0.capacity() / SPARSE {
            self.0.shrink_to_fit();
        }
    }

    /// Drops the value at `place`; the last one takes its place.
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
