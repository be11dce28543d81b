//! Taking work back.

use std::collections::hash_map::Entry;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::Event;
use crate::work::{Work, WorkKind};

use super::aside::{On, Parked, Trouble};
use super::lane::{LaneKind, Node, chain};
use super::out::Out;
use super::settle::Marks;
use super::slab::NONE;
use super::{Outcome, Scheduler};

/// Which of the events that come back are offered by themselves from now on.
#[derive(Clone, Copy)]
enum Isolate {
    Nothing,
    All,
    At(i64),
}

/// How many containers of events are kept for the next calls, and how large they may be.
const POOL: usize = 256;
const POOLED: usize = 1024;

impl Scheduler {
    pub(super) fn take_back(&mut self, work: Work, outcome: Outcome, now: Timestamp) {
        let mut events = work.events;
        let out = self.outs.find(work.id).expect("work comes back once");
        assert_eq!(events.len(), out.events as usize, "work comes back with the events that it went with");
        if out.is_lone() {
            match outcome {
                Outcome::Done { next } if out.ends_by(next) => {
                    self.finish_lone(work.id, next);
                    return self.recycle(events);
                }
                _ => _ = self.give_lane_to_out(work.id.slot),
            }
        }
        let out = self.outs.remove(work.id);
        self.unlink(&out, work.id.slot);
        if out.revoked {
            self.forget_out(&out);
        } else {
            self.ledger.tranche_mut(out.tranche).counts.out -= 1;
            self.apply(&out, &mut events, outcome, now);
            self.settle_lane(out.lane);
            self.complete(out.tranche);
        }
        self.trim_timers();
        self.recycle(events);
    }

    #[inline]
    fn recycle(&mut self, mut events: Vec<Event>) {
        if self.pool.len() < POOL && events.capacity() <= POOLED {
            events.clear();
            self.pool.push(events);
        }
    }

    fn unlink(&mut self, out: &Out, slot: u32) {
        let lane = &mut self.lanes[out.lane];
        if lane.out == slot {
            lane.out = out.sibling;
            return;
        }
        let mut at = lane.out;
        while self.outs.get(at).sibling != slot {
            at = self.outs.get(at).sibling;
        }
        self.outs.get_mut(at).sibling = out.sibling;
    }

    /// C6: a call whose tranche was taken away has ended, and counts for nothing.
    fn forget_out(&mut self, out: &Out) {
        for id in chain(&self.nodes, out.head).collect::<Vec<_>>() {
            self.free_node(id);
        }
        self.settle_lane(out.lane);
    }

    fn apply(&mut self, out: &Out, events: &mut Vec<Event>, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Done { next } => {
                assert!(next > out.first || out.ends_by(next), "what is done is at least one event");
                self.done(out, events, next);
            }
            Outcome::Skip => {
                // In read order other events may follow unfolds.
                let is_single = events[1..].iter().all(Event::is_unfold);
                let next = if is_single { out.next } else { events[0].next_index() };
                self.done(out, events, next);
            }
            Outcome::Return => self.put_back(out, events, Isolate::Nothing),
            Outcome::Defer { until } => {
                self.put_back(out, events, Isolate::Nothing);
                self.trouble(out, Trouble::Deferred, until, now);
            }
            Outcome::Wait { until } => {
                self.put_back(out, events, Isolate::Nothing);
                self.trouble(out, Trouble::Stalled, until, now);
            }
            Outcome::Failed { until, at_index } => {
                let isolate = match at_index {
                    _ if out.kind == WorkKind::Park => Isolate::Nothing,
                    Some(index) if events.iter().any(|event| event.index() == index && !event.is_unfold()) => {
                        Isolate::At(index)
                    }
                    _ => Isolate::All,
                };
                self.put_back(out, events, isolate);
                self.trouble(out, Trouble::Failing, until, now);
            }
            Outcome::Park => self.park(out, events, now),
        }
    }

    /// Everything below `next` is handled; the rest comes back.
    fn done(&mut self, out: &Out, events: &mut Vec<Event>, next: i64) {
        let all = out.ends_by(next);
        let is_stream = self.lanes[out.lane].kind == LaneKind::Stream;
        let (mut last, mut real, mut bytes) = (out.first, i64::MIN, 0);
        let mut marks = Marks::default();
        let mut id = out.head;
        let mut handed = events.drain(..);
        while id != NONE {
            let node = &mut self.nodes[id];
            if !all && node.next_index() > next {
                break;
            }
            let (following, batch, slot, flags) = (node.next, node.batch, node.slot, node.flags);
            if node.is_out() {
                let event = handed.next().expect("as many events come back as were handed out");
                bytes += event.held_bytes() as u64;
                real = real.max(node.next_index());
                last = last.max(node.index);
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
        self.ledger.drop_tranche_bytes(out.tranche, bytes);
        if is_stream {
            let real = if next > out.next { next } else { real };
            self.advance(self.lanes[out.lane].stream, out.first, last, next, real);
            self.settle_late(out.lane, out.first, next);
        }
        if id != NONE {
            self.restore(out, id, &mut handed, Isolate::Nothing);
        }
        drop(handed);
        self.recover(out.lane);
    }

    /// There was progress. Trouble of another stream of the same call stays.
    fn recover(&mut self, lane: u32) {
        let aside = self.lanes[lane].aside;
        if aside != NONE && self.asides[aside].ticket == 0 {
            self.asides[aside].recover();
        }
    }

    fn put_back(&mut self, out: &Out, events: &mut Vec<Event>, isolate: Isolate) {
        self.restore(out, out.head, &mut events.drain(..), isolate);
    }

    /// Puts a chain of nodes, from `first` on, back to where it was taken from, with the events that were handed out.
    fn restore(&mut self, out: &Out, first: u32, events: &mut impl Iterator<Item = Event>, isolate: Isolate) {
        let (mut id, mut last, mut len) = (first, NONE, 0);
        let (mut unfolds, mut unfolds_len) = (NONE, 0);
        let (is_stream, mut bytes) = (self.lanes[out.lane].kind == LaneKind::Stream, 0);
        while id != NONE {
            let node = &mut self.nodes[id];
            if node.is_out() {
                let event = events.next().expect("as many events come back as were handed out");
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
        self.lanes[out.lane].bytes += bytes;
        if out.late {
            self.restore_late(out.lane, first);
        } else if len > 0 {
            self.nodes[last].next = NONE;
            self.restore_events(out.lane, first, last, len);
        }
        if unfolds != NONE {
            self.restore_unfolds(out.lane, unfolds, unfolds_len);
        }
        if is_stream && !out.late {
            self.recall_late(out.lane);
        }
    }

    /// What arrived below a call that then made no progress was not jumped, and is not late.
    fn recall_late(&mut self, lane_id: u32) {
        let lane = &self.lanes[lane_id];
        if lane.aside == NONE || self.asides[lane.aside].late == NONE {
            return;
        }
        let (aside, write) = (lane.aside, self.streams.get(lane.stream).write());
        let late: Vec<_> = chain(&self.nodes, self.asides[aside].late).collect();
        self.asides[aside].late = NONE;
        for id in late.into_iter().rev() {
            let index = self.nodes[id].index;
            if index < write {
                self.nodes[id].next = self.asides[aside].late;
                self.asides[aside].late = id;
                continue;
            }
            self.nodes[id].next = NONE;
            let lane = &mut self.lanes[lane_id];
            lane.len -= 1;
            assert!(lane.insert(&mut self.nodes, id), "a late event is queued once");
            self.late_events -= 1;
        }
    }

    fn restore_events(&mut self, lane_id: u32, first: u32, last: u32, len: u32) {
        let at = self.store.at(&self.nodes[first]);
        let lane = &self.lanes[lane_id];
        let before = match lane.kind {
            // Runs of one call come back one by one, in any order.
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
        let aside = self.aside_of(lane_id);
        let index = self.nodes[id].index;
        let late = self.asides[aside].late;
        let before = chain(&self.nodes, late).take_while(|&late| self.nodes[late].index < index).last();
        match before {
            None => {
                self.nodes[id].next = late;
                self.asides[aside].late = id;
            }
            Some(before) => {
                self.nodes[id].next = self.nodes[before].next;
                self.nodes[before].next = id;
            }
        }
        self.lanes[lane_id].len += 1;
    }

    /// Unfolds come back: newer ones, or newer events, may have superseded them meanwhile.
    fn restore_unfolds(&mut self, lane_id: u32, first: u32, len: u32) {
        let index = self.nodes[first].index;
        let newer = self.lanes[lane_id].unfolds;
        let by = self.superseded_by(lane_id, index).or((newer != NONE).then_some(On::Queued));
        let lane = &mut self.lanes[lane_id];
        lane.unfolds = first;
        lane.len += len;
        if lane.aside != NONE {
            let riders = self.asides[lane.aside].riders.iter_mut().filter(|rider| rider.on == On::Out);
            riders.for_each(|rider| rider.on = by.unwrap_or(On::Queued));
        }
        if let Some(by) = by {
            self.let_go_of_unfolds(lane_id, by);
            self.lanes[lane_id].unfolds = newer;
        }
    }

    /// Notes that a call made no progress.
    fn trouble(&mut self, out: &Out, trouble: Trouble, until: Timestamp, now: Timestamp) {
        let is_tranche = self.lanes[out.lane].kind == LaneKind::Tranche;
        let shown = self.clock.read(now);
        let aside_id = self.aside_of(out.lane);
        let aside = &mut self.asides[aside_id];
        let is_pending = aside.ticket != 0;
        let from = aside.counts_from.take().unwrap_or(out.clock);
        aside.spent += Duration::from_nanos(shown.saturating_sub(from));
        // What is to be parked waits for the store, and is no fault of the stream.
        if trouble == Trouble::Stalled && out.kind == WorkKind::Handle {
            aside.counts_from = Some(shown);
        }
        if trouble == Trouble::Deferred {
            aside.deferred_at = now;
        } else {
            aside.since.get_or_insert(out.taken);
        }
        // Of several streams of one call, the one that comes first in read order counts.
        if trouble == Trouble::Failing && !(is_tranche && is_pending && aside.failed_at < out.first_at) {
            aside.failures = if aside.failed_at == out.first_at { aside.failures.saturating_add(1) } else { 1 };
            aside.failed_at = out.first_at;
        }
        if !(is_pending && aside.trouble == Trouble::Failing) {
            aside.trouble = trouble;
        }
        aside.until = if is_pending { until.max(aside.until) } else { until };
        aside.ticket = self.timers.set(aside.until, out.lane);
        self.begin_waiting(out.lane);
    }

    fn park(&mut self, out: &Out, events: &mut Vec<Event>, now: Timestamp) {
        if self.lanes[out.lane].kind == LaneKind::Tranche {
            if out.kind == WorkKind::Malformed {
                self.nodes[out.head].flags |= Node::PARK;
            } else {
                let parked = &mut self.ledger.tranche_mut(out.tranche).parked;
                match parked.entry(events[0].stream_bytes().into()) {
                    Entry::Occupied(mut first) => *first.get_mut() = out.first_at.min(*first.get()),
                    Entry::Vacant(place) => _ = place.insert(out.first_at),
                }
            }
            self.put_back(out, events, Isolate::Nothing);
            return self.recover(out.lane);
        }
        self.put_back(out, events, Isolate::Nothing);
        // What is queued out of order may have been read before the event that failed.
        let read = self.queued(out.lane).into_iter().map(|id| self.store.at(&self.nodes[id])).min();
        let aside = self.aside_of(out.lane);
        let aside = &mut self.asides[aside];
        aside.recover();
        let first = aside.parked.map(|parked| parked.first).into_iter().chain(read).min();
        let since = aside.parked.map_or(now, |parked| parked.since);
        aside.parked = Some(Parked { first: first.unwrap_or(out.first_at), since });
        self.begin_waiting(out.lane);
    }
}
