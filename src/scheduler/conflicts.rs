//! Repeats that contradict the event they repeat: the same stream and index, with another type or body.
//!
//! A repeat is compared with its original only while the scheduler holds both. To recognise the repeats of handled events, it
//! would have to read every body and keep a hash for each index, which costs more than scheduling the event. The common case is
//! covered: both events of one batch, or the original still queued.

use super::Scheduler;
use super::ingest::{Arrival, BatchOrigin};
use super::lane::chain;
use super::report::{Conflict, Occurrence};
use super::slab::NONE;

impl Scheduler {
    /// Counts a repeat that differs from the queued event of the same index, and keeps the first such pair.
    #[cold]
    pub(super) fn compare_repeat(&mut self, origin: &BatchOrigin, arrival: &Arrival, lane_id: u32) {
        let Some(original) = self.queued_at(lane_id, arrival.index) else { return };
        let original = &self.nodes[original];
        let (kept, repeat) = (self.store.event(original), self.store.read(origin.batch, arrival.at));
        // A placeholder has lost its body.
        let comparable = kept.kind() == repeat.kind();
        if !comparable || (kept.event_type(), kept.data()) == (repeat.event_type(), repeat.data()) {
            return;
        }
        self.conflicts += 1;
        if self.conflicts > 1 {
            return;
        }
        let occurrence =
            |tranche: u32, at| Occurrence { tranche: self.ledger.tranches[tranche as usize].id.clone(), at };
        self.first_conflict = Some(Conflict {
            stream: repeat.stream().to_owned(),
            index: arrival.index,
            kept: occurrence(self.ledger.tranche_of(original.batch), kept.at()),
            dropped: occurrence(origin.tranche, repeat.at()),
        });
    }

    /// Returns the node of the queued event, late or not, of this index.
    fn queued_at(&self, lane_id: u32, index: i64) -> Option<u32> {
        let lane = &self.lanes[lane_id];
        let late = if lane.extras == NONE { NONE } else { self.lane_extras[lane.extras].late };
        let is_it = |&id: &u32| self.nodes[id].index == index && !self.nodes[id].has(super::lane::Node::RECOVERED);
        lane.find(&self.nodes, index).filter(is_it).or_else(|| chain(&self.nodes, late).find(is_it))
    }
}
