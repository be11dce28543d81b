//! Which lane is next: the oldest batch first, within it the longest queue, then the one that has waited longest.
//!
//! An entry is never moved or searched for. A lane notes where it is ready; an entry that it no longer agrees with is
//! skipped when it is met, so that everything is O(1) amortised. A lone event (`lone`) needs no entry: it is found by its
//! place in its batch.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slab::{Link, NONE, Slab};

const CLASSES: usize = 90;

/// For how many events a batch keeps places for the next that takes its number.
const KEPT: usize = 1 << 14;

/// The class of lone events, which they share with lanes of one event.
const LONE: u8 = 0;

/// Returns the class of a queue's length: exact up to 64, then by powers of two.
#[inline]
pub(super) fn class(len: u32) -> u8 {
    if len <= 64 { len.saturating_sub(1) as u8 } else { (58 + len.ilog2()) as u8 }
}

/// An event that is all that its stream has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lone {
    pub(super) stream: u32,
    /// Its ordinal's place in the batch.
    pub(super) slot: u32,
}

const NOT_LONE: Lone = Lone { stream: NONE, slot: NONE };

impl Lone {
    /// In place of a lone event: the lane that it was given, which keeps its place.
    fn lane(lane: u32) -> Self {
        Self { stream: NONE, slot: lane }
    }
}

#[derive(Debug)]
struct Entry {
    lane: u32,
    next: u32,
    /// The lone events before this place of the batch were ready earlier.
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

/// What is ready under one batch.
#[derive(Debug)]
struct Bucket {
    sequence: u64,
    /// Which lists have entries.
    filled: u128,
    /// Whether the heap knows it.
    known: bool,
    lists: [List; CLASSES],
    /// The lone events, by what the batch brought; how many there are, where the first may be, and behind the last.
    lone: Vec<Lone>,
    lone_left: u32,
    lone_from: u32,
    lone_end: u32,
}

impl Bucket {
    /// Returns the place of the first that is lone, or was, unless the first lane of its class was ready earlier.
    #[inline]
    fn first_lone(&mut self, entries: &Entries) -> Option<u32> {
        if self.lone_left == 0 {
            return None;
        }
        while self.lone[self.lone_from as usize].slot == NONE {
            self.lone_from += 1;
        }
        let entry = self.lists[usize::from(LONE)].head;
        (entry == NONE || entries[entry].after > self.lone_from).then_some(self.lone_from)
    }

    #[inline]
    fn remove_lone(&mut self, at: u32) -> Lone {
        let lone = std::mem::replace(&mut self.lone[at as usize], NOT_LONE);
        self.lone_left -= 1;
        if self.lone_left == 0 && self.lists[usize::from(LONE)].head == NONE {
            self.filled &= !(1 << LONE);
        }
        lone
    }
}

type Entries = Slab<Entry, 4096>;

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A lane, which stands in a list, or in the place of the event that was lone.
    Lane {
        lane: u32,
        batch: u32,
        class: u8,
        at: u32,
    },
    Lone {
        batch: u32,
        at: u32,
    },
}

#[derive(Debug)]
pub(super) struct Ready {
    /// By batch.
    buckets: Vec<Bucket>,
    entries: Entries,
    /// Batches that may have something, by age.
    batches: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Ready {
    pub(super) fn new() -> Self {
        Self { buckets: Vec::new(), entries: Slab::new(), batches: BinaryHeap::new() }
    }

    /// Begins a batch of so many events; a smaller sequence is an older batch.
    pub(super) fn begin(&mut self, batch: u32, sequence: u64, events: usize) {
        let at = batch as usize;
        if at == self.buckets.len() {
            let lists = [List { head: NONE, tail: NONE }; CLASSES];
            self.buckets.push(Bucket {
                sequence,
                filled: 0,
                known: false,
                lists,
                lone: Vec::new(),
                lone_left: 0,
                lone_from: 0,
                lone_end: 0,
            });
        }
        let bucket = &mut self.buckets[at];
        assert_eq!(bucket.filled, 0, "a batch begins with nothing ready");
        (bucket.sequence, bucket.known) = (sequence, false);
        (bucket.lone_from, bucket.lone_end) = (0, 0);
        bucket.lone.clear();
        bucket.lone.resize(events, NOT_LONE);
    }

    /// Ends a batch; what is left of its entries is void.
    pub(super) fn end(&mut self, batch: u32) {
        while self.buckets[batch as usize].filled != 0 {
            let bucket = &mut self.buckets[batch as usize];
            let class = bucket.filled.ilog2() as u8;
            match if class == LONE { bucket.first_lone(&self.entries) } else { None } {
                Some(at) => {
                    let lone = bucket.remove_lone(at);
                    assert_eq!(lone.stream, NONE, "a batch that is done with has no lone events");
                }
                None => self.remove(batch, class, NONE),
            }
        }
        let lone = &mut self.buckets[batch as usize].lone;
        if lone.capacity() > KEPT {
            *lone = Vec::new();
        }
    }

    /// Lets a lone event be found.
    #[inline]
    pub(super) fn add_lone(&mut self, batch: u32, at: u32, lone: Lone) {
        let bucket = &mut self.buckets[batch as usize];
        bucket.lone[at as usize] = lone;
        bucket.lone_left += 1;
        bucket.lone_end = at + 1;
        bucket.filled |= 1 << LONE;
        if !bucket.known {
            bucket.known = true;
            self.batches.push(Reverse((bucket.sequence, batch)));
        }
    }

    /// Takes a lone event, to be offered.
    #[inline]
    pub(super) fn take_lone(&mut self, batch: u32, at: u32) -> Lone {
        let lone = self.buckets[batch as usize].remove_lone(at);
        assert_ne!(lone.stream, NONE, "a lone event is taken once");
        lone
    }

    /// Puts a lane in the place of a lone event.
    pub(super) fn replace_lone(&mut self, batch: u32, at: u32, lane: u32) {
        self.buckets[batch as usize].lone[at as usize] = Lone::lane(lane);
    }

    pub(super) fn lone_at(&self, batch: u32, at: u32) -> Lone {
        self.buckets[batch as usize].lone[at as usize]
    }

    /// Returns the lone events of a batch, with their places.
    pub(super) fn lone(&self, batch: u32) -> impl Iterator<Item = (u32, Lone)> + '_ {
        (0..).zip(self.buckets[batch as usize].lone.iter().copied()).filter(|(_, lone)| lone.stream != NONE)
    }

    #[inline]
    pub(super) fn push(&mut self, lane: u32, batch: u32, class: u8) {
        let bucket = &mut self.buckets[batch as usize];
        let entry = self.entries.insert(Entry { lane, next: NONE, after: bucket.lone_end });
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

    /// Returns what is next of that which is still `valid`, and leaves it there. Inlined, so that the answer does not go through
    /// memory: it would be read before it has arrived there.
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
            let lone = if class == LONE { bucket.first_lone(&self.entries) } else { None };
            let (lane, at) = match lone.map(|at| (bucket.lone[at as usize], at)) {
                Some((lone, at)) if lone.stream != NONE => return Some(Next::Lone { batch, at }),
                Some((lone, at)) => (lone.slot, at),
                None => (self.entries[bucket.lists[usize::from(class)].head].lane, NONE),
            };
            if valid(lane, batch, class) {
                return Some(Next::Lane { lane, batch, class, at });
            }
            self.remove(batch, class, at);
        }
        None
    }

    /// Takes a lane off that is [`next`](Self::peek).
    #[inline]
    pub(super) fn remove(&mut self, batch: u32, class: u8, at: u32) {
        let bucket = &mut self.buckets[batch as usize];
        if at != NONE {
            bucket.remove_lone(at);
            return;
        }
        let list = &mut bucket.lists[usize::from(class)];
        let entry = list.head;
        list.head = self.entries[entry].next;
        if list.head == NONE {
            list.tail = NONE;
            if class != LONE || bucket.lone_left == 0 {
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
    fn the_oldest_batch_is_first_then_the_longest_queue_then_the_first_come() {
        let mut ready = Ready::new();
        ready.begin(0, 7, 1);
        ready.begin(1, 3, 4);
        for (at, stream) in [(0, 20), (1, 21)] {
            ready.add_lone(1, at, Lone { stream, slot: at });
        }
        for (lane, batch, class) in [(1, 0, 0), (2, 1, 0), (3, 1, 5), (4, 1, 0), (5, 1, 5), (6, 0, 9)] {
            ready.push(lane, batch, class);
        }
        ready.add_lone(1, 3, Lone { stream: 22, slot: 3 });
        ready.push(7, 1, 0);
        ready.replace_lone(1, 0, 8);
        ready.replace_lone(1, 1, 5);
        let mut order = Vec::new();
        while let Some(next) = ready.peek(|lane, _, _| lane != 5) {
            match next {
                Next::Lane { lane, batch, class, at } => {
                    order.push(lane);
                    ready.remove(batch, class, at);
                }
                Next::Lone { batch, at } => order.push(ready.take_lone(batch, at).stream),
            }
        }
        assert_eq!(order, [3, 8, 2, 4, 22, 7, 6, 1]);
        assert_eq!(ready.entries(), 0);
        ready.push(7, 1, 0);
        ready.end(1);
        assert_eq!(ready.peek(|_, _, _| true), None);
    }
}
