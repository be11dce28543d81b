//! Lanes: queues of events in order, each with at most one call in flight.
//!
//! A lane is usually a busy stream. With `order = "tranche"` it is a tranche. An event that stands for itself (with
//! `order = "none"`, or a malformed record) has a lane of its own.

use crate::clock::Timestamp;
use crate::event::{Kind, next_index};

use super::slab::{Link, NONE, Slab};

pub(super) type Nodes = Slab<Node, 1024>;
pub(super) type Lanes = Slab<Lane, 1024>;

/// An event in a lane. The node stays while its event is in flight, so that finishing the event needs no search.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) index: i64,
    pub(super) body: Body,
    pub(super) next: u32,
    pub(super) batch: u32,
    /// The place of its ordinal in the batch.
    pub(super) slot: u32,
    pub(super) kind: Kind,
    pub(super) flags: u8,
}

const _: () = assert!(size_of::<Node>() == 32);

/// The place of a node's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Unused,
    /// At this place of its batch's container.
    Read(u32),
    /// Apart from its batch, at this place of the store.
    Kept(u32),
    /// In flight.
    InFlight,
}

impl Node {
    /// Set if its batch counts it as waiting.
    pub(super) const WAITING: u8 = 1;
    /// Set if it failed, alone or with others: it is offered singly (C19).
    pub(super) const SINGLE: u8 = 2;
    /// Set if it is malformed and about to be parked.
    pub(super) const PARK: u8 = 4;
    /// A placeholder for an event that was handled before the tranche was opened. It counts for its stream only, and
    /// may outlive its batch.
    pub(super) const RECOVERED: u8 = 8;

    pub(super) fn new(batch: u32, slot: u32, index: i64, body: Body) -> Self {
        Self { index, body, next: NONE, batch, slot, kind: Kind::Event, flags: 0 }
    }

    /// Returns the next index of interest once this event is handled.
    #[inline]
    pub(super) fn next_index(&self) -> i64 {
        next_index(self.kind, self.index)
    }

    #[inline]
    pub(super) fn is_unfold(&self) -> bool {
        self.kind == Kind::Unfold
    }

    #[inline]
    pub(super) fn is_placeholder(&self) -> bool {
        self.kind == Kind::Placeholder
    }

    #[inline]
    pub(super) fn is_out(&self) -> bool {
        self.body == Body::InFlight
    }

    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Link for Node {
    fn vacant() -> Self {
        Self::new(0, 0, 0, Body::Unused)
    }

    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        self.next = next;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneKind {
    /// The events of a stream by index, its unfolds apart.
    Stream,
    /// One event that stands for itself.
    Single,
    /// The events of a tranche, in read order.
    Tranche,
}

#[derive(Debug)]
pub(super) struct Lane {
    /// The greatest index queued, while there is one.
    pub(super) last: i64,
    /// Bytes that its queued events hold.
    pub(super) bytes: u64,
    /// The time since which it has had work.
    pub(super) since: Timestamp,
    pub(super) stream: u32,
    pub(super) head: u32,
    pub(super) tail: u32,
    /// The newest set of unfolds.
    pub(super) unfolds: u32,
    /// The number of queued nodes: events, unfolds and late ones.
    pub(super) len: u32,
    /// The work in flight.
    pub(super) in_flight: u32,
    /// The batch under which it is ready; `NONE` if it is not ready.
    pub(super) ready_batch: u32,
    pub(super) extras: u32,
    pub(super) ready_class: u8,
    pub(super) kind: LaneKind,
    /// Whether events of two tranches are queued in it.
    pub(super) mixed: bool,
    pub(super) free: bool,
}

const _: () = assert!(size_of::<Lane>() == 64);

impl Lane {
    #[inline]
    pub(super) fn new(kind: LaneKind, stream: u32, since: Timestamp) -> Self {
        Self {
            last: 0,
            bytes: 0,
            since,
            stream,
            head: NONE,
            tail: NONE,
            unfolds: NONE,
            len: 0,
            in_flight: NONE,
            ready_batch: NONE,
            extras: NONE,
            ready_class: 0,
            kind,
            mixed: false,
            free: false,
        }
    }

    #[inline]
    pub(super) fn append(&mut self, nodes: &mut Nodes, id: u32) {
        if self.tail == NONE {
            self.head = id;
        } else {
            nodes[self.tail].next = id;
        }
        self.tail = id;
        self.last = nodes[id].index;
        self.len += 1;
    }

    /// Inserts an event by its index. Returns `false`, and does nothing, if that index is queued already.
    #[inline]
    pub(super) fn insert(&mut self, nodes: &mut Nodes, id: u32) -> bool {
        let index = nodes[id].index;
        if self.tail == NONE || index > self.last {
            self.append(nodes, id);
            return true;
        }
        let (mut before, mut at) = (NONE, self.head);
        while nodes[at].index < index {
            before = at;
            at = nodes[at].next;
        }
        if nodes[at].index == index {
            return false;
        }
        nodes[id].next = at;
        if before == NONE {
            self.head = id;
        } else {
            nodes[before].next = id;
        }
        self.len += 1;
        true
    }

    /// Returns the node of the event that is queued at this index.
    pub(super) fn find(&self, nodes: &Nodes, index: i64) -> Option<u32> {
        if self.tail == NONE || index > self.last {
            return None;
        }
        chain(nodes, self.head).find(|&id| nodes[id].index >= index).filter(|&id| nodes[id].index == index)
    }

    /// Removes the first event's node.
    pub(super) fn pop(&mut self, nodes: &Nodes) -> u32 {
        let id = self.head;
        self.head = nodes[id].next;
        if self.head == NONE {
            self.tail = NONE;
        }
        self.len -= 1;
        id
    }

    /// Restores a chain of nodes, in front of the queue.
    pub(super) fn prepend(&mut self, nodes: &mut Nodes, first: u32, last: u32, len: u32) {
        nodes[last].next = self.head;
        if self.tail == NONE {
            self.tail = last;
            self.last = nodes[last].index;
        }
        self.head = first;
        self.len += len;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.len == 0 && self.in_flight == NONE
    }
}

impl Link for Lane {
    fn vacant() -> Self {
        Self { free: true, ..Self::new(LaneKind::Stream, NONE, Timestamp::ZERO) }
    }

    fn link(&self) -> u32 {
        self.head
    }

    fn set_link(&mut self, next: u32) {
        self.head = next;
    }
}

/// Walks a chain of nodes.
pub(super) fn chain(nodes: &Nodes, first: u32) -> impl Iterator<Item = u32> + '_ {
    std::iter::successors((first != NONE).then_some(first), |&id| Some(nodes[id].next).filter(|&next| next != NONE))
}
