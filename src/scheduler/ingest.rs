//! Admission of a batch: finds the place of each of its events.

use crate::clock::Timestamp;
use crate::event::{Indexes, Kind};
use crate::position::{Ordinal, WritePosition};

use super::known::Busy;
use super::lane::{Body, Lane, LaneKind, Node, chain};
use super::lane_extras::{Dependent, Gaps, LaneExtras, On};
use super::ready::class;
use super::slab::NONE;
use super::{BrokenFeed, IngestBatch, Order, Scheduler};

/// The origin of a batch's events.
#[derive(Clone, Copy)]
pub(super) struct BatchOrigin {
    pub(super) tranche: u32,
    pub(super) epoch: u32,
    pub(super) batch: u32,
    pub(super) now: Timestamp,
}

/// An event during its admission: all that the scheduler needs of it, so that each event is read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) index: i64,
    /// The bytes of the read buffer that it keeps alive.
    pub(super) bytes: u64,
    /// The place of the event in its batch, and the place of its ordinal.
    pub(super) at: u32,
    pub(super) slot: u32,
    /// `NONE` for an event without a stream.
    pub(super) stream: u32,
    pub(super) kind: Kind,
    /// Whether the event before is of the same stream.
    pub(super) repeats: bool,
    /// Whether its stream is new.
    pub(super) is_new: bool,
    /// Whether the event was handled before the tranche was opened.
    pub(super) recovered: bool,
}

const _: () = assert!(size_of::<Arrival>() == 32);

/// The relation of an event to its stream, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// At or above all offered indexes. It may be queued already.
    Fresh,
    /// Handled, or passed.
    Handled,
    /// A duplicate of an event that is in flight, or late and queued.
    Waits,
    /// Below the write position, and never offered (C5).
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
        let last_read = self.ledger.last_read(tranche);
        let (id, sequence) = self.ledger.begin(tranche, batch.events.len(), batch.resume_at, now);
        self.ready.begin(id, sequence, batch.events.len());
        let origin = BatchOrigin { tranche, epoch: self.ledger.tranches[tranche as usize].epoch, batch: id, now };
        let mut events = batch.events;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let resolved = self.resolve(&origin, &mut events, &mut arrivals);
        self.store.begin(id, events);
        let result = match resolved {
            Ok(()) => self.admit_all(&origin, &arrivals).map_err(|(admitted, broken)| {
                self.reject_rest(&origin, &arrivals[admitted..], last_read);
                broken
            }),
            Err(broken) => {
                self.ledger.unread(tranche, id, 0, last_read);
                self.store.end(id);
                Err(broken)
            }
        };
        arrivals.clear();
        self.arrivals = arrivals;
        self.complete(tranche);
        result
    }

    /// Admits the events of a batch. If the feed is broken, the error has the number of events admitted before.
    fn admit_all(&mut self, origin: &BatchOrigin, arrivals: &[Arrival]) -> Result<(), (usize, BrokenFeed)> {
        let may_be_singleton = self.may_be_singleton(origin.tranche);
        let mut next = 0;
        while let Some(arrival) = arrivals.get(next) {
            if arrival.kind == Kind::Event && arrival.stream != NONE {
                if may_be_singleton && self.admit_singleton(origin, arrival) {
                    next += 1;
                    continue;
                }
                let appended = self.append_run(origin, &arrivals[next..]);
                if appended > 0 {
                    next += appended;
                    continue;
                }
            }
            self.admit(origin, arrival).map_err(|broken| (next, broken))?;
            next += 1;
        }
        Ok(())
    }

    /// Drops the events that a broken feed left unadmitted. Their ordinals count as unread, so that no progress covers them.
    fn reject_rest(&mut self, origin: &BatchOrigin, rest: &[Arrival], last_read: Option<Ordinal>) {
        let first = rest.first().expect("the event that broke the feed was not admitted");
        self.ledger.unread(origin.tranche, origin.batch, first.slot, last_read);
        for arrival in rest {
            self.discard(origin, arrival);
        }
    }

    /// Appends the first event and the following ones of the same stream to the stream's lane, as far as no special case
    /// applies. Returns the number of appended events.
    fn append_run(&mut self, origin: &BatchOrigin, arrivals: &[Arrival]) -> usize {
        let stream = arrivals[0].stream;
        let lane_id = self.find_lane(stream);
        if lane_id == NONE || self.streams.get(stream).epoch != origin.epoch {
            return 0;
        }
        let lane = &mut self.lanes[lane_id];
        let is_plain = lane.tail != NONE && lane.extras == NONE && lane.unfolds == NONE && !lane.mixed;
        if !is_plain {
            return 0;
        }
        let mut appended = 0;
        for &Arrival { index, bytes, at, slot, repeats, .. } in arrivals {
            if index <= lane.last || appended > 0 && !repeats {
                break;
            }
            let node = self.nodes.insert(Node::new(origin.batch, slot, index, Body::Read(at)));
            lane.append(&mut self.nodes, node);
            lane.bytes += bytes;
            appended += 1;
        }
        if lane.ready_batch != NONE && lane.ready_class != class(lane.len) {
            self.refresh(lane_id);
        }
        appended
    }

    fn admit(&mut self, origin: &BatchOrigin, arrival: &Arrival) -> Result<(), BrokenFeed> {
        if arrival.recovered {
            self.admit_recovered(origin, arrival);
            return Ok(());
        }
        match (arrival.kind, self.options.order) {
            (Kind::Event, Order::Stream) => return self.admit_event(origin, arrival),
            (Kind::Unfold, Order::Stream) => self.admit_unfold(origin, arrival),
            (Kind::Placeholder, Order::Stream) => self.admit_placeholder(origin, arrival),
            (_, Order::Tranche) => self.admit_in_read_order(origin, arrival),
            (Kind::Placeholder, Order::None) => self.settle_at_once(origin, arrival),
            (Kind::Malformed, Order::Stream) | (_, Order::None) => self.admit_single(origin, arrival),
        }
        Ok(())
    }

    /// Counts an event as handled, and releases it.
    pub(super) fn settle_at_once(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        self.discard(origin, arrival);
        self.ledger.mark(origin.batch, arrival.slot, 1, 0);
    }

    /// Makes an ordinal depend on another event of its lane, and releases its own event.
    pub(super) fn settle_with(&mut self, origin: &BatchOrigin, arrival: &Arrival, lane: u32, on: On) {
        self.discard(origin, arrival);
        self.add_dependent(origin.batch, arrival.slot, lane, on);
    }

    fn discard(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        let bytes = self.store.discard(origin.batch, arrival.at);
        self.ledger.drop_tranche_bytes(origin.tranche, bytes);
    }

    /// Releases a placeholder's buffer. Its place is all that is needed.
    pub(super) fn empty(&mut self, origin: &BatchOrigin, arrival: &Arrival) -> Arrival {
        let bytes = self.store.empty(origin.batch, arrival.at);
        self.ledger.drop_tranche_bytes(origin.tranche, bytes);
        Arrival { bytes: 0, ..*arrival }
    }

    #[inline]
    pub(super) fn add_node(&mut self, batch: u32, arrival: &Arrival) -> u32 {
        let &Arrival { index, at, slot, kind, .. } = arrival;
        let id = self.nodes.claim();
        self.nodes[id] = Node { index, body: Body::Read(at), next: NONE, batch, slot, kind, flags: 0 };
        id
    }

    fn admit_single(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        let name = self.store.read(origin.batch, arrival.at).stream_bytes();
        let stream = self.streams.add_anonymous(name, origin.epoch);
        self.ledger.epochs[origin.epoch as usize].anonymous += 1;
        let node = self.add_node(origin.batch, arrival);
        let mut lane = Lane::new(LaneKind::Single, stream, origin.now);
        lane.append(&mut self.nodes, node);
        lane.bytes = arrival.bytes;
        let lane = self.lanes.insert(lane);
        self.streams.get_mut(stream).set_busy(Busy::Lane(lane));
        self.refresh(lane);
    }

    fn admit_in_read_order(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        let tranche = &self.ledger.tranches[origin.tranche as usize];
        let lane_id = tranche.lane;
        let is_empty = self.lanes[lane_id].is_idle();
        let event = self.store.read(origin.batch, arrival.at);
        let was_parked = tranche.parked.get(event.stream_bytes()).is_some_and(|&first| event.at() < first);
        let is_placeholder = arrival.kind == Kind::Placeholder;
        if was_parked || is_placeholder && is_empty {
            return self.settle_at_once(origin, arrival);
        }
        let bytes = if is_placeholder { self.empty(origin, arrival).bytes } else { arrival.bytes };
        let node = self.add_node(origin.batch, arrival);
        let lane = &mut self.lanes[lane_id];
        if is_empty {
            lane.since = origin.now;
        }
        lane.append(&mut self.nodes, node);
        lane.bytes += bytes;
        self.refresh(lane_id);
    }

    fn admit_event(&mut self, origin: &BatchOrigin, arrival: &Arrival) -> Result<(), BrokenFeed> {
        let (index, stream) = (arrival.index, arrival.stream);
        let mut lane = self.find_lane(stream);
        self.check_tranche(origin, arrival)?;
        if lane != NONE && self.was_parked(lane, origin, arrival) {
            self.admit_recovered(origin, arrival);
            return Ok(());
        }
        match self.freshness(stream, index) {
            Freshness::Fresh => {
                if lane == NONE {
                    lane = self.lane_of(stream, origin.now);
                }
                self.queue(origin, lane, arrival);
            }
            Freshness::Late => self.queue_late(origin, arrival),
            Freshness::Handled => {
                self.duplicates += 1;
                self.settle_at_once(origin, arrival);
            }
            Freshness::Waits => {
                self.duplicates += 1;
                self.compare_repeat(origin, arrival, lane);
                self.settle_with(origin, arrival, lane, On::Event(index));
            }
        }
        Ok(())
    }

    /// Returns whether an event of a parked stream was handled before the parking: it is below the first parked one
    /// (C21).
    pub(super) fn was_parked(&self, lane: u32, origin: &BatchOrigin, arrival: &Arrival) -> bool {
        let extras = self.lanes[lane].extras;
        let parked = if extras == NONE { None } else { self.lane_extras[extras].parked };
        parked.is_some_and(|parked| self.store.read(origin.batch, arrival.at).at() < parked.first)
    }

    pub(super) fn freshness(&self, stream: u32, index: i64) -> Freshness {
        let known = self.streams.get(stream);
        let dense = self.options.indexes == Indexes::Dense;
        let lane = (known.lane() != NONE).then(|| &self.lanes[known.lane()]);
        let call = lane
            .filter(|lane| lane.in_flight != NONE)
            .map(|lane| self.in_flight.get(lane.in_flight))
            .filter(|call| !call.revoked);
        let extras = lane.filter(|lane| lane.extras != NONE).map(|lane| &self.lane_extras[lane.extras]);
        if call.is_some_and(|call| call.late && call.first == index) {
            return Freshness::Waits;
        }
        if extras.is_some_and(|extras| chain(&self.nodes, extras.late).any(|late| self.nodes[late].index == index)) {
            return Freshness::Waits;
        }
        if index < known.write() {
            let was_offered = index >= known.first() && extras.is_none_or(|extras| !extras.gaps.contains(index));
            return if was_offered { Freshness::Handled } else { Freshness::Late };
        }
        match call.filter(|call| !call.late) {
            // The call in flight will jump this index.
            Some(call) if index < call.first => Freshness::Late,
            Some(call) if index < call.span_next => {
                if dense || index.saturating_add(1) == call.span_next {
                    Freshness::Waits
                } else {
                    Freshness::Late
                }
            }
            _ => Freshness::Fresh,
        }
    }

    /// Queues an event by its index, unless it is queued already.
    pub(super) fn queue(&mut self, origin: &BatchOrigin, lane_id: u32, arrival: &Arrival) {
        let index = arrival.index;
        let node = self.add_node(origin.batch, arrival);
        let lane = &mut self.lanes[lane_id];
        if lane.is_idle() {
            lane.since = origin.now;
        }
        if !lane.insert(&mut self.nodes, node) {
            self.compare_repeat(origin, arrival, lane_id);
            self.drop_node(node);
            self.duplicates += 1;
            return self.add_dependent(origin.batch, arrival.slot, lane_id, On::Event(index));
        }
        lane.bytes += arrival.bytes;
        lane.mixed |= self.streams.get(lane.stream).epoch != origin.epoch;
        let (is_head, extras, unfolds) = (lane.head == node, lane.extras, lane.unfolds);
        if unfolds != NONE && arrival.kind == Kind::Event && self.nodes[unfolds].index <= index {
            self.supersede(lane_id, On::Event(index));
        }
        if extras != NONE && self.lane_extras[extras].waiting {
            self.start_waiting(node);
        }
        if is_head && self.nodes[node].is_placeholder() {
            self.settle_head(lane_id);
        }
        self.refresh(lane_id);
    }

    fn queue_late(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        self.late_events += 1;
        let lane_id = self.lane_of(arrival.stream, origin.now);
        let extras = self.extras_of(lane_id);
        let node = self.add_node(origin.batch, arrival);
        let earlier = |&late: &u32| self.nodes[late].index < arrival.index;
        let before = chain(&self.nodes, self.lane_extras[extras].late).take_while(earlier).last();
        match before {
            Some(before) => {
                self.nodes[node].next = self.nodes[before].next;
                self.nodes[before].next = node;
            }
            None => {
                self.nodes[node].next = self.lane_extras[extras].late;
                self.lane_extras[extras].late = node;
            }
        }
        let lane = &mut self.lanes[lane_id];
        lane.len += 1;
        lane.bytes += arrival.bytes;
        lane.mixed |= self.streams.get(lane.stream).epoch != origin.epoch;
        if self.lane_extras[extras].waiting {
            self.start_waiting(node);
        }
        self.refresh(lane_id);
    }

    /// Returns the lane of a stream, and creates it if there is none.
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

    pub(super) fn extras_of(&mut self, lane: u32) -> u32 {
        if self.lanes[lane].extras == NONE {
            self.lanes[lane].extras = self.lane_extras.insert(LaneExtras::new(lane));
        }
        self.lanes[lane].extras
    }

    /// Makes an ordinal depend on another event of its lane: it is handled when that event is.
    pub(super) fn add_dependent(&mut self, batch: u32, slot: u32, lane: u32, on: On) {
        let extras = self.extras_of(lane);
        let waiting = self.lane_extras[extras].waiting;
        let epoch = self.streams.get(self.lanes[lane].stream).epoch;
        self.lanes[lane].mixed |= self.ledger.epochs[epoch as usize].tranche != self.ledger.tranche_of(batch);
        if waiting {
            self.ledger.wait(batch, true);
        }
        self.lane_extras[extras].dependents.push(Dependent { on, batch, slot, waiting });
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
            // Queued events may belong to a range that the position does not describe. Passing them would lose them; a
            // repeat is harmless.
            let (gaps, real) = position.split();
            let is_whole = position.first <= 0 && gaps.is_empty();
            if !is_whole && !self.is_idle(stream)
                || !self.streams.get_mut(stream).raise(position.first, position.next, real)
            {
                continue;
            }
            if !gaps.is_empty() || lane != NONE && self.lanes[lane].extras != NONE {
                let lane = self.lane_of(stream, now);
                let extras = self.extras_of(lane);
                self.lane_extras[extras].gaps = Gaps::new(gaps);
            }
            if lane != NONE {
                self.settle_lane(lane);
            }
        }
    }
}
