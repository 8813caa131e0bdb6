//! A contiguous list: two inline, and little slack when there are many.

use std::ops::{Deref, DerefMut};

use smallvec::SmallVec;

/// A list in the size of a `Vec`, which needs no allocation for two values of 8 bytes.
pub(super) struct List<T>(SmallVec<[T; 2]>);

/// From here on a list grows by an eighth: of ten thousands of them, half would be slack otherwise.
const LARGE: usize = 1024;

impl<T> List<T> {
    pub(super) fn new() -> Self {
        List(SmallVec::new())
    }

    pub(super) fn push(&mut self, value: T) {
        if self.0.len() == self.0.capacity() && self.0.len() >= LARGE {
            self.0.reserve_exact(self.0.len() / 8);
        }
        self.0.push(value);
    }

    /// Drops the last value, and room when three quarters of it are unused.
    pub(super) fn pop(&mut self) {
        self.0.pop();
        if self.0.spilled() && self.0.len() <= self.0.capacity() / 4 {
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

    /// A long list has little slack, and what is left of it when it shrinks goes back.
    #[test]
    fn room_follows_the_length() {
        let mut list = List::new();
        for value in 0..100_000_u64 {
            list.push(value);
            let slack = list.0.capacity() - list.len();
            assert!(
                slack <= list.len().max(4) && (list.len() < 2 * LARGE || slack <= list.len() / 8)
            );
        }
        while !list.is_empty() {
            list.swap_remove(0);
            assert!(list.0.capacity() <= (4 * list.len()).max(8));
        }
        assert!(!list.0.spilled());
    }
}
