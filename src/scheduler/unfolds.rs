//! Unfolds: of a stream, the newest set is kept beside its events, until newer events or unfolds supersede it (C3).

use super::Scheduler;
use super::ingest::{Arrival, BatchOrigin};
use super::lane::{Node, chain};
use super::lane_extras::{Dependent, On};
use super::slab::NONE;

impl Scheduler {
    pub(super) fn admit_unfold(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        let (index, stream) = (arrival.index, arrival.stream);
        let lane = self.find_lane(stream);
        let epoch = self.streams.get(stream).epoch;
        if !self.ledger.epochs[epoch as usize].open || self.is_idle(stream) {
            self.pass_on(origin, stream);
        }
        if index < self.streams.get(stream).superseded_below() {
            return self.settle_at_once(origin, arrival);
        }
        if lane != NONE && self.was_parked(lane, origin, arrival) {
            return self.settle_at_once(origin, arrival);
        }
        let lane = self.lane_of(stream, origin.now);
        if let Some(by) = self.superseded_by(lane, index) {
            return self.settle_with(origin, arrival, lane, by);
        }
        let newest = self.lanes[lane].unfolds;
        let mut joins = false;
        if newest != NONE {
            let newest = &self.nodes[newest];
            if index < newest.index {
                return self.settle_with(origin, arrival, lane, On::Queued);
            }
            // The unfolds of one document share one ordinal.
            joins = newest.index == index && newest.batch == origin.batch && newest.slot == arrival.slot;
            if !joins {
                self.supersede(lane, On::Queued);
            }
        }
        self.add_unfold(origin, lane, arrival, joins);
    }

    /// Adds an unfold to the newest set, or begins a new set with it.
    fn add_unfold(&mut self, origin: &BatchOrigin, lane_id: u32, arrival: &Arrival, joins: bool) {
        let node = self.add_node(origin.batch, arrival);
        if joins {
            let last = chain(&self.nodes, self.lanes[lane_id].unfolds).last().expect("the set that it joins is there");
            self.nodes[last].next = node;
        } else {
            self.lanes[lane_id].unfolds = node;
        }
        let lane = &mut self.lanes[lane_id];
        lane.mixed |= self.streams.get(lane.stream).epoch != origin.epoch;
        lane.len += 1;
        lane.bytes += arrival.bytes;
        let extras = lane.extras;
        if extras != NONE && self.lane_extras[extras].waiting {
            self.start_waiting(node);
        }
        self.refresh(lane_id);
    }

    /// Returns the superseder of unfolds of this index in a lane: an event at or above it, queued or in flight, or
    /// newer unfolds in flight.
    pub(super) fn superseded_by(&self, lane: u32, index: i64) -> Option<On> {
        let lane = &self.lanes[lane];
        if lane.tail != NONE && lane.last >= index {
            let events = chain(&self.nodes, lane.head).map(|id| &self.nodes[id]).filter(|node| !node.is_placeholder());
            if let Some(last) = events.map(|node| node.index).last().filter(|&last| last >= index) {
                return Some(On::Event(last));
            }
        }
        let call = (lane.in_flight != NONE)
            .then(|| self.in_flight.get(lane.in_flight))
            .filter(|call| !call.revoked && !call.late)?;
        if call.real_next > index {
            return Some(On::Event(call.real_next - 1));
        }
        (call.unfolds_at > index).then_some(On::InFlight)
    }

    /// Marks the queued unfolds as superseded, along with the unfolds that they superseded.
    pub(super) fn supersede(&mut self, lane: u32, by: On) {
        let extras = self.extras_of(lane);
        self.lane_extras[extras]
            .dependents
            .iter_mut()
            .filter(|dependent| dependent.on == On::Queued)
            .for_each(|dependent| dependent.on = by);
        self.release_unfolds(lane, by);
    }

    /// Releases the queued unfolds. They are handled when their superseder is.
    pub(super) fn release_unfolds(&mut self, lane: u32, by: On) {
        let mut id = std::mem::replace(&mut self.lanes[lane].unfolds, NONE);
        let extras = self.extras_of(lane);
        while id != NONE {
            let node = &self.nodes[id];
            let (next, waiting) = (node.next, node.has(Node::WAITING));
            self.lane_extras[extras].dependents.push(Dependent { on: by, batch: node.batch, slot: node.slot, waiting });
            self.lanes[lane].bytes -= self.drop_node(id);
            self.lanes[lane].len -= 1;
            id = next;
        }
    }
}
