//! Completes handled events: marks them in their batches, advances write positions, frees nodes and lanes.

use crate::clock::Timestamp;

use super::known::Busy;
use super::lane::{LaneKind, Node, chain};
use super::lane_extras::{On, Trouble};
use super::slab::NONE;
use super::{Indexes, Scheduler};

/// The longest queue of a recovered lane whose events stop counting as waiting. Each recovery of a longer queue would
/// cost the queue's length.
const MAX_QUEUE_TO_CLEAR_WAITING: u32 = 64;

/// Events with successive places of one batch, to be marked together.
#[derive(Default)]
pub(super) struct Marks {
    batch: u32,
    slot: u32,
    count: u32,
    waiting: u32,
}

impl Scheduler {
    /// Adds a handled event. The earlier ones are marked unless the new one follows them directly.
    #[inline]
    pub(super) fn mark(&mut self, marks: &mut Marks, batch: u32, slot: u32, waiting: bool) {
        if marks.batch != batch || marks.slot + marks.count != slot || marks.count == 0 {
            self.flush_marks(marks);
            *marks = Marks { batch, slot, count: 0, waiting: 0 };
        }
        marks.count += 1;
        marks.waiting += u32::from(waiting);
    }

    #[inline]
    pub(super) fn flush_marks(&mut self, marks: &Marks) {
        if marks.count > 0 {
            self.ledger.mark(marks.batch, marks.slot, marks.count, marks.waiting);
        }
    }

    #[inline]
    pub(super) fn complete(&mut self, tranche: u32) {
        self.ledger.complete(tranche);
        self.retire_batches();
    }

    /// Completes the batches of all tranches: the events of several may have been settled.
    pub(super) fn complete_all(&mut self) {
        for tranche in 0..self.ledger.tranches.len() {
            self.complete(tranche as u32);
        }
    }

    pub(super) fn retire_batches(&mut self) {
        while let Some(batch) = self.ledger.retire() {
            self.ready.end(batch);
            self.store.end(batch);
        }
    }

    /// Frees a node, and its event if that is queued. Returns the bytes of the read buffer that the event held.
    #[inline]
    pub(super) fn free_node(&mut self, id: u32) -> u64 {
        let bytes = self.store.forget(&mut self.nodes[id]);
        self.nodes.release(id);
        bytes
    }

    /// Frees a node whose tranche is held, and subtracts the bytes that its event held.
    pub(super) fn drop_node(&mut self, id: u32) -> u64 {
        let batch = self.nodes[id].batch;
        let bytes = self.free_node(id);
        if bytes > 0 {
            self.ledger.drop_bytes(batch, bytes);
        }
        bytes
    }

    /// Counts a queued node of a lane as handled, and frees it.
    fn settle_node(&mut self, lane: u32, id: u32) {
        let node = &self.nodes[id];
        if !node.has(Node::RECOVERED) {
            self.ledger.mark(node.batch, node.slot, 1, u32::from(node.has(Node::WAITING)));
        }
        self.lanes[lane].bytes -= self.drop_node(id);
    }

    /// Advances the write position of a stream.
    #[inline]
    pub(super) fn advance(&mut self, stream: u32, from: i64, last: i64, next: i64, real: i64) {
        if self.options.require_all {
            self.dirty_streams.insert(stream);
        }
        let known = self.streams.get_mut(stream);
        if self.options.indexes == Indexes::Sparse {
            return known.advance_sparse(from, last, next, real);
        }
        let gap = known.advance(from, next, real);
        let lane = known.lane();
        if lane != NONE && self.lanes[lane].extras != NONE {
            let extras = self.lanes[lane].extras;
            self.lane_extras[extras].gaps.remove(from, next);
        }
        if let Some((from, next)) = gap {
            let now = if lane == NONE { Timestamp::ZERO } else { self.lanes[lane].since };
            let lane = self.lane_of(stream, now);
            let extras = self.extras_of(lane);
            self.lane_extras[extras].gaps.add(from, next);
        }
    }

    /// Updates a lane after events of it were handled, restored, or passed.
    #[inline]
    pub(super) fn settle_lane(&mut self, lane: u32) {
        let of = &self.lanes[lane];
        if of.kind == LaneKind::Stream && of.is_idle() && of.extras == NONE {
            return self.free_lane(lane);
        }
        self.settle_busy_lane(lane);
    }

    fn settle_busy_lane(&mut self, lane: u32) {
        self.settle_head(lane);
        self.settle_dependents(lane);
        self.clear_waiting(lane);
        if !self.retire_lane(lane) {
            self.refresh(lane);
        }
    }

    /// Passes the leading events that need no offer: those below the write position, and placeholders whose turn it is.
    pub(super) fn settle_head(&mut self, lane_id: u32) {
        let lane = &self.lanes[lane_id];
        if lane.in_flight != NONE || lane.kind == LaneKind::Single {
            return;
        }
        if lane.kind == LaneKind::Tranche {
            return self.pass_leading_placeholders(lane_id);
        }
        let stream = lane.stream;
        let mut passed = false;
        while self.lanes[lane_id].head != NONE {
            let head = &self.nodes[self.lanes[lane_id].head];
            let (index, write) = (head.index, self.streams.get(stream).write());
            if index >= write {
                if !head.is_placeholder() || self.options.require_all && index > write.max(0) {
                    break;
                }
                self.advance(stream, index, index, index.saturating_add(1), 0);
            }
            let id = self.lanes[lane_id].pop(&self.nodes);
            self.settle_node(lane_id, id);
            passed = true;
        }
        let unfolds = self.lanes[lane_id].unfolds;
        if unfolds != NONE && self.nodes[unfolds].index < self.streams.get(stream).superseded_below() {
            self.lanes[lane_id].unfolds = NONE;
            for id in chain(&self.nodes, unfolds).collect::<Vec<_>>() {
                self.lanes[lane_id].len -= 1;
                self.settle_node(lane_id, id);
            }
            passed = true;
        }
        if passed {
            // The batch under which the lane was ready may be complete now.
            self.lanes[lane_id].ready_batch = NONE;
        }
    }

    pub(super) fn pass_leading_placeholders(&mut self, lane: u32) {
        while self.lanes[lane].head != NONE && self.nodes[self.lanes[lane].head].is_placeholder() {
            let id = self.lanes[lane].pop(&self.nodes);
            self.settle_node(lane, id);
            self.lanes[lane].ready_batch = NONE;
        }
    }

    /// Passes late events that a call has passed.
    pub(super) fn settle_late(&mut self, lane_id: u32, from: i64, next: i64) {
        let extras = self.lanes[lane_id].extras;
        if extras == NONE || self.lane_extras[extras].late == NONE {
            return;
        }
        let late: Vec<_> = chain(&self.nodes, self.lane_extras[extras].late).collect();
        self.lane_extras[extras].late = NONE;
        let mut last = NONE;
        for id in late {
            if (from..next).contains(&self.nodes[id].index) {
                self.lanes[lane_id].len -= 1;
                self.settle_node(lane_id, id);
                continue;
            }
            self.nodes[id].next = NONE;
            if last == NONE {
                self.lane_extras[extras].late = id;
            } else {
                self.nodes[last].next = id;
            }
            last = id;
        }
    }

    fn settle_dependents(&mut self, lane_id: u32) {
        let lane = &self.lanes[lane_id];
        if lane.extras == NONE || self.lane_extras[lane.extras].dependents.is_empty() {
            return;
        }
        let write = self.streams.get(lane.stream).write();
        let mut dependents = std::mem::take(&mut self.lane_extras[lane.extras].dependents);
        dependents.retain(|dependent| {
            let lane = &self.lanes[lane_id];
            let handled = match dependent.on {
                On::Event(index) => index < write && !self.is_late(lane_id, index),
                On::Queued => lane.unfolds == NONE,
                On::InFlight => lane.in_flight == NONE,
            };
            if handled {
                self.ledger.mark(dependent.batch, dependent.slot, 1, u32::from(dependent.waiting));
            }
            !handled
        });
        let extras = self.lanes[lane_id].extras;
        self.lane_extras[extras].dependents = dependents;
    }

    /// Returns whether a late event of this index is queued or in flight.
    pub(super) fn is_late(&self, lane: u32, index: i64) -> bool {
        let lane = &self.lanes[lane];
        let is_out = lane.in_flight != NONE && {
            let call = self.in_flight.get(lane.in_flight);
            call.late && !call.revoked && call.first == index
        };
        is_out
            || lane.extras != NONE
                && chain(&self.nodes, self.lane_extras[lane.extras].late).any(|id| self.nodes[id].index == index)
    }

    /// Counts the events of a lane as waiting from now on, and releases the read buffers that they are in.
    pub(super) fn begin_waiting(&mut self, lane_id: u32) {
        let extras = self.extras_of(lane_id);
        if self.lane_extras[extras].waiting || self.lanes[lane_id].kind == LaneKind::Tranche {
            return;
        }
        self.lane_extras[extras].waiting = true;
        for id in self.queued(lane_id) {
            self.start_waiting(id);
        }
        for dependent in &mut self.lane_extras[extras].dependents {
            dependent.waiting = true;
            self.ledger.wait(dependent.batch, true);
        }
    }

    pub(super) fn start_waiting(&mut self, id: u32) {
        let node = &mut self.nodes[id];
        if node.has(Node::RECOVERED) {
            return;
        }
        node.flags |= Node::WAITING;
        self.store.set_apart(node);
        self.ledger.wait(node.batch, true);
    }

    /// Stops counting the events of a lane as waiting, if the lane has recovered and few events are left.
    pub(super) fn clear_waiting(&mut self, lane_id: u32) {
        let lane = &self.lanes[lane_id];
        if lane.extras == NONE || lane.len > MAX_QUEUE_TO_CLEAR_WAITING || lane.in_flight != NONE {
            return;
        }
        let extras_id = lane.extras;
        let extras = &self.lane_extras[extras_id];
        if !extras.waiting || extras.parked.is_some() || extras.trouble != Trouble::None || extras.ticket != 0 {
            return;
        }
        if self.misses_events(lane_id) {
            return;
        }
        let extras = &mut self.lane_extras[extras_id];
        extras.waiting = false;
        for dependent in &mut extras.dependents {
            dependent.waiting = false;
            self.ledger.wait(dependent.batch, false);
        }
        for id in self.queued(lane_id) {
            let node = &mut self.nodes[id];
            if node.has(Node::WAITING) {
                node.flags &= !Node::WAITING;
                self.ledger.wait(node.batch, false);
            }
        }
    }

    /// Returns all queued nodes of a lane.
    pub(super) fn queued(&self, lane: u32) -> Vec<u32> {
        let lane = &self.lanes[lane];
        let late = if lane.extras == NONE { NONE } else { self.lane_extras[lane.extras].late };
        [late, lane.head, lane.unfolds].into_iter().flat_map(|first| chain(&self.nodes, first)).collect()
    }

    /// Frees the unused parts of a lane: all of it, if it has nothing to do or to remember. Returns whether the lane is
    /// freed.
    pub(super) fn retire_lane(&mut self, lane_id: u32) -> bool {
        let lane = &self.lanes[lane_id];
        if lane.extras != NONE {
            let extras = &self.lane_extras[lane.extras];
            let is_void = extras.is_void() && extras.dependents.is_empty() && !extras.waiting && extras.ticket == 0;
            if !is_void {
                return false;
            }
            let extras = lane.extras;
            self.lanes[lane_id].extras = NONE;
            self.lane_extras.release(extras);
        }
        let lane = &self.lanes[lane_id];
        if !lane.is_idle() || lane.kind == LaneKind::Tranche {
            return false;
        }
        self.free_lane(lane_id);
        true
    }

    pub(super) fn remove_anonymous(&mut self, stream: u32) {
        let epoch = self.streams.get(stream).epoch;
        self.streams.remove_anonymous(stream);
        self.ledger.leave_epoch_anonymously(epoch);
    }

    #[inline]
    pub(super) fn free_lane(&mut self, lane_id: u32) {
        let lane = &mut self.lanes[lane_id];
        assert_eq!(lane.bytes, 0, "a lane without events holds no bytes");
        (lane.free, lane.ready_batch) = (true, NONE);
        let (stream, kind) = (lane.stream, lane.kind);
        match kind {
            LaneKind::Single => self.remove_anonymous(stream),
            _ => self.streams.get_mut(stream).set_busy(Busy::Nothing),
        }
        self.lanes.release(lane_id);
    }
}
