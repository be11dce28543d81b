//! Completion of calls.

use std::collections::hash_map::Entry;

use crate::clock::Timestamp;
use crate::event::Event;
use crate::work::{Work, WorkId, WorkKind};

use super::in_flight::InFlight;
use super::lane::{LaneKind, Node, chain};
use super::lane_extras::{On, Parked, Trouble};
use super::settle::Marks;
use super::slab::NONE;
use super::{Indexes, Outcome, Scheduler};

/// The returned events that are offered singly from now on.
#[derive(Clone, Copy)]
enum Isolate {
    Nothing,
    All,
    At(i64),
}

/// The number of event containers that are kept for the next calls, and the largest capacity to keep.
const POOL: usize = 256;
const POOLED: usize = 1024;

impl Scheduler {
    pub(super) fn finish_work(&mut self, work: Work, outcome: Outcome, now: Timestamp) {
        let mut events = work.events;
        let call = self.in_flight.find(work.id).expect("work is finished once");
        assert_eq!(events.len(), call.events as usize, "work returns with the events that it was handed out with");
        self.ledger.note_change(call.tranche);
        if call.is_singleton() {
            match outcome {
                Outcome::Done { next } if call.ends_by(next) => {
                    self.finish_singleton(work.id, next);
                    return self.recycle(events);
                }
                _ => _ = self.give_in_flight_lane(work.id.slot),
            }
        }
        let call = self.in_flight.remove(work.id);
        self.unlink(&call, work.id.slot);
        if call.revoked {
            self.forget_call(&call);
        } else {
            self.ledger.tranche_mut(call.tranche).counts.in_flight -= 1;
            self.apply(&call, &mut events, outcome, now);
            self.settle_lane(call.lane);
            self.complete(call.tranche);
        }
        self.trim_timers();
        self.recycle(events);
    }

    #[inline(always)]
    fn recycle(&mut self, mut events: Vec<Event>) {
        if self.pool.len() < POOL && events.capacity() <= POOLED {
            events.clear();
            self.pool.push(events);
        }
    }

    fn unlink(&mut self, call: &InFlight, slot: u32) {
        let lane = &mut self.lanes[call.lane];
        if lane.in_flight == slot {
            lane.in_flight = call.sibling;
            return;
        }
        let mut at = lane.in_flight;
        while self.in_flight.get(at).sibling != slot {
            at = self.in_flight.get(at).sibling;
        }
        self.in_flight.get_mut(at).sibling = call.sibling;
    }

    /// Ends a call whose tranche was revoked (C6). The call counts for nothing.
    fn forget_call(&mut self, call: &InFlight) {
        for id in chain(&self.nodes, call.head).collect::<Vec<_>>() {
            self.free_node(id);
        }
        let lane = &self.lanes[call.lane];
        let (kind, stream) = (lane.kind, lane.stream);
        self.settle_lane(call.lane);
        // Placeholders of other tranches may have waited for this call, and are passed now.
        self.complete_all();
        if kind == LaneKind::Tranche {
            return self.release_tranche_lane(call.tranche);
        }
        // The sweep may have passed the stream while its call ran.
        let known = self.streams.get(stream);
        let is_over = kind == LaneKind::Stream && known.has_nothing_to_do();
        if is_over && !self.ledger.epochs[known.epoch as usize].open {
            self.forget_stream(stream);
        }
    }

    fn apply(&mut self, call: &InFlight, events: &mut Vec<Event>, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Done { next } => {
                assert!(next > call.first || call.ends_by(next), "finished work handles at least one event");
                self.done(call, events, next);
            }
            Outcome::Skip => {
                // In read order other events may follow unfolds.
                let is_single = events[1..].iter().all(Event::is_unfold);
                let next = if is_single { call.next } else { events[0].next_index() };
                self.done(call, events, next);
            }
            Outcome::Return => self.put_back(call, events, Isolate::Nothing),
            Outcome::Singly => self.put_back(call, events, Isolate::All),
            Outcome::Defer { until } => {
                self.put_back(call, events, Isolate::Nothing);
                self.trouble(call, Trouble::Deferred, until, now);
            }
            Outcome::Wait { until } => {
                self.put_back(call, events, Isolate::Nothing);
                self.trouble(call, Trouble::Stalled, until, now);
            }
            Outcome::Failed { until, at_index } => {
                let isolate = match at_index {
                    _ if call.kind == WorkKind::Park => Isolate::Nothing,
                    Some(index) if events.iter().any(|event| event.index() == index && !event.is_unfold()) => {
                        Isolate::At(index)
                    }
                    _ => Isolate::All,
                };
                self.put_back(call, events, isolate);
                self.trouble(call, Trouble::Failing, until, now);
            }
            Outcome::Park => self.park(call, events, now),
        }
    }

    /// Marks everything below `next` as handled, and restores the rest.
    fn done(&mut self, call: &InFlight, events: &mut Vec<Event>, next: i64) {
        let all = call.ends_by(next);
        let is_stream = self.lanes[call.lane].kind == LaneKind::Stream;
        let (mut last, mut real, mut bytes) = (call.first, i64::MIN, 0);
        let mut marks = Marks::default();
        let mut id = call.head;
        let mut handed = events.drain(..);
        while id != NONE {
            let node = &mut self.nodes[id];
            if !all && node.next_index() > next {
                break;
            }
            let (following, batch, slot, flags) = (node.next, node.batch, node.slot, node.flags);
            if node.is_out() {
                let event = handed.next().expect("as many events return as were handed out");
                bytes += event.held_bytes() as u64;
                real = real.max(node.next_index());
                // Unfolds can be ahead of the events. They are no part of the offered range.
                last = if node.is_unfold() { last } else { last.max(node.index) };
            } else {
                last = node.index;
            }
            self.free_node(id);
            if flags & Node::RECOVERED == 0 {
                self.mark(&mut marks, batch, slot, flags & Node::WAITING != 0);
            }
            id = following;
        }
        self.flush_marks(&marks);
        self.ledger.drop_tranche_bytes(call.tranche, bytes);
        if is_stream {
            let real = if next > call.next { next } else { real };
            let after = self.write_after(call, next);
            self.advance(self.lanes[call.lane].stream, call.first, last, after, real);
            self.settle_late(call.lane, call.first, next);
        }
        if id != NONE {
            self.restore(call, id, &mut handed, Isolate::Nothing);
        }
        drop(handed);
        self.recover(call);
    }

    /// Returns the write position of a stream after a call that is done up to `next`. On a sparse source, unfolds do not move it:
    /// between them and the call's last event, there can be indexes of events that are not read yet.
    pub(super) fn write_after(&self, call: &InFlight, next: i64) -> i64 {
        match self.options.indexes {
            Indexes::Sparse if next == call.next && !call.is_singleton() => call.span_next,
            _ => next,
        }
    }

    pub(super) fn stop_clock_of(&mut self, work: WorkId, now: Timestamp) {
        let shown = self.clock.read(now);
        let Some(call) = self.in_flight.find_mut(work) else { return };
        let Some(from) = call.clock.take() else { return };
        let extras = if call.is_singleton() { NONE } else { self.lanes[call.lane].extras };
        if extras == NONE || !self.lane_extras[extras].stop_clock(call.first_at, shown) {
            call.ran += shown.saturating_sub(from);
        }
    }

    /// Notes that a call made progress. In read order, the trouble of another stream of the same call stays.
    fn recover(&mut self, call: &InFlight) {
        let lane = &self.lanes[call.lane];
        if lane.extras == NONE {
            return;
        }
        let extras = &mut self.lane_extras[lane.extras];
        let is_its_own = lane.kind != LaneKind::Tranche || extras.victim.is_none_or(|victim| victim == call.first_at);
        if is_its_own {
            extras.recover();
        }
    }

    fn put_back(&mut self, call: &InFlight, events: &mut Vec<Event>, isolate: Isolate) {
        self.restore(call, call.head, &mut events.drain(..), isolate);
    }

    /// Restores a chain of nodes, from `first` on, to its lane, with the events that were handed out.
    fn restore(&mut self, call: &InFlight, first: u32, events: &mut impl Iterator<Item = Event>, isolate: Isolate) {
        let (mut id, mut last, mut len) = (first, NONE, 0);
        let (mut unfolds, mut unfolds_len) = (NONE, 0);
        let (is_stream, mut bytes) = (self.lanes[call.lane].kind == LaneKind::Stream, 0);
        while id != NONE {
            let node = &mut self.nodes[id];
            if node.is_out() {
                let event = events.next().expect("as many events return as were handed out");
                self.store.put_back(node, event);
            }
            bytes += self.store.bytes(node);
            let isolated = match isolate {
                Isolate::Nothing => false,
                Isolate::All => true,
                Isolate::At(index) => node.index == index,
            };
            let is_unfold = is_stream && node.is_unfold();
            if isolated && !node.is_unfold() {
                node.flags |= Node::SINGLE;
            }
            let next = node.next;
            if is_unfold {
                if unfolds == NONE {
                    unfolds = id;
                }
                unfolds_len += 1;
            } else {
                (last, len) = (id, len + 1);
            }
            id = next;
        }
        self.lanes[call.lane].bytes += bytes;
        if call.late {
            self.restore_late(call.lane, first);
        } else if len > 0 {
            self.nodes[last].next = NONE;
            self.restore_events(call.lane, first, last, len);
        }
        if unfolds != NONE {
            self.restore_unfolds(call.lane, unfolds, unfolds_len);
        }
        if is_stream && !call.late {
            self.recall_late(call.lane);
        }
    }

    /// Requeues events that arrived below a call that then made no progress. The call jumped no event, so they are not
    /// late.
    fn recall_late(&mut self, lane_id: u32) {
        let lane = &self.lanes[lane_id];
        if lane.extras == NONE || self.lane_extras[lane.extras].late == NONE {
            return;
        }
        let (extras, write) = (lane.extras, self.streams.get(lane.stream).write());
        let late: Vec<_> = chain(&self.nodes, self.lane_extras[extras].late).collect();
        self.lane_extras[extras].late = NONE;
        for id in late.into_iter().rev() {
            let index = self.nodes[id].index;
            if index < write {
                self.nodes[id].next = self.lane_extras[extras].late;
                self.lane_extras[extras].late = id;
                continue;
            }
            self.nodes[id].next = NONE;
            let lane = &mut self.lanes[lane_id];
            lane.len -= 1;
            self.late_events -= 1;
            if !lane.insert(&mut self.nodes, id) {
                // On a sparse source a repeat of an event in the middle of a call looks late while the call runs.
                self.depend_on_repeated(lane_id, id);
            }
        }
    }

    /// Releases a node whose index is queued already: its ordinal is handled when the queued event is.
    fn depend_on_repeated(&mut self, lane_id: u32, id: u32) {
        let &Node { index, batch, slot, .. } = &self.nodes[id];
        if self.nodes[id].has(Node::WAITING) {
            // `add_dependent` counts it as waiting again if the lane waits.
            self.ledger.wait(batch, false);
        }
        self.lanes[lane_id].bytes -= self.drop_node(id);
        self.duplicates += 1;
        self.add_dependent(batch, slot, lane_id, On::Event(index));
    }

    fn restore_events(&mut self, lane_id: u32, first: u32, last: u32, len: u32) {
        let at = self.store.at(&self.nodes[first]);
        let lane = &self.lanes[lane_id];
        let before = match lane.kind {
            // The streams of one call return one by one, in any order.
            LaneKind::Tranche => {
                chain(&self.nodes, lane.head).take_while(|&id| self.store.at(&self.nodes[id]) < at).last()
            }
            _ => None,
        };
        let lane = &mut self.lanes[lane_id];
        match before {
            None => lane.prepend(&mut self.nodes, first, last, len),
            Some(before) => {
                self.nodes[last].next = self.nodes[before].next;
                self.nodes[before].next = first;
                if lane.tail == before {
                    lane.tail = last;
                }
                lane.len += len;
            }
        }
    }

    fn restore_late(&mut self, lane_id: u32, id: u32) {
        let extras = self.extras_of(lane_id);
        let index = self.nodes[id].index;
        let late = self.lane_extras[extras].late;
        let before = chain(&self.nodes, late).take_while(|&late| self.nodes[late].index < index).last();
        match before {
            None => {
                self.nodes[id].next = late;
                self.lane_extras[extras].late = id;
            }
            Some(before) => {
                self.nodes[id].next = self.nodes[before].next;
                self.nodes[before].next = id;
            }
        }
        self.lanes[lane_id].len += 1;
    }

    /// Restores unfolds, unless newer unfolds or newer events have superseded them meanwhile.
    fn restore_unfolds(&mut self, lane_id: u32, first: u32, len: u32) {
        let index = self.nodes[first].index;
        let newer = self.lanes[lane_id].unfolds;
        let by = self.superseded_by(lane_id, index).or((newer != NONE).then_some(On::Queued));
        let lane = &mut self.lanes[lane_id];
        lane.unfolds = first;
        lane.len += len;
        if lane.extras != NONE {
            let dependents =
                self.lane_extras[lane.extras].dependents.iter_mut().filter(|dependent| dependent.on == On::InFlight);
            dependents.for_each(|dependent| dependent.on = by.unwrap_or(On::Queued));
        }
        if let Some(by) = by {
            self.release_unfolds(lane_id, by);
            self.lanes[lane_id].unfolds = newer;
        }
    }

    /// Notes that a call made no progress.
    fn trouble(&mut self, call: &InFlight, trouble: Trouble, until: Timestamp, now: Timestamp) {
        let is_tranche = self.lanes[call.lane].kind == LaneKind::Tranche;
        let shown = self.clock.read(now);
        let extras_id = self.extras_of(call.lane);
        let extras = &mut self.lane_extras[extras_id];
        let is_pending = extras.ticket != 0;
        // In read order several streams of one call may make no progress. The first of them in read order is the victim.
        let is_victim = !is_tranche || extras.victim.is_none_or(|victim| call.first_at <= victim);
        if is_victim {
            extras.count_victim(call, trouble, shown);
        }
        if trouble == Trouble::Deferred {
            extras.deferred_at = now;
        } else {
            extras.since.get_or_insert(call.taken);
        }
        // Of several failing streams of one call, the first in read order counts.
        if trouble == Trouble::Failing && !(is_tranche && is_pending && extras.failed_at < call.first_at) {
            extras.failures = if extras.failed_at == call.first_at { extras.failures.saturating_add(1) } else { 1 };
            extras.failed_at = call.first_at;
        }
        if !(is_pending && extras.trouble == Trouble::Failing) {
            extras.trouble = trouble;
        }
        extras.until = if is_pending { until.max(extras.until) } else { until };
        extras.ticket = self.timers.set(extras.until, call.lane);
        self.begin_waiting(call.lane);
    }

    fn park(&mut self, call: &InFlight, events: &mut Vec<Event>, now: Timestamp) {
        if self.lanes[call.lane].kind == LaneKind::Tranche {
            if call.kind == WorkKind::Malformed {
                self.nodes[call.head].flags |= Node::PARK;
            } else {
                let parked = &mut self.ledger.tranche_mut(call.tranche).parked;
                match parked.entry(events[0].stream_bytes().into()) {
                    Entry::Occupied(mut first) => *first.get_mut() = call.first_at.min(*first.get()),
                    Entry::Vacant(place) => _ = place.insert(call.first_at),
                }
            }
            self.put_back(call, events, Isolate::Nothing);
            return self.recover(call);
        }
        self.put_back(call, events, Isolate::Nothing);
        // Events that are queued out of order may have been read before the failed one. So may unfolds that a queued event
        // supersedes: below the first parked ordinal they would count as handled, and that event is not (C3).
        let extras = self.extras_of(call.lane);
        let queued = self.queued(call.lane).into_iter().map(|id| self.store.at(&self.nodes[id]));
        let dependents = self.lane_extras[extras].dependents.iter();
        let dependents = dependents.map(|of| self.ledger.batch(of.batch).ordinals.get(of.slot));
        let read = queued.chain(dependents).min();
        let extras = &mut self.lane_extras[extras];
        extras.recover();
        let first = extras.parked.map(|parked| parked.first).into_iter().chain(read).min();
        let since = extras.parked.map_or(now, |parked| parked.since);
        extras.parked = Some(Parked { first: first.unwrap_or(call.first_at), since });
        self.begin_waiting(call.lane);
    }
}
