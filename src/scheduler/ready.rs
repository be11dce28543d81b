//! The choice of the next lane: the oldest batch first, within it the longest queue, then the longest wait.
//!
//! An entry is never moved or searched for. A lane notes its place in the lists, and an entry that disagrees with its
//! lane is skipped when it is met, so that every step is O(1) amortised. A singleton needs no entry: it is found by its
//! place in its batch.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slab::{Link, NONE, Slab};

const CLASSES: usize = 90;

/// The number of places that a batch keeps for the next batch of its number.
const KEPT: usize = 1 << 14;

/// The number of singletons of a batch whose streams are fetched at a time, before they are offered one after the
/// other.
pub(super) const FETCHED_SINGLETONS: u32 = 16;

/// The class of singletons, which they share with lanes of one event.
const SINGLETON_CLASS: u8 = 0;

/// Returns the class of a queue's length: exact up to 64, then by powers of two.
#[inline]
pub(super) fn class(len: u32) -> u8 {
    if len <= 64 { len.saturating_sub(1) as u8 } else { (58 + len.ilog2()) as u8 }
}

/// The only event of its stream's work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Singleton {
    pub(super) stream: u32,
    /// The place of its ordinal in the batch.
    pub(super) slot: u32,
}

const NO_SINGLETON: Singleton = Singleton { stream: NONE, slot: NONE };

impl Singleton {
    /// Returns the mark in place of a singleton: the lane that it was given, which keeps its place.
    fn lane(lane: u32) -> Self {
        Self { stream: NONE, slot: lane }
    }
}

#[derive(Debug)]
struct Entry {
    lane: u32,
    next: u32,
    /// The singletons before this place of the batch were ready earlier.
    after: u32,
}

impl Link for Entry {
    fn vacant() -> Self {
        Self { lane: NONE, next: NONE, after: 0 }
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

/// The ready lanes and singletons of one batch.
#[derive(Debug)]
struct Bucket {
    sequence: u64,
    /// A bit for each list that has entries.
    filled: u128,
    /// Whether the heap has the batch.
    known: bool,
    lists: [List; CLASSES],
    /// The singletons by their places in the batch, their number, a lower bound of the first place, and the end of the
    /// last.
    singletons: Vec<Singleton>,
    singletons_left: u32,
    singletons_from: u32,
    singletons_end: u32,
}

impl Bucket {
    /// Returns the place of the first singleton, or of a lane that was one, unless the first lane of its class was
    /// ready earlier.
    #[inline]
    fn first_singleton(&mut self, entries: &Entries) -> Option<u32> {
        if self.singletons_left == 0 {
            return None;
        }
        while self.singletons[self.singletons_from as usize].slot == NONE {
            self.singletons_from += 1;
        }
        let entry = self.lists[usize::from(SINGLETON_CLASS)].head;
        (entry == NONE || entries[entry].after > self.singletons_from).then_some(self.singletons_from)
    }

    #[inline]
    fn remove_singleton(&mut self, at: u32) -> Singleton {
        let singleton = std::mem::replace(&mut self.singletons[at as usize], NO_SINGLETON);
        self.singletons_left -= 1;
        if self.singletons_left == 0 && self.lists[usize::from(SINGLETON_CLASS)].head == NONE {
            self.filled &= !(1 << SINGLETON_CLASS);
        }
        singleton
    }
}

type Entries = Slab<Entry, 4096>;

/// The next lane or singleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A lane, which stands in a list or in the place of a singleton.
    Lane {
        lane: u32,
        batch: u32,
        class: u8,
        at: u32,
    },
    Singleton {
        batch: u32,
        at: u32,
    },
}

#[derive(Debug)]
pub(super) struct Ready {
    /// Buckets by batch.
    buckets: Vec<Bucket>,
    entries: Entries,
    /// Batches that may have an entry, by age.
    batches: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Ready {
    pub(super) fn new() -> Self {
        Self { buckets: Vec::new(), entries: Slab::new(), batches: BinaryHeap::new() }
    }

    /// Begins a batch of so many events. A smaller sequence is an older batch.
    pub(super) fn begin(&mut self, batch: u32, sequence: u64, events: usize) {
        let at = batch as usize;
        if at == self.buckets.len() {
            let lists = [List { head: NONE, tail: NONE }; CLASSES];
            self.buckets.push(Bucket {
                sequence,
                filled: 0,
                known: false,
                lists,
                singletons: Vec::new(),
                singletons_left: 0,
                singletons_from: 0,
                singletons_end: 0,
            });
        }
        let bucket = &mut self.buckets[at];
        assert_eq!(bucket.filled, 0, "a batch begins with nothing ready");
        (bucket.sequence, bucket.known) = (sequence, false);
        (bucket.singletons_from, bucket.singletons_end) = (0, 0);
        bucket.singletons.clear();
        bucket.singletons.resize(events, NO_SINGLETON);
    }

    /// Ends a batch. Its remaining entries are void.
    pub(super) fn end(&mut self, batch: u32) {
        while self.buckets[batch as usize].filled != 0 {
            let bucket = &mut self.buckets[batch as usize];
            let class = bucket.filled.ilog2() as u8;
            match if class == SINGLETON_CLASS { bucket.first_singleton(&self.entries) } else { None } {
                Some(at) => {
                    let singleton = bucket.remove_singleton(at);
                    assert_eq!(singleton.stream, NONE, "a finished batch has no singletons");
                }
                None => self.remove(batch, class, NONE),
            }
        }
        let singleton = &mut self.buckets[batch as usize].singletons;
        if singleton.capacity() > KEPT {
            *singleton = Vec::new();
        }
    }

    /// Adds a singleton.
    #[inline]
    pub(super) fn add_singleton(&mut self, batch: u32, at: u32, singleton: Singleton) {
        let bucket = &mut self.buckets[batch as usize];
        bucket.singletons[at as usize] = singleton;
        bucket.singletons_left += 1;
        bucket.singletons_end = at + 1;
        bucket.filled |= 1 << SINGLETON_CLASS;
        if !bucket.known {
            bucket.known = true;
            self.batches.push(Reverse((bucket.sequence, batch)));
        }
    }

    /// Returns the streams of the next singletons from a place on. Places without a singleton have `NONE`.
    #[inline]
    pub(super) fn next_singletons(&self, batch: u32, at: u32) -> impl Iterator<Item = u32> + '_ {
        let singletons = &self.buckets[batch as usize].singletons[at as usize..];
        singletons.iter().take(FETCHED_SINGLETONS as usize).map(|singleton| singleton.stream)
    }

    /// Takes a singleton, to be offered.
    #[inline]
    pub(super) fn take_singleton(&mut self, batch: u32, at: u32) -> Singleton {
        let singleton = self.buckets[batch as usize].remove_singleton(at);
        assert_ne!(singleton.stream, NONE, "a singleton is taken once");
        singleton
    }

    /// Puts a lane in the place of a singleton.
    pub(super) fn replace_singleton(&mut self, batch: u32, at: u32, lane: u32) {
        self.buckets[batch as usize].singletons[at as usize] = Singleton::lane(lane);
    }

    pub(super) fn singleton_at(&self, batch: u32, at: u32) -> Singleton {
        self.buckets[batch as usize].singletons[at as usize]
    }

    /// Returns the singletons of a batch, with their places.
    pub(super) fn singletons(&self, batch: u32) -> impl Iterator<Item = (u32, Singleton)> + '_ {
        (0..)
            .zip(self.buckets[batch as usize].singletons.iter().copied())
            .filter(|(_, singleton)| singleton.stream != NONE)
    }

    #[inline]
    pub(super) fn push(&mut self, lane: u32, batch: u32, class: u8) {
        let bucket = &mut self.buckets[batch as usize];
        let entry = self.entries.insert(Entry { lane, next: NONE, after: bucket.singletons_end });
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

    /// Returns the next lane or singleton that is still `valid`, and leaves it there. Inlined, because an answer passed
    /// through memory would be read before the write has arrived there.
    #[inline(always)]
    pub(super) fn peek(&mut self, valid: impl Fn(u32, u32, u8) -> bool) -> Option<Next> {
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
            let singleton = if class == SINGLETON_CLASS { bucket.first_singleton(&self.entries) } else { None };
            let (lane, at) = match singleton.map(|at| (bucket.singletons[at as usize], at)) {
                Some((singleton, at)) if singleton.stream != NONE => return Some(Next::Singleton { batch, at }),
                Some((singleton, at)) => (singleton.slot, at),
                None => (self.entries[bucket.lists[usize::from(class)].head].lane, NONE),
            };
            if valid(lane, batch, class) {
                return Some(Next::Lane { lane, batch, class, at });
            }
            self.remove(batch, class, at);
        }
        None
    }

    /// Removes the [next](Self::peek) lane.
    #[inline]
    pub(super) fn remove(&mut self, batch: u32, class: u8, at: u32) {
        let bucket = &mut self.buckets[batch as usize];
        if at != NONE {
            bucket.remove_singleton(at);
            return;
        }
        let list = &mut bucket.lists[usize::from(class)];
        let entry = list.head;
        list.head = self.entries[entry].next;
        if list.head == NONE {
            list.tail = NONE;
            if class != SINGLETON_CLASS || bucket.singletons_left == 0 {
                bucket.filled &= !(1 << class);
            }
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
    fn the_oldest_batch_is_first_then_the_longest_queue_then_the_longest_wait() {
        let mut ready = Ready::new();
        ready.begin(0, 7, 1);
        ready.begin(1, 3, 4);
        for (at, stream) in [(0, 20), (1, 21)] {
            ready.add_singleton(1, at, Singleton { stream, slot: at });
        }
        for (lane, batch, class) in [(1, 0, 0), (2, 1, 0), (3, 1, 5), (4, 1, 0), (5, 1, 5), (6, 0, 9)] {
            ready.push(lane, batch, class);
        }
        ready.add_singleton(1, 3, Singleton { stream: 22, slot: 3 });
        ready.push(7, 1, 0);
        ready.replace_singleton(1, 0, 8);
        ready.replace_singleton(1, 1, 5);
        let mut order = Vec::new();
        while let Some(next) = ready.peek(|lane, _, _| lane != 5) {
            match next {
                Next::Lane { lane, batch, class, at } => {
                    order.push(lane);
                    ready.remove(batch, class, at);
                }
                Next::Singleton { batch, at } => order.push(ready.take_singleton(batch, at).stream),
            }
        }
        assert_eq!(order, [3, 8, 2, 4, 22, 7, 6, 1]);
        assert_eq!(ready.entries(), 0);
        ready.push(7, 1, 0);
        ready.end(1);
        assert_eq!(ready.peek(|_, _, _| true), None);
    }
}
