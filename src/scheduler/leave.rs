//! The driver's means to release a tranche in good order, and to act on one piece of work.

use crate::clock::Timestamp;
use crate::position::{Ordinal, TrancheId};
use crate::work::{Streams, Work, WorkId};

use super::Scheduler;
use super::lane::{LaneKind, Node};
use super::slab::NONE;

impl Scheduler {
    pub(super) fn stop_offering_of(&mut self, id: &TrancheId) {
        let Some(tranche) = self.ledger.held(id) else { return };
        self.ledger.tranche_mut(tranche).leaving = true;
        self.leaving = true;
        self.give_singletons_lanes(tranche);
        for lane in 0..self.lanes.bound() {
            if !self.lanes[lane].free && self.lanes[lane].ready_batch != NONE {
                self.refresh(lane);
            }
        }
    }

    /// Returns whether the first event of a lane is of a tranche that is about to be released.
    pub(super) fn is_leaving(&self, lane: u32) -> bool {
        let first = self.first_node(lane);
        first != NONE && self.ledger.tranches[self.ledger.tranche_of(self.nodes[first].batch) as usize].leaving
    }

    /// Offers the first event of a lane without a call in flight by itself, even if the lane waits for a time.
    pub(super) fn offer_first(&mut self, lane: u32, now: Timestamp) -> Work {
        let first = self.first_node(lane);
        self.nodes[first].flags |= Node::SINGLE;
        if self.lanes[lane].kind != LaneKind::Tranche {
            let kind = self.kind_of(lane);
            return self.offer_lane(lane, kind, now);
        }
        let mut call = Streams::new();
        self.offer_in_read_order(lane, now, &mut call);
        call.pop().expect("a lane with an event offers one")
    }

    pub(super) fn find_tranche_of(&self, work: WorkId) -> Option<TrancheId> {
        let call = self.in_flight.find(work).filter(|call| !call.revoked)?;
        Some(self.ledger.tranches[call.tranche as usize].id.clone())
    }

    pub(super) fn find_parked_from(&self, work: &Work) -> Option<Ordinal> {
        let call = self.in_flight.find(work.id).filter(|call| !call.revoked && !call.is_singleton())?;
        let lane = &self.lanes[call.lane];
        match lane.kind {
            LaneKind::Tranche => {
                self.ledger.tranches[call.tranche as usize].parked.get(work.events[0].stream_bytes()).copied()
            }
            LaneKind::Stream | LaneKind::Single if lane.extras == NONE => None,
            LaneKind::Stream | LaneKind::Single => self.lane_extras[lane.extras].parked.map(|parked| parked.first),
        }
    }
}
