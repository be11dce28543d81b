//! Selection of the next call, and of its events.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::{Event, Indexes, Kind};
use crate::work::{Streams, Work, WorkKind};

use super::Scheduler;
use super::in_flight::InFlight;
use super::lane::{Lane, LaneKind, Node};
use super::lane_extras::{On, Trouble};
use super::ready::{Next, class};
use super::slab::NONE;
use super::store::Store;

impl Scheduler {
    pub(super) fn offer(&mut self, now: Timestamp) -> Option<Streams> {
        self.wake(now);
        match self.peek_ready()? {
            Next::Singleton { batch, at } if self.options.streams_per_call <= 1 => {
                Some(self.offer_singleton(batch, at, now))
            }
            next => Some(self.offer_several(next, now)),
        }
    }

    /// Fills a call, beginning with the next lane or singleton.
    fn offer_several(&mut self, first: Next, now: Timestamp) -> Streams {
        let (mut call, mut next) = (Streams::new(), Some(first));
        while let Some(offered) = next {
            let kind = match offered {
                Next::Singleton { batch, at } => {
                    call.extend(self.offer_singleton(batch, at, now));
                    WorkKind::Handle
                }
                Next::Lane { lane, batch, class, at } => {
                    let is_tranche = self.lanes[lane].kind == LaneKind::Tranche;
                    if !call.is_empty() && (is_tranche || self.kind_of(lane) != WorkKind::Handle) {
                        break;
                    }
                    self.ready.remove(batch, class, at);
                    if is_tranche {
                        self.offer_in_read_order(lane, now, &mut call);
                        break;
                    }
                    let kind = self.kind_of(lane);
                    call.push(self.offer_lane(lane, kind, now));
                    kind
                }
            };
            if kind != WorkKind::Handle || call.len() >= self.options.streams_per_call {
                break;
            }
            next = self.peek_ready();
        }
        call
    }

    #[inline(always)]
    fn peek_ready(&mut self) -> Option<Next> {
        let lanes = &self.lanes;
        self.ready.peek(|lane, batch, class| {
            let lane = &lanes[lane];
            lane.ready_batch == batch && lane.ready_class == class
        })
    }

    /// Makes lanes ready once their back-off or deferral has ended.
    #[inline]
    fn wake(&mut self, now: Timestamp) {
        if self.timers.first().is_some() {
            self.sound_alarms(now);
        }
    }

    fn sound_alarms(&mut self, now: Timestamp) {
        while let Some(alarm) = self.timers.first().filter(|alarm| alarm.at <= now) {
            self.timers.remove_first();
            let extras = self.lanes[alarm.lane].extras;
            if extras == NONE || self.lane_extras[extras].ticket != alarm.ticket {
                continue;
            }
            let extras = &mut self.lane_extras[extras];
            extras.ticket = 0;
            if extras.trouble == Trouble::Deferred {
                extras.trouble = Trouble::None;
            }
            self.refresh(alarm.lane);
        }
        self.trim_timers();
    }

    pub(super) fn retry_failing(&mut self, now: Timestamp) {
        for lane_id in 0..self.lanes.bound() {
            let lane = &self.lanes[lane_id];
            if lane.free || lane.extras == NONE {
                continue;
            }
            let extras = &mut self.lane_extras[lane.extras];
            if extras.trouble != Trouble::Failing {
                continue;
            }
            extras.failures = 0;
            (extras.victim, extras.spent, extras.counts_from) = (None, Duration::ZERO, None);
            // The alarm before this one is void from now on.
            if extras.ticket != 0 {
                extras.until = now;
                extras.ticket = self.timers.set(now, lane_id);
            }
        }
        self.trim_timers();
    }

    /// Removes void alarms, so that the first alarm is a valid one.
    #[inline]
    pub(super) fn trim_timers(&mut self) {
        while let Some(alarm) = self.timers.first() {
            let extras = self.lanes[alarm.lane].extras;
            if extras != NONE && self.lane_extras[extras].ticket == alarm.ticket {
                break;
            }
            self.timers.remove_first();
        }
    }

    /// Updates whether a lane is ready, and lists it if so.
    #[inline]
    pub(super) fn refresh(&mut self, lane_id: u32) {
        let lane = &self.lanes[lane_id];
        let is_ready = lane.in_flight == NONE
            && lane.len > 0
            && (lane.extras == NONE && !self.options.require_all || self.may_go(lane_id))
            && !(self.leaving && self.is_leaving(lane_id));
        if !is_ready {
            self.lanes[lane_id].ready_batch = NONE;
            if self.options.require_all && self.misses_index(lane_id).is_some() {
                // Its batches must not fill the read-ahead: the missing event may be in one that is not read yet.
                self.begin_waiting(lane_id);
            }
            return;
        }
        if self.options.require_all && lane.extras != NONE {
            self.clear_waiting(lane_id);
        }
        let lane = &self.lanes[lane_id];
        let (batch, class) = match lane.ready_batch {
            NONE => (self.nodes[self.first_node(lane_id)].batch, class(lane.len)),
            batch => (batch, class(lane.len)),
        };
        let lane = &mut self.lanes[lane_id];
        if lane.ready_batch != batch || lane.ready_class != class {
            (lane.ready_batch, lane.ready_class) = (batch, class);
            self.ready.push(lane_id, batch, class);
        }
    }

    /// Returns the node to offer first: late events, then events, then unfolds.
    #[inline]
    pub(super) fn first_node(&self, lane: u32) -> u32 {
        self.first_node_of(&self.lanes[lane])
    }

    #[inline]
    pub(super) fn first_node_of(&self, lane: &Lane) -> u32 {
        if lane.extras != NONE && self.lane_extras[lane.extras].late != NONE {
            return self.lane_extras[lane.extras].late;
        }
        if lane.head != NONE { lane.head } else { lane.unfolds }
    }

    /// Returns whether a lane waits neither for a time nor for events before its first (`require_all`).
    pub(super) fn may_go(&self, lane_id: u32) -> bool {
        let lane = &self.lanes[lane_id];
        if lane.extras != NONE && self.lane_extras[lane.extras].ticket != 0 {
            return false;
        }
        !self.misses_events(lane_id)
    }

    /// Returns whether events before a lane's first are missing and must come first.
    pub(super) fn misses_events(&self, lane_id: u32) -> bool {
        let lane = &self.lanes[lane_id];
        let has_late = lane.extras != NONE && self.lane_extras[lane.extras].late != NONE;
        if !self.options.require_all || lane.kind != LaneKind::Stream || has_late || lane.len == 0 {
            return false;
        }
        let first = self.nodes[self.first_node(lane_id)].index;
        first > self.streams.get(lane.stream).write().max(0)
    }

    /// Returns the index that a lane without a call in flight waits for, if events before its first are missing.
    pub(super) fn misses_index(&self, lane_id: u32) -> Option<i64> {
        let lane = &self.lanes[lane_id];
        let is_missing = lane.in_flight == NONE && self.misses_events(lane_id);
        is_missing.then(|| self.streams.get(lane.stream).write().max(0))
    }

    /// Returns the kind of work that a lane's first event needs.
    #[inline]
    pub(super) fn kind_of(&self, lane_id: u32) -> WorkKind {
        let lane = &self.lanes[lane_id];
        if lane.extras != NONE && self.lane_extras[lane.extras].parked.is_some() {
            return WorkKind::Park;
        }
        match self.nodes[self.first_node(lane_id)].kind {
            Kind::Malformed => WorkKind::Malformed,
            _ => WorkKind::Handle,
        }
    }

    #[inline]
    pub(super) fn offer_lane(&mut self, lane_id: u32, kind: WorkKind, now: Timestamp) -> Work {
        let mut span = Span::new(self.pool.pop().unwrap_or_default(), self.options.max_bytes);
        let lane = &mut self.lanes[lane_id];
        assert_eq!(lane.in_flight, NONE, "a stream has one call at a time");
        lane.ready_batch = NONE;
        let extras = lane.extras;
        let mut in_flight = InFlight::new(lane_id, NONE, kind, now, self.clock.read(now));
        if extras != NONE && self.lane_extras[extras].late != NONE {
            self.take_late(lane_id, &mut span);
            in_flight.late = true;
        } else if lane.head == NONE {
            self.take_unfolds(lane_id, &mut span);
        } else {
            self.take_span(lane_id, &mut span);
        }
        self.hand_out(in_flight, span)
    }

    /// Takes the first late event, by itself.
    fn take_late(&mut self, lane_id: u32, span: &mut Span) {
        let extras = self.lanes[lane_id].extras;
        let id = self.lane_extras[extras].late;
        let node = &mut self.nodes[id];
        self.lane_extras[extras].late = node.next;
        span.event(&mut self.store, node);
        span.chain(node, id, NONE);
        self.lanes[lane_id].len -= 1;
    }

    /// Takes the leading events that may be offered together, and the unfolds after the last one.
    #[inline]
    fn take_span(&mut self, lane_id: u32, span: &mut Span) {
        let lane = &self.lanes[lane_id];
        let (dense, mixed) = (self.options.indexes == Indexes::Dense && lane.kind == LaneKind::Stream, lane.mixed);
        let (mut id, mut last, mut taken) = (lane.head, NONE, 0);
        let tranche = self.ledger.tranche_of(self.nodes[id].batch);
        let single = self.nodes[id].has(Node::SINGLE);
        while id != NONE {
            let node = &mut self.nodes[id];
            let is_placeholder = node.is_placeholder();
            if last != NONE {
                let is_next = !dense || node.index == span.next;
                let joins = !single
                    && !node.has(Node::SINGLE)
                    && span.events.len() < self.options.max_events
                    && span.fits(&self.store, node);
                if !is_next || !(is_placeholder || joins) || mixed && self.ledger.tranche_of(node.batch) != tranche {
                    break;
                }
            }
            if is_placeholder {
                span.next = node.next_index();
                span.span_next = span.next;
            } else {
                span.event(&mut self.store, node);
            }
            let next = node.next;
            if last == NONE {
                span.head = id;
            }
            (last, id, taken) = (id, next, taken + 1);
        }
        span.last = last;
        self.nodes[last].next = NONE;
        let lane = &mut self.lanes[lane_id];
        lane.head = id;
        lane.len -= taken;
        if id == NONE {
            lane.tail = NONE;
            let unfolds = lane.unfolds;
            if unfolds != NONE && (!dense || self.nodes[unfolds].index <= span.next) {
                let same = !mixed || self.ledger.tranche_of(self.nodes[unfolds].batch) == tranche;
                if same {
                    self.take_unfolds(lane_id, span);
                }
            }
        }
    }

    fn take_unfolds(&mut self, lane_id: u32, span: &mut Span) {
        let lane = &mut self.lanes[lane_id];
        let mut id = std::mem::replace(&mut lane.unfolds, NONE);
        while id != NONE {
            let node = &mut self.nodes[id];
            let next = node.next;
            span.unfold(&mut self.store, node);
            lane.len -= 1;
            if span.last == NONE {
                span.head = id;
            } else {
                self.nodes[span.last].next = id;
            }
            (span.last, id) = (id, next);
        }
        if lane.extras != NONE {
            let dependents = &mut self.lane_extras[lane.extras].dependents;
            dependents
                .iter_mut()
                .filter(|dependent| dependent.on == On::Queued)
                .for_each(|dependent| dependent.on = On::InFlight);
        }
    }

    #[inline]
    pub(super) fn hand_out(&mut self, mut in_flight: InFlight, span: Span) -> Work {
        let lane = &mut self.lanes[in_flight.lane];
        lane.bytes -= span.bytes;
        let first = &span.events[0];
        in_flight.head = span.head;
        in_flight.events = span.events.len() as u32;
        in_flight.bytes = span.bytes;
        (in_flight.first, in_flight.first_at) = (first.index(), first.at());
        (in_flight.span_next, in_flight.real_next, in_flight.next) = (span.span_next, span.real_next, span.next);
        in_flight.unfolds_at = span.unfolds_at;
        let batch = self.ledger.batch(self.nodes[span.head].batch);
        let read_at = batch.read_at;
        in_flight.tranche = batch.tranche;
        self.ledger.tranche_mut(in_flight.tranche).counts.in_flight += 1;
        in_flight.sibling = lane.in_flight;
        let (kind, late, next) = (in_flight.kind, in_flight.late, in_flight.next);
        let failures = match lane.extras {
            NONE => 0,
            extras => Some(&self.lane_extras[extras])
                .filter(|extras| extras.failed_at == in_flight.first_at)
                .map_or(0, |extras| extras.failures),
        };
        let id = self.in_flight.insert(in_flight);
        lane.in_flight = id.slot;
        Work { id, kind, events: span.events, next, failures, read_at, late, trace: None }
    }
}

/// The content of one offering, while it is put together.
pub(super) struct Span {
    pub(super) events: Vec<Event>,
    pub(super) head: u32,
    pub(super) last: u32,
    /// The next index after everything, after events and placeholders, and after events alone.
    pub(super) next: i64,
    pub(super) span_next: i64,
    pub(super) real_next: i64,
    pub(super) unfolds_at: i64,
    pub(super) bytes: u64,
    /// The stored bytes, and their limit.
    size: usize,
    max_size: usize,
}

impl Span {
    pub(super) fn new(events: Vec<Event>, max_size: usize) -> Self {
        let none = i64::MIN;
        Self {
            events,
            head: NONE,
            last: NONE,
            next: none,
            span_next: none,
            real_next: none,
            unfolds_at: none,
            bytes: 0,
            size: 0,
            max_size,
        }
    }

    #[inline]
    pub(super) fn event(&mut self, store: &mut Store, node: &mut Node) {
        self.next = node.next_index();
        (self.span_next, self.real_next) = (self.next, self.next);
        self.add(store, node);
    }

    pub(super) fn unfold(&mut self, store: &mut Store, node: &mut Node) {
        self.next = self.next.max(node.index);
        self.unfolds_at = node.index;
        self.add(store, node);
    }

    /// Returns whether there is room for the event of another node.
    #[inline]
    pub(super) fn fits(&self, store: &Store, node: &Node) -> bool {
        self.max_size == usize::MAX || self.size.saturating_add(store.event(node).size()) <= self.max_size
    }

    #[inline]
    fn add(&mut self, store: &mut Store, node: &mut Node) {
        store.hand_out(node, &mut self.events);
        let event = &self.events[self.events.len() - 1];
        self.bytes += event.held_bytes() as u64;
        if self.max_size != usize::MAX {
            self.size = self.size.saturating_add(event.size());
        }
    }

    /// Appends one node to the chain.
    fn chain(&mut self, node: &mut Node, id: u32, next: u32) {
        node.next = next;
        (self.head, self.last) = (id, id);
    }
}
