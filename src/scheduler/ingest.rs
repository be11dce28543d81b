//! Taking a batch in: where each of its events belongs.

use crate::clock::Timestamp;
use crate::event::{Indexes, Kind};
use crate::position::WritePosition;

use super::aside::{Aside, Gaps, On, Rider};
use super::known::Busy;
use super::lane::{Body, Lane, LaneKind, Node, chain};
use super::ready::class;
use super::resolve::Resolved;
use super::slab::NONE;
use super::store::Brief;
use super::{BrokenFeed, IngestBatch, Order, Scheduler};

/// Where the events of a batch come from.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) tranche: u32,
    pub(super) epoch: u32,
    pub(super) batch: u32,
    pub(super) now: Timestamp,
}

/// An event that is taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) index: i64,
    /// What it holds of its read buffer.
    pub(super) bytes: u64,
    /// Its place among what its batch brought, and its ordinal's.
    pub(super) at: u32,
    pub(super) slot: u32,
    pub(super) stream: u32,
    pub(super) kind: Kind,
}

/// What an event is to its stream, going by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// At or above all that was offered; it may be queued already.
    Fresh,
    /// Handled, or passed.
    Handled,
    /// A duplicate of one that is out, or late and queued.
    Waits,
    /// Below what the stream has passed, and never offered (C5).
    Late,
}

impl Scheduler {
    pub(super) fn take_in(&mut self, batch: IngestBatch, now: Timestamp) -> Result<(), BrokenFeed> {
        let Some(tranche) = self.ledger.held(&batch.tranche) else { return Ok(()) };
        self.sweep();
        self.raise_write_positions(tranche, &batch.write_positions, now);
        if batch.events.is_empty() {
            self.ledger.pass(tranche, batch.resume_at);
            return Ok(());
        }
        let (id, sequence) = self.ledger.begin(tranche, batch.events.len(), batch.resume_at, now);
        self.ready.begin(id, sequence, batch.events.len());
        let place = Place { tranche, epoch: self.ledger.tranches[tranche as usize].epoch, batch: id, now };
        let mut events = batch.events;
        let mut resolved = std::mem::take(&mut self.resolved);
        let result = self.resolve(&place, &mut events, &mut resolved);
        self.store.begin(id, events);
        let result = result.and_then(|()| self.admit_all(&place, &resolved));
        resolved.clear();
        self.resolved = resolved;
        self.complete(tranche);
        result
    }

    fn admit_all(&mut self, place: &Place, resolved: &[Resolved]) -> Result<(), BrokenFeed> {
        let may_be_lone = self.may_be_lone(place.tranche);
        let mut next = 0;
        while let Some(&Resolved { slot, stream, recovered, .. }) = resolved.get(next) {
            let Brief { index, bytes, kind } = self.store.brief(place.batch, next as u32);
            let arrival = Arrival { index, bytes, at: next as u32, slot, stream, kind };
            next += 1;
            if kind == Kind::Event && stream != NONE && !recovered {
                if may_be_lone && self.admit_lone(place, &arrival) {
                    continue;
                }
                let appended = self.append_run(place, &arrival, &resolved[next..]);
                if appended > 0 {
                    next += appended - 1;
                    continue;
                }
            }
            self.admit(place, &arrival, recovered)?;
        }
        Ok(())
    }

    /// Appends an event to its stream's lane, and what follows of the same stream, as long as nothing else has to be thought
    /// of. Returns how many that were.
    fn append_run(&mut self, place: &Place, first: &Arrival, following: &[Resolved]) -> usize {
        let lane_id = self.find_lane(first.stream);
        if lane_id == NONE || self.streams.get(first.stream).epoch != place.epoch {
            return 0;
        }
        let lane = &mut self.lanes[lane_id];
        let is_plain = lane.tail != NONE && lane.aside == NONE && lane.unfolds == NONE && !lane.mixed;
        if !is_plain || first.index <= lane.last {
            return 0;
        }
        let mut slots = following.iter().take_while(|next| next.repeats).map(|next| next.slot);
        let (mut slot, mut at) = (first.slot, first.at);
        loop {
            let Brief { index, bytes, .. } = self.store.brief(place.batch, at);
            if index <= lane.last {
                break;
            }
            let node = self.nodes.insert(Node::new(place.batch, slot, index, Body::Read(at)));
            lane.append(&mut self.nodes, node);
            lane.bytes += bytes;
            at += 1;
            match slots.next() {
                Some(next) => slot = next,
                None => break,
            }
        }
        if lane.ready_batch != NONE && lane.ready_class != class(lane.len) {
            self.refresh(lane_id);
        }
        (at - first.at) as usize
    }

    fn admit(&mut self, place: &Place, arrival: &Arrival, recovered: bool) -> Result<(), BrokenFeed> {
        if recovered {
            self.admit_recovered(place, arrival);
            return Ok(());
        }
        match (arrival.kind, self.options.order) {
            (Kind::Event, Order::Stream) => return self.admit_event(place, arrival),
            (Kind::Unfold, Order::Stream) => self.admit_unfold(place, arrival),
            (Kind::Placeholder, Order::Stream) => self.admit_placeholder(place, arrival),
            (_, Order::Tranche) => self.admit_in_read_order(place, arrival),
            (Kind::Placeholder, Order::None) => self.settle_at_once(place, arrival),
            (Kind::Malformed, Order::Stream) | (_, Order::None) => self.admit_single(place, arrival),
        }
        Ok(())
    }

    /// Counts an event as handled that need not be kept.
    pub(super) fn settle_at_once(&mut self, place: &Place, arrival: &Arrival) {
        self.discard(place, arrival);
        self.ledger.mark(place.batch, arrival.slot, 1, 0);
    }

    /// Lets an ordinal be handled when something else of its lane is; its event need not be kept.
    pub(super) fn settle_with(&mut self, place: &Place, arrival: &Arrival, lane: u32, on: On) {
        self.discard(place, arrival);
        self.ride(place.batch, arrival.slot, lane, on);
    }

    fn discard(&mut self, place: &Place, arrival: &Arrival) {
        let bytes = self.store.discard(place.batch, arrival.at);
        self.ledger.drop_tranche_bytes(place.tranche, bytes);
    }

    /// Lets go of a placeholder's buffer: its place is all that is needed.
    pub(super) fn empty(&mut self, place: &Place, arrival: &Arrival) -> Arrival {
        let bytes = self.store.empty(place.batch, arrival.at);
        self.ledger.drop_tranche_bytes(place.tranche, bytes);
        Arrival { bytes: 0, ..*arrival }
    }

    #[inline]
    pub(super) fn add_node(&mut self, batch: u32, arrival: &Arrival) -> u32 {
        let &Arrival { index, at, slot, kind, .. } = arrival;
        let id = self.nodes.claim();
        self.nodes[id] = Node { index, body: Body::Read(at), next: NONE, batch, slot, kind, flags: 0 };
        id
    }

    fn admit_single(&mut self, place: &Place, arrival: &Arrival) {
        let name = self.store.read(place.batch, arrival.at).stream_bytes();
        let stream = self.streams.add_anonymous(name, place.epoch);
        let node = self.add_node(place.batch, arrival);
        let mut lane = Lane::new(LaneKind::Single, stream, place.now);
        lane.append(&mut self.nodes, node);
        lane.bytes = arrival.bytes;
        let lane = self.lanes.insert(lane);
        self.streams.get_mut(stream).set_busy(Busy::Lane(lane));
        self.refresh(lane);
    }

    fn admit_in_read_order(&mut self, place: &Place, arrival: &Arrival) {
        let tranche = &self.ledger.tranches[place.tranche as usize];
        let lane_id = tranche.lane;
        let is_empty = self.lanes[lane_id].is_idle();
        let event = self.store.read(place.batch, arrival.at);
        let was_parked = tranche.parked.get(event.stream_bytes()).is_some_and(|&first| event.at() < first);
        let is_placeholder = arrival.kind == Kind::Placeholder;
        if was_parked || is_placeholder && is_empty {
            return self.settle_at_once(place, arrival);
        }
        let bytes = if is_placeholder { self.empty(place, arrival).bytes } else { arrival.bytes };
        let node = self.add_node(place.batch, arrival);
        let lane = &mut self.lanes[lane_id];
        if is_empty {
            lane.since = place.now;
        }
        lane.append(&mut self.nodes, node);
        lane.bytes += bytes;
        self.refresh(lane_id);
    }

    fn admit_event(&mut self, place: &Place, arrival: &Arrival) -> Result<(), BrokenFeed> {
        let (index, stream) = (arrival.index, arrival.stream);
        let mut lane = self.find_lane(stream);
        if self.streams.get(stream).epoch != place.epoch || lane != NONE && self.lanes[lane].mixed {
            self.change_tranche(place, arrival)?;
        }
        if lane != NONE && self.was_parked(lane, place, arrival) {
            self.admit_recovered(place, arrival);
            return Ok(());
        }
        match self.verdict(stream, index) {
            Verdict::Fresh => {
                if lane == NONE {
                    lane = self.lane_of(stream, place.now);
                }
                self.queue(place, lane, arrival);
            }
            Verdict::Late => self.queue_late(place, arrival),
            Verdict::Handled => {
                self.duplicates += 1;
                self.settle_at_once(place, arrival);
            }
            Verdict::Waits => {
                self.duplicates += 1;
                self.settle_with(place, arrival, lane, On::Event(index));
            }
        }
        Ok(())
    }

    /// C21: an event of a parked stream below its first parked one was handled before that.
    pub(super) fn was_parked(&self, lane: u32, place: &Place, arrival: &Arrival) -> bool {
        let aside = self.lanes[lane].aside;
        let parked = if aside == NONE { None } else { self.asides[aside].parked };
        parked.is_some_and(|parked| self.store.read(place.batch, arrival.at).at() < parked.first)
    }

    pub(super) fn verdict(&self, stream: u32, index: i64) -> Verdict {
        let known = self.streams.get(stream);
        let dense = self.options.indexes == Indexes::Dense;
        let lane = (known.lane() != NONE).then(|| &self.lanes[known.lane()]);
        let out = lane.filter(|lane| lane.out != NONE).map(|lane| self.outs.get(lane.out)).filter(|out| !out.revoked);
        let aside = lane.filter(|lane| lane.aside != NONE).map(|lane| &self.asides[lane.aside]);
        if out.is_some_and(|out| out.late && out.first == index) {
            return Verdict::Waits;
        }
        if aside.is_some_and(|aside| chain(&self.nodes, aside.late).any(|late| self.nodes[late].index == index)) {
            return Verdict::Waits;
        }
        if index < known.write() {
            let was_offered = index >= known.first() && aside.is_none_or(|aside| !aside.gaps.contains(index));
            return if was_offered { Verdict::Handled } else { Verdict::Late };
        }
        match out.filter(|out| !out.late) {
            // It will have been jumped: what is out may be above it.
            Some(out) if index < out.first => Verdict::Late,
            Some(out) if index < out.span_next => {
                if dense || index + 1 == out.span_next {
                    Verdict::Waits
                } else {
                    Verdict::Late
                }
            }
            _ => Verdict::Fresh,
        }
    }

    /// Queues an event by its index, unless it is queued already.
    pub(super) fn queue(&mut self, place: &Place, lane_id: u32, arrival: &Arrival) {
        let index = arrival.index;
        let node = self.add_node(place.batch, arrival);
        let lane = &mut self.lanes[lane_id];
        if lane.is_idle() {
            lane.since = place.now;
        }
        if !lane.insert(&mut self.nodes, node) {
            self.drop_node(node);
            self.duplicates += 1;
            return self.ride(place.batch, arrival.slot, lane_id, On::Event(index));
        }
        lane.bytes += arrival.bytes;
        let (is_head, aside, unfolds) = (lane.head == node, lane.aside, lane.unfolds);
        if unfolds != NONE && arrival.kind == Kind::Event && self.nodes[unfolds].index <= index {
            self.supersede(lane_id, On::Event(index));
        }
        if aside != NONE && self.asides[aside].waiting {
            self.start_waiting(node);
        }
        if is_head && self.nodes[node].is_placeholder() {
            self.settle_head(lane_id);
        }
        self.refresh(lane_id);
    }

    fn queue_late(&mut self, place: &Place, arrival: &Arrival) {
        self.late_events += 1;
        let lane_id = self.lane_of(arrival.stream, place.now);
        let aside = self.aside_of(lane_id);
        let node = self.add_node(place.batch, arrival);
        let earlier = |&late: &u32| self.nodes[late].index < arrival.index;
        let before = chain(&self.nodes, self.asides[aside].late).take_while(earlier).last();
        match before {
            Some(before) => {
                self.nodes[node].next = self.nodes[before].next;
                self.nodes[before].next = node;
            }
            None => {
                self.nodes[node].next = self.asides[aside].late;
                self.asides[aside].late = node;
            }
        }
        let lane = &mut self.lanes[lane_id];
        lane.len += 1;
        lane.bytes += arrival.bytes;
        if self.asides[aside].waiting {
            self.start_waiting(node);
        }
        self.refresh(lane_id);
    }

    /// Returns the lane of a stream, which is begun if there is none.
    pub(super) fn lane_of(&mut self, stream: u32, now: Timestamp) -> u32 {
        let lane = self.find_lane(stream);
        if lane == NONE {
            let lane = self.lanes.insert(Lane::new(LaneKind::Stream, stream, now));
            self.streams.get_mut(stream).set_busy(Busy::Lane(lane));
            return lane;
        }
        if self.lanes[lane].is_idle() {
            self.lanes[lane].since = now;
        }
        lane
    }

    pub(super) fn aside_of(&mut self, lane: u32) -> u32 {
        if self.lanes[lane].aside == NONE {
            self.lanes[lane].aside = self.asides.insert(Aside::new(lane));
        }
        self.lanes[lane].aside
    }

    /// Lets an ordinal be handled when something else of its lane is.
    pub(super) fn ride(&mut self, batch: u32, slot: u32, lane: u32, on: On) {
        let aside = self.aside_of(lane);
        let waiting = self.asides[aside].waiting;
        if waiting {
            self.ledger.wait(batch, true);
        }
        self.asides[aside].riders.push(Rider { on, batch, slot, waiting });
    }

    pub(super) fn is_idle(&self, stream: u32) -> bool {
        let lane = self.streams.get(stream).lane();
        lane == NONE || self.lanes[lane].is_idle()
    }

    fn raise_write_positions(&mut self, tranche: u32, positions: &[(Box<str>, WritePosition)], now: Timestamp) {
        if self.options.order != Order::Stream {
            return;
        }
        let (scope, epoch) = (self.scope(tranche), self.ledger.tranches[tranche as usize].epoch);
        for (name, position) in positions {
            let stream = self.find_or_add(name.as_bytes(), scope, epoch);
            let lane = self.find_lane(stream);
            if self.streams.get(stream).epoch != epoch
                && !self.ledger.epochs[self.streams.get(stream).epoch as usize].open
            {
                self.adopt(stream, epoch);
            }
            // What is queued may belong where nothing is known: it would be passed, and a repeat is better than that.
            let (gaps, real) = position.split();
            let is_whole = position.first <= 0 && gaps.is_empty();
            if !is_whole && !self.is_idle(stream)
                || !self.streams.get_mut(stream).raise(position.first, position.next, real)
            {
                continue;
            }
            if !gaps.is_empty() || lane != NONE && self.lanes[lane].aside != NONE {
                let lane = self.lane_of(stream, now);
                let aside = self.aside_of(lane);
                self.asides[aside].gaps = Gaps::new(gaps);
            }
            if lane != NONE {
                self.settle_lane(lane);
            }
        }
    }
}
