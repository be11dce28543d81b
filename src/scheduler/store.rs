//! The events that the scheduler holds.
//!
//! They stay where they were read, in the container that came with their batch, until they are handed out: no event is
//! moved twice. A container is freed with its last event. An event that would keep its container for long (its lane
//! waits, or it was returned) is kept apart.

use std::{iter, mem};

use crate::event::Event;
use crate::position::Ordinal;

use super::lane::{Body, Node};
use super::slab::{Link, NONE, Slab};

/// The remaining events of a batch.
#[derive(Debug, Default)]
struct Read {
    events: Vec<Event>,
    left: usize,
}

impl Read {
    /// Moves an event into a container, which makes room first, so that the event is moved once.
    #[inline]
    fn hand_out(&mut self, place: u32, into: &mut Vec<Event>) {
        let event = &mut self.events[place as usize];
        into.extend(iter::once_with(|| event.take()));
        self.count_gone();
    }

    fn take(&mut self, place: u32) -> Event {
        let event = self.events[place as usize].take();
        self.count_gone();
        event
    }

    #[inline]
    fn count_gone(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.events = Vec::new();
        }
    }
}

#[derive(Debug)]
struct Kept {
    /// `None` while the place is unused.
    event: Option<Event>,
    next: u32,
}

impl Link for Kept {
    fn vacant() -> Self {
        Self { event: None, next: NONE }
    }

    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        self.next = next;
    }
}

#[derive(Debug)]
pub(super) struct Store {
    /// Events by batch.
    batches: Vec<Read>,
    kept: Slab<Kept, 64>,
}

impl Store {
    pub(super) const fn new() -> Self {
        Self { batches: Vec::new(), kept: Slab::new() }
    }

    /// Stores the events of a batch.
    pub(super) fn begin(&mut self, batch: u32, events: Vec<Event>) {
        let at = batch as usize;
        if at == self.batches.len() {
            self.batches.push(Read::default());
        }
        self.batches[at] = Read { left: events.len(), events };
    }

    /// Releases the remaining events of a batch: its feed was broken, or its tranche was revoked.
    pub(super) fn end(&mut self, batch: u32) {
        self.batches[batch as usize] = Read::default();
    }

    /// Returns how many events of a batch are held.
    #[cfg(test)]
    pub(super) fn left(&self, batch: u32) -> usize {
        self.batches[batch as usize].left
    }

    #[inline]
    pub(super) fn read(&self, batch: u32, place: u32) -> &Event {
        &self.batches[batch as usize].events[place as usize]
    }

    /// Returns the event of a node that is queued.
    #[inline]
    pub(super) fn event(&self, node: &Node) -> &Event {
        match node.body {
            Body::Read(place) => self.read(node.batch, place),
            Body::Kept(id) => self.kept[id].event.as_ref().expect("a kept event is in the store"),
            Body::InFlight | Body::Unused => panic!("a queued node has its event"),
        }
    }

    /// Returns how much of its read buffer the event of a queued node holds.
    #[inline]
    pub(super) fn bytes(&self, node: &Node) -> u64 {
        self.event(node).held_bytes() as u64
    }

    pub(super) fn at(&self, node: &Node) -> Ordinal {
        self.event(node).at()
    }

    /// Hands out an event without a node into a container.
    #[inline]
    pub(super) fn hand_out_read(&mut self, batch: u32, place: u32, into: &mut Vec<Event>) {
        self.batches[batch as usize].hand_out(place, into);
    }

    /// Hands out the event of a queued node into a container.
    #[inline]
    pub(super) fn hand_out(&mut self, node: &mut Node, into: &mut Vec<Event>) {
        match mem::replace(&mut node.body, Body::InFlight) {
            Body::Read(place) => self.hand_out_read(node.batch, place, into),
            Body::Kept(id) => into.push(self.take_kept(id)),
            Body::InFlight | Body::Unused => panic!("a queued node has its event"),
        }
    }

    fn take_kept(&mut self, id: u32) -> Event {
        let event = self.kept[id].event.take().expect("a kept event is in the store");
        self.kept.release(id);
        event
    }

    /// Restores the event of a node.
    pub(super) fn put_back(&mut self, node: &mut Node, event: Event) {
        assert_eq!(node.body, Body::InFlight, "a returned event was in flight");
        self.keep(node, event);
    }

    /// Keeps the event of a queued node apart from its batch, and from the read buffer that it shares with others.
    pub(super) fn set_apart(&mut self, node: &mut Node) {
        let mut event = match node.body {
            Body::Read(place) => self.batches[node.batch as usize].take(place),
            Body::Kept(id) => self.take_kept(id),
            Body::InFlight | Body::Unused => panic!("a queued node has its event"),
        };
        event.detach();
        self.keep(node, event);
    }

    fn keep(&mut self, node: &mut Node, event: Event) {
        node.body = Body::Kept(self.kept.insert(Kept { event: Some(event), next: NONE }));
    }

    /// Releases the buffer of an event that needs no node. Returns the bytes that it held.
    #[inline]
    pub(super) fn discard(&mut self, batch: u32, place: u32) -> u64 {
        let read = &mut self.batches[batch as usize];
        let event = &mut read.events[place as usize];
        let bytes = event.held_bytes() as u64;
        event.forget_record();
        read.count_gone();
        bytes
    }

    /// Releases the buffer of an event that stays. Returns the bytes that it held.
    pub(super) fn empty(&mut self, batch: u32, place: u32) -> u64 {
        let event = &mut self.batches[batch as usize].events[place as usize];
        let bytes = event.held_bytes() as u64;
        event.forget_record();
        bytes
    }

    /// Releases the event of a node, if it has one. Returns the bytes that it held.
    pub(super) fn forget(&mut self, node: &mut Node) -> u64 {
        match mem::replace(&mut node.body, Body::Unused) {
            Body::Read(place) => self.discard(node.batch, place),
            Body::Kept(id) => self.take_kept(id).held_bytes() as u64,
            Body::InFlight | Body::Unused => 0,
        }
    }
}
