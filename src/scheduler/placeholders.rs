//! Events that are never offered, and keep their place in a dense stream: those that a filter excluded, and those that were
//! handled before their tranche was opened.

use crate::event::{Event, Indexes};

use super::Scheduler;
use super::ingest::{Place, Verdict};
use super::lane::Node;
use super::slab::NONE;

impl Scheduler {
    pub(super) fn admit_placeholder(&mut self, place: &Place, slot: u32, stream: u32, mut event: Event) {
        let lane = if stream == NONE { NONE } else { self.lane_for_placeholder(place, stream, event.index()) };
        if lane == NONE {
            return self.settle_at_once(place, slot, &event);
        }
        self.empty(place, &mut event);
        self.queue(place, slot, lane, event);
    }

    /// An event that was handled before its tranche was opened counts at once; where a stream is dense, its place is kept.
    pub(super) fn admit_recovered(&mut self, place: &Place, slot: u32, stream: u32, mut event: Event) {
        self.settle_at_once(place, slot, &event);
        if stream == NONE || self.options.indexes == Indexes::Sparse {
            return;
        }
        let lane = self.lane_for_placeholder(place, stream, event.index());
        if lane == NONE {
            return;
        }
        event.forget_record();
        let index = event.index();
        let node = self.add_node(place, slot, event);
        self.nodes[node].flags = Node::RECOVERED;
        if !self.lanes[lane].insert(&mut self.nodes, node, index) {
            return self.free_node(node);
        }
        if self.lanes[lane].head == node {
            self.settle_head(lane);
        }
        self.refresh(lane);
    }

    /// Returns the lane in which a placeholder has to wait its turn; `NONE` if it need not, and its stream has passed it.
    fn lane_for_placeholder(&mut self, place: &Place, stream: u32, index: i64) -> u32 {
        let epoch = self.streams.get(stream).epoch;
        if epoch != place.epoch && !self.ledger.epochs[epoch as usize].open {
            self.adopt(stream, place.epoch);
        }
        let known = self.streams.get(stream);
        let lane = known.lane;
        let has_queue = lane != NONE && !self.lanes[lane].is_idle();
        let is_next = !self.options.require_all || index <= known.write().max(0);
        match self.verdict(stream, index) {
            Verdict::Fresh if has_queue || !is_next => return self.lane_of(stream, place.now),
            Verdict::Fresh => self.advance(stream, index, index, index + 1, 0),
            Verdict::Late | Verdict::Handled | Verdict::Waits => {
                if lane != NONE && self.lanes[lane].aside != NONE {
                    let aside = self.lanes[lane].aside;
                    self.asides[aside].gaps.remove(index, index + 1);
                }
            }
        }
        NONE
    }

    /// Lets go of a placeholder's buffer: its place is all that is needed.
    pub(super) fn empty(&mut self, place: &Place, event: &mut Event) {
        self.ledger.drop_bytes(place.batch, event.held_bytes() as u64);
        event.forget_record();
    }
}
