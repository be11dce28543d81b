//! Storage that grows by segments.
//!
//! Doubling one large allocation would stop everything for tens of milliseconds at a million entries. Here no stored
//! value ever moves. Released places are reused, the latest first, because it is in a cache.

use std::ops::{Index, IndexMut};

/// The id of nothing.
pub(super) const NONE: u32 = u32::MAX;

/// A value that can name the next of its kind: while it is unused, the next unused one.
pub(super) trait Link {
    /// Returns the value of a place that was never used.
    fn vacant() -> Self;
    fn link(&self) -> u32;
    fn set_link(&mut self, next: u32);
}

/// Entries by id, `N` to a segment: a power of two, known to the compiler, so that looking one up is one check.
#[derive(Debug)]
pub(super) struct Slab<T, const N: usize> {
    segments: Vec<Box<[T; N]>>,
    free: u32,
    bound: u32,
    used: u32,
}

impl<T: Link, const N: usize> Slab<T, N> {
    pub(super) const fn new() -> Self {
        Self { segments: Vec::new(), free: NONE, bound: 0, used: 0 }
    }

    /// Stores a value and returns its id.
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let id = self.claim();
        self[id] = value;
        id
    }

    /// Returns a place to be filled. Its value is vacant, or was released.
    #[inline]
    pub(super) fn claim(&mut self) -> u32 {
        self.used += 1;
        if self.free != NONE {
            let id = self.free;
            self.free = self[id].link();
            return id;
        }
        let id = self.bound;
        if id as usize >= self.segments.len() * N {
            self.grow();
        }
        self.bound += 1;
        id
    }

    #[cold]
    fn grow(&mut self) {
        assert!(self.segments.len() * N + N < NONE as usize, "a slab holds fewer than 2^32 entries");
        let segment: Vec<_> = std::iter::repeat_with(T::vacant).take(N).collect();
        let Ok(segment) = segment.into_boxed_slice().try_into() else { panic!("a segment has N entries") };
        self.segments.push(segment);
    }

    /// Releases a place. The value stays until the place is reused, so its owner empties it before.
    #[inline]
    pub(super) fn release(&mut self, id: u32) {
        let next = self.free;
        self[id].set_link(next);
        self.free = id;
        self.used -= 1;
    }

    /// Returns the end of the ids ever given out.
    pub(super) fn bound(&self) -> u32 {
        self.bound
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> u32 {
        self.used
    }
}

impl<T, const N: usize> Index<u32> for Slab<T, N> {
    type Output = T;

    #[inline]
    fn index(&self, id: u32) -> &T {
        &self.segments[id as usize / N][id as usize % N]
    }
}

impl<T, const N: usize> IndexMut<u32> for Slab<T, N> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.segments[id as usize / N][id as usize % N]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(u32, u32);

    impl Link for Entry {
        fn vacant() -> Self {
            Self(0, NONE)
        }

        fn link(&self) -> u32 {
            self.1
        }

        fn set_link(&mut self, next: u32) {
            self.1 = next;
        }
    }

    #[test]
    fn places_are_used_again_the_latest_first() {
        let mut slab: Slab<Entry, 2> = Slab::new();
        let ids: Vec<_> = (0..5).map(|value| slab.insert(Entry(value, NONE))).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        slab.release(1);
        slab.release(3);
        assert_eq!((slab.used(), slab.bound()), (3, 5));
        let again: Vec<_> = (10..13).map(|value| slab.insert(Entry(value, NONE))).collect();
        assert_eq!(again, [3, 1, 5]);
        assert_eq!((slab[3].0, slab[1].0, slab[4].0, slab[5].0), (10, 11, 4, 12));
    }
}
