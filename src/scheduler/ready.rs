//! Which lane is next: the oldest batch first, within it the longest queue, then the one that has waited longest.
//!
//! An entry is never moved or searched for. A lane notes where it is ready; an entry that it no longer agrees with is
//! skipped when it is met, so that everything is O(1) amortised.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slab::{Link, NONE, Slab};

const CLASSES: usize = 90;

/// Returns the class of a queue's length: exact up to 64, then by powers of two.
#[inline]
pub(super) fn class(len: u32) -> u8 {
    if len <= 64 { len.saturating_sub(1) as u8 } else { (58 + len.ilog2()) as u8 }
}

#[derive(Debug)]
struct Entry {
    lane: u32,
    next: u32,
}

impl Link for Entry {
    fn vacant() -> Self {
        Self { lane: NONE, next: NONE }
    }

    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        self.next = next;
    }
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

/// What is ready under one batch.
#[derive(Debug)]
struct Bucket {
    sequence: u64,
    /// Which lists have entries.
    filled: u128,
    /// Whether the heap knows it.
    known: bool,
    lists: [List; CLASSES],
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) lane: u32,
    pub(super) batch: u32,
    pub(super) class: u8,
}

#[derive(Debug)]
pub(super) struct Ready {
    /// By batch.
    buckets: Vec<Bucket>,
    entries: Slab<Entry, 4096>,
    /// Batches that may have something, by age.
    batches: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Ready {
    pub(super) fn new() -> Self {
        Self { buckets: Vec::new(), entries: Slab::new(), batches: BinaryHeap::new() }
    }

    /// Begins a batch; a smaller sequence is an older batch.
    pub(super) fn begin(&mut self, batch: u32, sequence: u64) {
        let at = batch as usize;
        if at == self.buckets.len() {
            let lists = [List { head: NONE, tail: NONE }; CLASSES];
            self.buckets.push(Bucket { sequence, filled: 0, known: false, lists });
        } else {
            let bucket = &mut self.buckets[at];
            assert_eq!(bucket.filled, 0, "a batch begins with nothing ready");
            (bucket.sequence, bucket.known) = (sequence, false);
        }
    }

    /// Ends a batch; what is left of its entries is void.
    pub(super) fn end(&mut self, batch: u32) {
        while self.buckets[batch as usize].filled != 0 {
            self.remove(batch, self.buckets[batch as usize].filled.ilog2() as u8);
        }
    }

    #[inline]
    pub(super) fn push(&mut self, lane: u32, batch: u32, class: u8) {
        let entry = self.entries.insert(Entry { lane, next: NONE });
        let bucket = &mut self.buckets[batch as usize];
        let list = &mut bucket.lists[usize::from(class)];
        if list.head == NONE {
            list.head = entry;
            bucket.filled |= 1 << class;
        } else {
            self.entries[list.tail].next = entry;
        }
        list.tail = entry;
        if !bucket.known {
            bucket.known = true;
            self.batches.push(Reverse((bucket.sequence, batch)));
        }
    }

    /// Returns what is next of that which is still `valid`, and leaves it there.
    #[inline]
    pub(super) fn peek(&mut self, valid: impl Fn(Next) -> bool) -> Option<Next> {
        while let Some(&Reverse((sequence, batch))) = self.batches.peek() {
            let bucket = &mut self.buckets[batch as usize];
            if bucket.sequence != sequence || bucket.filled == 0 {
                if bucket.sequence == sequence {
                    bucket.known = false;
                }
                self.batches.pop();
                continue;
            }
            let class = bucket.filled.ilog2() as u8;
            let lane = self.entries[bucket.lists[usize::from(class)].head].lane;
            let next = Next { lane, batch, class };
            if valid(next) {
                return Some(next);
            }
            self.remove(batch, class);
        }
        None
    }

    /// Takes the first entry of a list off.
    #[inline]
    pub(super) fn remove(&mut self, batch: u32, class: u8) {
        let bucket = &mut self.buckets[batch as usize];
        let list = &mut bucket.lists[usize::from(class)];
        let entry = list.head;
        list.head = self.entries[entry].next;
        if list.head == NONE {
            list.tail = NONE;
            bucket.filled &= !(1 << class);
        }
        self.entries.release(entry);
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries.used() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_exact_to_64_and_then_by_powers_of_two() {
        let classes = [1, 2, 64, 65, 127, 128, 255, 256, u32::MAX].map(class);
        assert_eq!(classes, [0, 1, 63, 64, 64, 65, 65, 66, 89]);
        assert!(usize::from(class(u32::MAX)) < CLASSES);
    }

    #[test]
    fn the_oldest_batch_is_first_then_the_longest_queue_then_the_first_come() {
        let mut ready = Ready::new();
        ready.begin(0, 7);
        ready.begin(1, 3);
        for (lane, batch, class) in [(1, 0, 0), (2, 1, 0), (3, 1, 5), (4, 1, 0), (5, 1, 5), (6, 0, 9)] {
            ready.push(lane, batch, class);
        }
        let mut order = Vec::new();
        while let Some(next) = ready.peek(|next| next.lane != 5) {
            order.push(next.lane);
            ready.remove(next.batch, next.class);
        }
        assert_eq!(order, [3, 2, 4, 6, 1]);
        assert_eq!(ready.entries(), 0);
        ready.push(7, 1, 0);
        ready.end(1);
        assert_eq!(ready.peek(|_| true), None);
    }
}
