//! Unfolds: of a stream, the newest set is kept beside its events, until newer events or unfolds supersede it (C3).

use super::Scheduler;
use super::aside::{On, Rider};
use super::ingest::{Arrival, Place};
use super::lane::{Node, chain};
use super::slab::NONE;

impl Scheduler {
    pub(super) fn admit_unfold(&mut self, place: &Place, arrival: &Arrival) {
        let (index, stream) = (arrival.index, arrival.stream);
        let lane = self.find_lane(stream);
        let epoch = self.streams.get(stream).epoch;
        if epoch != place.epoch && (!self.ledger.epochs[epoch as usize].open || self.is_idle(stream)) {
            self.adopt(stream, place.epoch);
        }
        let known = self.streams.get(stream);
        if known.write() >= 0 && index < known.superseded_below() {
            return self.settle_at_once(place, arrival);
        }
        if lane != NONE && self.was_parked(lane, place, arrival) {
            return self.settle_at_once(place, arrival);
        }
        let lane = self.lane_of(stream, place.now);
        if let Some(by) = self.superseded_by(lane, index) {
            return self.settle_with(place, arrival, lane, by);
        }
        let newest = self.lanes[lane].unfolds;
        let mut joins = false;
        if newest != NONE {
            let newest = &self.nodes[newest];
            if index < newest.index {
                return self.settle_with(place, arrival, lane, On::Queued);
            }
            // Those of one document have one ordinal.
            joins = newest.index == index && newest.batch == place.batch && newest.slot == arrival.slot;
            if !joins {
                self.supersede(lane, On::Queued);
            }
        }
        self.add_unfold(place, lane, arrival, joins);
    }

    /// Adds an unfold to the newest set, or begins that with it.
    fn add_unfold(&mut self, place: &Place, lane_id: u32, arrival: &Arrival, joins: bool) {
        let node = self.add_node(place.batch, arrival);
        if joins {
            let last = chain(&self.nodes, self.lanes[lane_id].unfolds).last().expect("the set that it joins is there");
            self.nodes[last].next = node;
        } else {
            self.lanes[lane_id].unfolds = node;
        }
        let lane = &mut self.lanes[lane_id];
        lane.mixed |= self.streams.get(lane.stream).epoch != place.epoch;
        lane.len += 1;
        lane.bytes += arrival.bytes;
        let aside = lane.aside;
        if aside != NONE && self.asides[aside].waiting {
            self.start_waiting(node);
        }
        self.refresh(lane_id);
    }

    /// Returns what of a lane supersedes unfolds of this index: an event at or above it, out or queued, or newer unfolds
    /// that are out.
    pub(super) fn superseded_by(&self, lane: u32, index: i64) -> Option<On> {
        let lane = &self.lanes[lane];
        if lane.tail != NONE && lane.last >= index {
            let events = chain(&self.nodes, lane.head).map(|id| &self.nodes[id]).filter(|node| !node.is_placeholder());
            if let Some(last) = events.map(|node| node.index).last().filter(|&last| last >= index) {
                return Some(On::Event(last));
            }
        }
        let out = (lane.out != NONE).then(|| self.outs.get(lane.out)).filter(|out| !out.revoked && !out.late)?;
        if out.real_next > index {
            return Some(On::Event(out.real_next - 1));
        }
        (out.unfolds_at > index).then_some(On::Out)
    }

    /// Something supersedes the unfolds that are queued, and what these superseded.
    pub(super) fn supersede(&mut self, lane: u32, by: On) {
        let aside = self.aside_of(lane);
        self.asides[aside].riders.iter_mut().filter(|rider| rider.on == On::Queued).for_each(|rider| rider.on = by);
        self.let_go_of_unfolds(lane, by);
    }

    /// Lets go of the unfolds that are queued: they are handled when that which superseded them is.
    pub(super) fn let_go_of_unfolds(&mut self, lane: u32, by: On) {
        let mut id = std::mem::replace(&mut self.lanes[lane].unfolds, NONE);
        let aside = self.aside_of(lane);
        while id != NONE {
            let node = &self.nodes[id];
            let (next, waiting) = (node.next, node.has(Node::WAITING));
            self.asides[aside].riders.push(Rider { on: by, batch: node.batch, slot: node.slot, waiting });
            self.lanes[lane].bytes -= self.drop_node(id);
            self.lanes[lane].len -= 1;
            id = next;
        }
    }
}
