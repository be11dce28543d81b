//! Taking a batch in: where each of its events belongs.

use crate::clock::Timestamp;
use crate::event::{Event, Indexes, Kind};
use crate::position::{Ordinal, WritePosition};

use super::aside::{Aside, Gaps, On, Rider};
use super::lane::{Body, Lane, LaneKind, chain};
use super::ready::class;
use super::slab::NONE;
use super::{BrokenFeed, IngestBatch, Order, Scheduler};

/// Where the events of a batch come from.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) tranche: u32,
    pub(super) epoch: u32,
    pub(super) batch: u32,
    pub(super) now: Timestamp,
}

/// What was found out about an event before anything was done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    slot: u32,
    stream: u32,
    hash: u64,
    /// It was handled before the tranche was opened.
    recovered: bool,
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
        self.ready.begin(id, sequence);
        let place = Place { tranche, epoch: self.ledger.tranches[tranche as usize].epoch, batch: id, now };
        let mut events = batch.events;
        let mut resolved = std::mem::take(&mut self.resolved);
        let result = self.resolve(&place, &mut events, &mut resolved);
        let mut places = resolved.iter();
        let result = result.and_then(|()| {
            events.into_iter().try_for_each(|event| {
                let resolved = *places.next().expect("every event was resolved");
                self.admit(&place, resolved, event)
            })
        });
        resolved.clear();
        self.resolved = resolved;
        self.complete(tranche);
        result
    }

    /// Numbers the events of a batch, and finds their streams.
    ///
    /// Finding a stream reads three places that are rarely in a cache: the table, what is known of the stream, its name. Each
    /// has a loop of its own, short enough that the processor waits for many of them at the same time.
    fn resolve(&mut self, place: &Place, events: &mut [Event], resolved: &mut Vec<Resolved>) -> Result<(), BrokenFeed> {
        let scope = self.scope(place.tranche);
        let by_stream = self.options.order == Order::Stream;
        let (mut numbers, mut bytes) = (self.ledger.numbers(place.tranche, place.batch), 0);
        resolved.reserve(events.len());
        for event in events.iter_mut() {
            let at = event.at();
            let slot = match numbers.number(at, event.is_unfold()) {
                Ok(slot) => slot,
                Err(last) => return Err(self.descends(place.tranche, last, at)),
            };
            let recovered = numbers.tranche.covers(at);
            if recovered {
                event.exclude();
            }
            bytes += event.held_bytes() as u64;
            let hash = if by_stream { self.streams.hash(event.stream_bytes(), scope) } else { 0 };
            resolved.push(Resolved { slot, stream: NONE, hash, recovered });
        }
        numbers.tranche.counts.bytes += bytes;
        if !by_stream {
            return Ok(());
        }
        for resolved in resolved.iter_mut() {
            resolved.stream = self.streams.guess(resolved.hash);
        }
        self.streams.fetch(resolved.iter().map(|resolved| resolved.stream));
        for (resolved, event) in resolved.iter_mut().zip(events) {
            resolved.stream = self.stream_of(place, scope, resolved, event);
        }
        Ok(())
    }

    /// Finds the stream of an event, which is likely the one that was guessed. `NONE` for what belongs to none.
    #[inline]
    fn stream_of(&mut self, place: &Place, scope: u32, resolved: &Resolved, event: &Event) -> u32 {
        let name = event.stream_bytes();
        let adds = match event.kind() {
            Kind::Event | Kind::Unfold => true,
            Kind::Placeholder if name.is_empty() => return NONE,
            Kind::Placeholder => self.options.require_all,
            Kind::Malformed => return NONE,
        };
        let dense = self.options.indexes == Indexes::Dense;
        let epochs = &self.ledger.epochs;
        let same = |epoch: u32| dense || epochs[epoch as usize].tranche == scope;
        if resolved.stream != NONE && self.streams.is(resolved.stream, name, same) {
            return resolved.stream;
        }
        if !adds {
            return self.streams.find(resolved.hash, name, same).unwrap_or(NONE);
        }
        let (id, is_new) = self.streams.find_or_add(resolved.hash, name, place.epoch, same);
        self.ledger.epochs[place.epoch as usize].streams += usize::from(is_new);
        id
    }

    fn descends(&self, tranche: u32, last: Ordinal, at: Ordinal) -> BrokenFeed {
        BrokenFeed::OrdinalsDescend { tranche: self.ledger.tranches[tranche as usize].id.clone(), last, at }
    }

    /// Returns what belongs to a stream's identity beside its name.
    pub(super) fn scope(&self, tranche: u32) -> u32 {
        match self.options.indexes {
            Indexes::Dense => 0,
            Indexes::Sparse => tranche,
        }
    }

    pub(super) fn find(&self, name: &[u8], scope: u32) -> Option<u32> {
        let dense = self.options.indexes == Indexes::Dense;
        let epochs = &self.ledger.epochs;
        self.streams
            .find(self.streams.hash(name, scope), name, |epoch| dense || epochs[epoch as usize].tranche == scope)
    }

    #[inline]
    pub(super) fn find_or_add(&mut self, name: &[u8], scope: u32, epoch: u32) -> u32 {
        let dense = self.options.indexes == Indexes::Dense;
        let hash = self.streams.hash(name, scope);
        let epochs = &self.ledger.epochs;
        let (id, is_new) =
            self.streams.find_or_add(hash, name, epoch, |epoch| dense || epochs[epoch as usize].tranche == scope);
        self.ledger.epochs[epoch as usize].streams += usize::from(is_new);
        id
    }

    #[inline]
    fn admit(&mut self, place: &Place, resolved: Resolved, event: Event) -> Result<(), BrokenFeed> {
        let Resolved { slot, stream, recovered, .. } = resolved;
        if recovered {
            self.admit_recovered(place, slot, stream, event);
            return Ok(());
        }
        match (event.kind(), self.options.order) {
            (Kind::Event, Order::Stream) => return self.admit_event(place, slot, stream, event),
            (Kind::Unfold, Order::Stream) => self.admit_unfold(place, slot, stream, event),
            (Kind::Placeholder, Order::Stream) => self.admit_placeholder(place, slot, stream, event),
            (_, Order::Tranche) => self.admit_in_read_order(place, slot, event),
            (Kind::Placeholder, Order::None) => self.settle_at_once(place, slot, &event),
            (Kind::Malformed, Order::Stream) | (_, Order::None) => self.admit_single(place, slot, event),
        }
        Ok(())
    }

    /// Counts an event as handled that need not be kept.
    pub(super) fn settle_at_once(&mut self, place: &Place, slot: u32, event: &Event) {
        self.ledger.drop_bytes(place.batch, event.held_bytes() as u64);
        self.ledger.mark(place.batch, slot, 1, 0);
    }

    /// Lets an ordinal be handled when something else of its lane is; its event need not be kept.
    pub(super) fn settle_with(&mut self, place: &Place, slot: u32, event: &Event, lane: u32, on: On) {
        self.ledger.drop_bytes(place.batch, event.held_bytes() as u64);
        self.ride(place.batch, slot, lane, on);
    }

    #[inline]
    pub(super) fn add_node(&mut self, place: &Place, slot: u32, event: Event) -> u32 {
        let id = self.nodes.claim();
        let node = &mut self.nodes[id];
        node.body = Body::Queued(event);
        (node.next, node.batch, node.slot, node.flags) = (NONE, place.batch, slot, 0);
        id
    }

    fn admit_single(&mut self, place: &Place, slot: u32, event: Event) {
        let stream = self.streams.add_anonymous(event.stream_bytes(), place.epoch);
        let bytes = event.held_bytes() as u64;
        let node = self.add_node(place, slot, event);
        let mut lane = Lane::new(LaneKind::Single, stream, place.now);
        lane.append(&mut self.nodes, node, 0);
        lane.bytes = bytes;
        let lane = self.lanes.insert(lane);
        self.streams.get_mut(stream).lane = lane;
        self.refresh(lane);
    }

    fn admit_in_read_order(&mut self, place: &Place, slot: u32, mut event: Event) {
        let lane = self.ledger.tranches[place.tranche as usize].lane;
        let is_empty = self.lanes[lane].is_idle();
        let parked = self.ledger.tranches[place.tranche as usize].parked.get(event.stream_bytes());
        let was_parked = parked.is_some_and(|&first| event.at() < first);
        if was_parked || event.kind() == Kind::Placeholder && is_empty {
            return self.settle_at_once(place, slot, &event);
        }
        if event.kind() == Kind::Placeholder {
            self.empty(place, &mut event);
        }
        let bytes = event.held_bytes() as u64;
        let index = event.index();
        let node = self.add_node(place, slot, event);
        let lane_id = lane;
        let lane = &mut self.lanes[lane_id];
        if is_empty {
            lane.since = place.now;
        }
        lane.append(&mut self.nodes, node, index);
        lane.bytes += bytes;
        self.refresh(lane_id);
    }

    #[inline]
    fn admit_event(&mut self, place: &Place, slot: u32, stream: u32, event: Event) -> Result<(), BrokenFeed> {
        let known = self.streams.get(stream);
        if known.epoch != place.epoch || known.lane != NONE && self.lanes[known.lane].mixed {
            self.change_tranche(place, stream, &event)?;
        }
        let known = self.streams.get(stream);
        let (index, lane) = (event.index(), known.lane);
        if lane == NONE {
            if index >= known.write() {
                self.begin_lane(place, slot, stream, event);
                return Ok(());
            }
        } else if self.comes_next(lane, index) {
            self.append(place, slot, lane, event);
            return Ok(());
        } else if self.was_parked(lane, event.at()) {
            self.settle_at_once(place, slot, &event);
            return Ok(());
        }
        match self.verdict(stream, index) {
            Verdict::Fresh => self.queue(place, slot, lane, event),
            Verdict::Late => self.queue_late(place, slot, stream, event),
            Verdict::Handled => {
                self.duplicates += 1;
                self.settle_at_once(place, slot, &event);
            }
            Verdict::Waits => {
                self.duplicates += 1;
                self.settle_with(place, slot, &event, lane, On::Event(index));
            }
        }
        Ok(())
    }

    /// The usual case: the first event of a stream that has nothing to do.
    #[inline]
    fn begin_lane(&mut self, place: &Place, slot: u32, stream: u32, event: Event) {
        let (index, bytes) = (event.index(), event.held_bytes() as u64);
        let node = self.add_node(place, slot, event);
        let id = self.lanes.claim();
        let lane = &mut self.lanes[id];
        *lane = Lane::new(LaneKind::Stream, stream, place.now);
        (lane.head, lane.tail, lane.last, lane.len, lane.bytes) = (node, node, index, 1, bytes);
        self.streams.get_mut(stream).lane = id;
        if self.options.require_all {
            return self.refresh(id);
        }
        (lane.ready_batch, lane.ready_class) = (place.batch, class(1));
        self.ready.push(id, place.batch, class(1));
    }

    /// Returns whether an event goes behind all that is queued, and nothing else has to be thought of.
    #[inline]
    fn comes_next(&self, lane: u32, index: i64) -> bool {
        let lane = &self.lanes[lane];
        lane.tail != NONE && index > lane.last && lane.aside == NONE && lane.unfolds == NONE
    }

    #[inline]
    fn append(&mut self, place: &Place, slot: u32, lane_id: u32, event: Event) {
        let (index, bytes) = (event.index(), event.held_bytes() as u64);
        let node = self.add_node(place, slot, event);
        let lane = &mut self.lanes[lane_id];
        lane.append(&mut self.nodes, node, index);
        lane.bytes += bytes;
        if lane.ready_batch != NONE && lane.ready_class != class(lane.len) {
            self.refresh(lane_id);
        }
    }

    /// C21: an event of a parked stream below its first parked one was handled before that.
    pub(super) fn was_parked(&self, lane: u32, at: Ordinal) -> bool {
        let aside = self.lanes[lane].aside;
        aside != NONE && self.asides[aside].parked.is_some_and(|parked| at < parked.first)
    }

    pub(super) fn verdict(&self, stream: u32, index: i64) -> Verdict {
        let known = self.streams.get(stream);
        let dense = self.options.indexes == Indexes::Dense;
        let lane = (known.lane != NONE).then(|| &self.lanes[known.lane]);
        let out = lane.filter(|lane| lane.out != NONE).map(|lane| self.outs.get(lane.out)).filter(|out| !out.revoked);
        let aside = lane.filter(|lane| lane.aside != NONE).map(|lane| &self.asides[lane.aside]);
        if out.is_some_and(|out| out.late && out.first == index) {
            return Verdict::Waits;
        }
        if aside
            .is_some_and(|aside| chain(&self.nodes, aside.late).any(|late| self.nodes[late].event().index() == index))
        {
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
    pub(super) fn queue(&mut self, place: &Place, slot: u32, lane_id: u32, event: Event) {
        let (index, bytes) = (event.index(), event.held_bytes() as u64);
        let supersedes = event.kind() == Kind::Event;
        let node = self.add_node(place, slot, event);
        let lane = &mut self.lanes[lane_id];
        if lane.is_idle() {
            lane.since = place.now;
        }
        if !lane.insert(&mut self.nodes, node, index) {
            self.free_node(node);
            self.duplicates += 1;
            return self.ride(place.batch, slot, lane_id, On::Event(index));
        }
        lane.bytes += bytes;
        let (is_head, aside, unfolds) = (lane.head == node, lane.aside, lane.unfolds);
        if unfolds != NONE && supersedes && self.nodes[unfolds].event().index() <= index {
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

    fn queue_late(&mut self, place: &Place, slot: u32, stream: u32, event: Event) {
        self.late_events += 1;
        let lane_id = self.lane_of(stream, place.now);
        let aside = self.aside_of(lane_id);
        let (index, bytes) = (event.index(), event.held_bytes() as u64);
        let node = self.add_node(place, slot, event);
        let before = chain(&self.nodes, self.asides[aside].late)
            .take_while(|&late| self.nodes[late].event().index() < index)
            .last();
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
        lane.bytes += bytes;
        if self.asides[aside].waiting {
            self.start_waiting(node);
        }
        self.refresh(lane_id);
    }

    /// Returns the lane of a stream, which is begun if there is none.
    pub(super) fn lane_of(&mut self, stream: u32, now: Timestamp) -> u32 {
        let known = self.streams.get_mut(stream);
        if known.lane == NONE {
            known.lane = self.lanes.insert(Lane::new(LaneKind::Stream, stream, now));
        } else if self.lanes[known.lane].is_idle() {
            self.lanes[known.lane].since = now;
        }
        known.lane
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
        let lane = self.streams.get(stream).lane;
        lane == NONE || self.lanes[lane].is_idle()
    }

    fn raise_write_positions(&mut self, tranche: u32, positions: &[(Box<str>, WritePosition)], now: Timestamp) {
        if self.options.order != Order::Stream {
            return;
        }
        let (scope, epoch) = (self.scope(tranche), self.ledger.tranches[tranche as usize].epoch);
        for (name, position) in positions {
            let stream = self.find_or_add(name.as_bytes(), scope, epoch);
            if self.streams.get(stream).epoch != epoch
                && !self.ledger.epochs[self.streams.get(stream).epoch as usize].open
            {
                self.adopt(stream, epoch);
            }
            // What is queued may belong where nothing is known: it would be passed, and a repeat is better than that.
            let is_whole = position.first <= 0 && position.gaps.is_empty();
            if !is_whole && !self.is_idle(stream) || !self.streams.get_mut(stream).raise(position.first, position.next)
            {
                continue;
            }
            let lane = self.streams.get(stream).lane;
            if !position.gaps.is_empty() || lane != NONE && self.lanes[lane].aside != NONE {
                let lane = self.lane_of(stream, now);
                let aside = self.aside_of(lane);
                self.asides[aside].gaps = Gaps::new(&position.gaps);
            }
            if lane != NONE {
                self.settle_lane(lane);
            }
        }
    }
}
