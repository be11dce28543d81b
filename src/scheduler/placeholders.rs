//! Placeholders: events that are never offered, and keep their place in a dense stream. A filter excluded them, or they
//! were handled before their tranche was opened.

use crate::event::{Indexes, Kind};

use super::Scheduler;
use super::ingest::{Arrival, BatchOrigin, Freshness};
use super::lane::Node;
use super::slab::NONE;

impl Scheduler {
    pub(super) fn admit_placeholder(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        let lane = self.lane_for_placeholder(origin, arrival);
        if lane == NONE {
            return self.settle_at_once(origin, arrival);
        }
        let emptied = self.empty(origin, arrival);
        self.queue(origin, lane, &emptied);
    }

    /// Admits an event that was handled before its tranche was opened. It counts at once, and keeps its place in a
    /// dense stream.
    pub(super) fn admit_recovered(&mut self, origin: &BatchOrigin, arrival: &Arrival) {
        let lane = match self.options.indexes {
            Indexes::Dense => self.lane_for_placeholder(origin, arrival),
            Indexes::Sparse => NONE,
        };
        if lane == NONE {
            return self.settle_at_once(origin, arrival);
        }
        // An event below the first parked one of its stream comes here as it was read. It must not be offered again.
        let emptied = Arrival { kind: Kind::Placeholder, ..self.empty(origin, arrival) };
        self.ledger.mark(origin.batch, arrival.slot, 1, 0);
        let node = self.add_node(origin.batch, &emptied);
        self.nodes[node].flags = Node::RECOVERED;
        self.store.set_apart(&mut self.nodes[node]);
        self.lanes[lane].mixed |= self.streams.get(arrival.stream).epoch != origin.epoch;
        if !self.lanes[lane].insert(&mut self.nodes, node) {
            self.free_node(node);
            return;
        }
        if self.lanes[lane].head == node {
            self.settle_head(lane);
        }
        self.refresh(lane);
    }

    /// Returns the lane in which a placeholder waits its turn; `NONE` if its stream has passed it already.
    fn lane_for_placeholder(&mut self, origin: &BatchOrigin, arrival: &Arrival) -> u32 {
        let (stream, index) = (arrival.stream, arrival.index);
        if stream == NONE {
            return NONE;
        }
        let lane = self.find_lane(stream);
        // No handler sees a placeholder. One that another tranche brought as well loses no event.
        _ = self.change_tranche(origin, stream, index);
        let known = self.streams.get(stream);
        let has_queue = lane != NONE && !self.lanes[lane].is_idle();
        let is_next = !self.options.require_all || index <= known.write().max(0);
        match self.freshness(stream, index) {
            Freshness::Fresh if has_queue || !is_next => return self.lane_of(stream, origin.now),
            Freshness::Fresh => self.advance(stream, index, index, index.saturating_add(1), 0),
            Freshness::Late | Freshness::Handled | Freshness::Waits => {
                if lane != NONE && self.lanes[lane].extras != NONE {
                    let extras = self.lanes[lane].extras;
                    self.lane_extras[extras].gaps.remove(index, index.saturating_add(1));
                }
            }
        }
        NONE
    }
}
