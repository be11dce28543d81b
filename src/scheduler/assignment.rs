//! Assignments: tranches that are opened and revoked, and the streams that are forgotten with them.

use crate::clock::Timestamp;
use crate::position::{Ordinal, Progress, TrancheId};

use super::known::Busy;
use super::lane::{Lane, LaneKind, chain};
use super::lane_extras::{On, Parked};
use super::slab::NONE;
use super::{Order, Scheduler};

/// The number of streams that one batch searches for those of released tranches.
const SWEPT: u32 = 512;

impl Scheduler {
    pub(super) fn begin_assignment(&mut self, id: &TrancheId, progress: Option<Progress>) {
        self.end_assignment(id);
        let tranche = self.ledger.open(id, progress);
        if self.options.order != Order::Tranche {
            return;
        }
        let opened = &mut self.ledger.tranches[tranche as usize];
        self.ledger.epochs[opened.epoch as usize].anonymous += 1;
        if opened.lane == NONE {
            let stream = self.streams.add_anonymous(b"", opened.epoch);
            opened.lane = self.lanes.insert(Lane::new(LaneKind::Tranche, stream, Timestamp::ZERO));
            self.streams.get_mut(stream).set_busy(Busy::Lane(opened.lane));
        } else {
            // A call of the last assignment still runs.
            let known = self.streams.get_mut(self.lanes[opened.lane].stream);
            let old = std::mem::replace(&mut known.epoch, opened.epoch);
            self.ledger.leave_epoch_anonymously(old);
        }
    }

    pub(super) fn end_assignment(&mut self, id: &TrancheId) {
        let Some(tranche) = self.ledger.held(id) else { return };
        let epoch = self.ledger.tranches[tranche as usize].epoch;
        self.give_singletons_lanes(tranche);
        for head in self.in_flight.revoke(tranche) {
            // Placeholders of work in flight are still in their batches, which are released now.
            for id in chain(&self.nodes, head).collect::<Vec<_>>() {
                self.store.forget(&mut self.nodes[id]);
            }
        }
        self.ledger.close(tranche);
        self.former.forget_epoch(epoch);
        for lane in 0..self.lanes.bound() {
            if self.lanes[lane].free {
                continue;
            }
            if self.lanes[lane].mixed {
                self.forget_part(lane, tranche);
            } else if self.streams.get(self.lanes[lane].stream).epoch == epoch {
                self.forget_lane(lane);
            }
        }
        self.retire_batches();
        self.complete_all();
        self.trim_timers();
        self.swept = 0;
        self.release_tranche_lane(tranche);
        self.ledger.release_epoch(epoch);
        self.leaving = self.ledger.tranches.iter().any(|tranche| tranche.is_held() && tranche.leaving);
    }

    /// Frees the lane of a tranche that is not held, once no call of it runs.
    pub(super) fn release_tranche_lane(&mut self, tranche: u32) {
        let of = &mut self.ledger.tranches[tranche as usize];
        let lane = of.lane;
        if of.is_held() || lane == NONE || !self.lanes[lane].is_idle() {
            return;
        }
        of.lane = NONE;
        self.lanes[lane].free = true;
        let stream = self.lanes[lane].stream;
        self.lanes.release(lane);
        self.remove_anonymous(stream);
    }

    /// Forgets all content of a lane, apart from a call in flight.
    fn forget_lane(&mut self, lane_id: u32) {
        for id in self.queued(lane_id) {
            self.free_node(id);
        }
        let lane = &mut self.lanes[lane_id];
        (lane.head, lane.tail, lane.unfolds) = (NONE, NONE, NONE);
        (lane.len, lane.bytes, lane.ready_batch) = (0, 0, NONE);
        let extras = std::mem::replace(&mut lane.extras, NONE);
        if extras != NONE {
            self.lane_extras.release(extras);
        }
        self.retire_lane(lane_id);
    }

    /// Forgets one tranche's events of a stream that another held tranche has brought events of, too.
    fn forget_part(&mut self, lane_id: u32, tranche: u32) {
        let first = [self.lanes[lane_id].head, self.lanes[lane_id].unfolds];
        for (which, first) in first.into_iter().enumerate() {
            let mut kept = NONE;
            for id in chain(&self.nodes, first).collect::<Vec<_>>() {
                if self.ledger.tranche_of(self.nodes[id].batch) == tranche {
                    self.lanes[lane_id].bytes -= self.free_node(id);
                    self.lanes[lane_id].len -= 1;
                    continue;
                }
                self.nodes[id].next = NONE;
                let lane = &mut self.lanes[lane_id];
                match (kept, which) {
                    (NONE, 0) => lane.head = id,
                    (NONE, _) => lane.unfolds = id,
                    (kept, _) => self.nodes[kept].next = id,
                }
                kept = id;
            }
            let lane = &mut self.lanes[lane_id];
            match (kept, which) {
                (NONE, 0) => (lane.head, lane.tail) = (NONE, NONE),
                (NONE, _) => lane.unfolds = NONE,
                (kept, 0) => (lane.tail, lane.last) = (kept, self.nodes[kept].index),
                _ => {}
            }
        }
        self.forget_part_of_extras(lane_id, tranche);
        self.move_to_holder(lane_id);
        self.lanes[lane_id].ready_batch = NONE;
        self.settle_lane(lane_id);
    }

    fn forget_part_of_extras(&mut self, lane_id: u32, tranche: u32) {
        let extras_id = self.lanes[lane_id].extras;
        if extras_id == NONE {
            return;
        }
        let late: Vec<_> = chain(&self.nodes, self.lane_extras[extras_id].late).collect();
        let of_it = |scheduler: &Self, id: u32| scheduler.ledger.tranche_of(scheduler.nodes[id].batch) == tranche;
        if late.iter().any(|&id| of_it(self, id)) {
            self.lane_extras[extras_id].late = NONE;
            for id in late.into_iter().rev() {
                if of_it(self, id) {
                    self.lanes[lane_id].bytes -= self.free_node(id);
                    self.lanes[lane_id].len -= 1;
                } else {
                    self.nodes[id].next = self.lane_extras[extras_id].late;
                    self.lane_extras[extras_id].late = id;
                }
            }
        }
        // An event of this tranche superseded unfolds of the other one, and leaves with it. The next owner handles
        // both.
        let dependents = std::mem::take(&mut self.lane_extras[extras_id].dependents);
        for dependent in dependents {
            if self.ledger.tranche_of(dependent.batch) == tranche {
                continue;
            }
            let lane = &self.lanes[lane_id];
            let call =
                (lane.in_flight != NONE).then(|| self.in_flight.get(lane.in_flight)).filter(|call| !call.revoked);
            let stays = match dependent.on {
                On::Event(index) => {
                    lane.find(&self.nodes, index).is_some() || call.is_some_and(|call| call.span_next > index)
                }
                On::Queued => lane.unfolds != NONE,
                On::InFlight => call.is_some(),
            };
            if stays {
                self.lane_extras[extras_id].dependents.push(dependent);
            } else {
                self.ledger.mark(dependent.batch, dependent.slot, 1, u32::from(dependent.waiting));
            }
        }
    }

    /// Moves a stream of two tranches to the one that is still held.
    fn move_to_holder(&mut self, lane_id: u32) {
        let stream = self.lanes[lane_id].stream;
        if self.ledger.epochs[self.streams.get(stream).epoch as usize].open {
            return;
        }
        let call = self.lanes[lane_id].in_flight;
        let queued = self.queued(lane_id).first().map(|&id| self.ledger.tranche_of(self.nodes[id].batch));
        let running = (call != NONE && !self.in_flight.get(call).revoked).then(|| self.in_flight.get(call).tranche);
        if let Some(holder) = queued.or(running) {
            let epoch = self.ledger.tranches[holder as usize].epoch;
            self.adopt(stream, epoch);
        }
    }

    /// Forgets some of the streams of released tranches, so that no single step is long.
    pub(super) fn sweep(&mut self) {
        let end = self.swept.saturating_add(SWEPT).min(self.streams.bound());
        for id in self.swept..end {
            let known = self.streams.get(id);
            if !known.free && known.has_nothing_to_do() && !self.ledger.epochs[known.epoch as usize].open {
                self.forget_stream(id);
            }
        }
        self.swept = end.max(self.swept);
    }

    pub(super) fn forget_stream(&mut self, id: u32) {
        let epoch = self.streams.get(id).epoch;
        let scope = self.scope(self.ledger.epochs[epoch as usize].tranche);
        self.streams.remove(id, scope);
        self.former.forget_stream(id);
        self.ledger.leave_epoch(epoch);
    }

    pub(super) fn forget_idle(&mut self) -> usize {
        let mut forgotten = 0;
        for id in 0..self.streams.bound() {
            let known = self.streams.get(id);
            if known.free {
                continue;
            }
            let (Busy::Nothing | Busy::Lane(_)) = known.busy() else { continue };
            let lane_id = known.lane();
            if lane_id != NONE {
                let lane = &self.lanes[lane_id];
                let is_parked = lane.extras != NONE && self.lane_extras[lane.extras].parked.is_some();
                if lane.kind != LaneKind::Stream || !lane.is_idle() || is_parked {
                    continue;
                }
                self.forget_lane(lane_id);
            }
            self.forget_stream(id);
            forgotten += 1;
        }
        self.streams.shrink();
        forgotten
    }

    pub(super) fn park_from(&mut self, id: &TrancheId, stream: &str, first: Ordinal) {
        let Some(tranche) = self.ledger.held(id) else { return };
        match self.options.order {
            Order::None => {}
            Order::Tranche => {
                self.ledger.tranche_mut(tranche).parked.insert(stream.as_bytes().into(), first);
            }
            Order::Stream => {
                let epoch = self.ledger.tranches[tranche as usize].epoch;
                let stream = self.find_or_add(stream.as_bytes(), self.scope(tranche), epoch);
                if !self.ledger.epochs[self.streams.get(stream).epoch as usize].open {
                    self.adopt(stream, epoch);
                }
                let lane = self.lane_of(stream, Timestamp::ZERO);
                let extras = self.extras_of(lane);
                self.lane_extras[extras].parked = Some(Parked { first, since: Timestamp::ZERO });
                self.begin_waiting(lane);
                self.refresh(lane);
            }
        }
    }

    pub(super) fn release_parked(&mut self, id: &TrancheId, stream: &str) {
        let Some(tranche) = self.ledger.held(id) else { return };
        match self.options.order {
            // Each event is parked by itself.
            Order::None => {}
            Order::Tranche => _ = self.ledger.tranche_mut(tranche).parked.remove(stream.as_bytes()),
            Order::Stream => {
                let Some(stream) = self.find(stream.as_bytes(), self.scope(tranche)) else { return };
                let lane = self.find_lane(stream);
                if lane != NONE {
                    self.unpark_lane(lane);
                }
            }
        }
    }

    fn unpark_lane(&mut self, lane: u32) {
        let extras = self.lanes[lane].extras;
        if extras != NONE && self.lane_extras[extras].parked.take().is_some() {
            self.settle_lane(lane);
        }
    }

    /// Returns the streams of a name. There are several if the tranche is part of a stream's identity.
    pub(super) fn all_named(&self, name: &[u8]) -> Vec<u32> {
        let scopes = match self.options.indexes {
            super::Indexes::Dense => 1,
            super::Indexes::Sparse => self.ledger.tranches.len() as u32,
        };
        (0..scopes).filter_map(|scope| self.find(name, scope)).collect()
    }
}
