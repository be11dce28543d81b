//! The usual case by a shorter way: an event that is all that its stream has to do.
//!
//! It needs neither a node nor a lane: its stream knows its place in its batch (or, while it is out, its call), and its batch
//! knows its stream. As soon as anything else has to be thought of (another event of the stream, a call that did not just
//! handle it, a tranche that goes) it gets a lane, and is as any other from then on.

use crate::clock::Timestamp;
use crate::event::Indexes;
use crate::work::{Streams, Work, WorkId, WorkKind};

use super::ingest::{Arrival, Place};
use super::known::Busy;
use super::lane::{Body, Lane, LaneKind, Node};
use super::ready::{Lone, class};
use super::slab::NONE;
use super::{Order, Scheduler};

impl Scheduler {
    /// Returns whether the events of a tranche may be offered without a look at more than their streams.
    pub(super) fn may_be_lone(&self, tranche: u32) -> bool {
        self.options.order == Order::Stream && !(self.leaving && self.ledger.tranches[tranche as usize].leaving)
    }

    /// Takes in an event of a stream that has nothing to do. Returns `false`, and does nothing, if it is another.
    #[inline]
    pub(super) fn admit_lone(&mut self, place: &Place, arrival: &Arrival) -> bool {
        let known = self.streams.get_mut(arrival.stream);
        let is_lone = known.has_nothing_to_do()
            && known.epoch == place.epoch
            && arrival.index >= known.write()
            && (!self.options.require_all || arrival.index <= known.write().max(0));
        if is_lone {
            known.set_busy(Busy::Lone { batch: place.batch, at: arrival.at });
            self.ready.add_lone(place.batch, arrival.at, Lone { stream: arrival.stream, slot: arrival.slot });
        }
        is_lone
    }

    /// The call is put together before what takes longer: its caller moves it at once, which would have to wait for what was
    /// written last.
    pub(super) fn offer_lone(&mut self, batch: u32, at: u32, now: Timestamp) -> Streams {
        let Lone { stream, slot } = self.ready.take_lone(batch, at);
        let next = self.store.read(batch, at).next_index();
        let of = self.ledger.batch(batch);
        let (read_at, tranche) = (of.read_at, of.tranche);
        let (out, id) = self.outs.claim();
        let events = self.pool.pop().unwrap_or_default();
        let kind = WorkKind::Handle;
        let mut call =
            Streams::from_buf([Work { id, kind, events, next, failures: 0, read_at, late: false, trace: None }]);
        self.store.hand_out_read(batch, at, &mut call[0].events);
        let event = &call[0].events[0];
        (out.lone, out.batch, out.slot, out.tranche) = (stream, batch, slot, tranche);
        (out.events, out.kind, out.late, out.revoked) = (1, kind, false, false);
        (out.first, out.first_at, out.next) = (event.index(), event.at(), next);
        (out.bytes, out.taken, out.clock) = (event.held_bytes() as u64, now, self.clock.read(now));
        self.streams.get_mut(stream).set_busy(Busy::LoneOut(id.slot));
        self.ledger.tranche_mut(tranche).counts.out += 1;
        call
    }

    /// A lone event is handled, and its stream has nothing more to do.
    #[inline]
    pub(super) fn finish_lone(&mut self, id: WorkId, next: i64) {
        let out = self.outs.get(id.slot);
        let (stream, first, tranche, bytes) = (out.lone, out.first, out.tranche, out.bytes);
        let (batch, slot) = (out.batch, out.slot);
        self.outs.release(id.slot);
        let completes = self.ledger.mark_lone(tranche, batch, slot, bytes);
        let known = self.streams.get_mut(stream);
        known.set_busy(Busy::Nothing);
        let is_plain = self.options.indexes == Indexes::Dense && !self.options.require_all;
        if !is_plain || !known.advance_by(first, next, next) {
            self.advance(stream, first, first, next, next);
            let lane = self.streams.get(stream).lane();
            if lane != NONE {
                // A gap that was jumped keeps the lane.
                self.settle_lane(lane);
            }
        }
        if completes {
            self.complete(tranche);
        }
    }

    /// Returns the lane of a stream; `NONE` if it has nothing to do. A lone event gets a lane by this.
    #[inline]
    pub(super) fn find_lane(&mut self, stream: u32) -> u32 {
        match self.streams.get(stream).busy() {
            Busy::Nothing => NONE,
            Busy::Lane(lane) => lane,
            Busy::Lone { batch, at } => self.give_lane(batch, at),
            Busy::LoneOut(out) => self.give_lane_to_out(out),
        }
    }

    /// Gives a lone event that is queued a lane.
    fn give_lane(&mut self, batch: u32, at: u32) -> u32 {
        let Lone { stream, slot } = self.ready.lone_at(batch, at);
        let event = self.store.read(batch, at);
        let (bytes, index) = (event.held_bytes() as u64, event.index());
        let node = self.nodes.insert(Node::new(batch, slot, index, Body::Read(at)));
        let mut lane = Lane::new(LaneKind::Stream, stream, self.ledger.batch(batch).read_at);
        lane.append(&mut self.nodes, node);
        (lane.bytes, lane.ready_batch, lane.ready_class) = (bytes, batch, class(1));
        let lane = self.lanes.insert(lane);
        self.streams.get_mut(stream).set_busy(Busy::Lane(lane));
        self.ready.replace_lone(batch, at, lane);
        lane
    }

    /// Gives a lone event that is out a lane.
    pub(super) fn give_lane_to_out(&mut self, slot: u32) -> u32 {
        let out = self.outs.get_mut(slot);
        let stream = std::mem::replace(&mut out.lone, NONE);
        let mut lane = Lane::new(LaneKind::Stream, stream, self.ledger.batch(out.batch).read_at);
        lane.out = slot;
        out.lane = self.lanes.insert(lane);
        out.head = self.nodes.insert(Node::new(out.batch, out.slot, out.first, Body::Out));
        out.sibling = NONE;
        (out.span_next, out.real_next, out.unfolds_at) = (out.next, out.next, i64::MIN);
        self.streams.get_mut(stream).set_busy(Busy::Lane(out.lane));
        out.lane
    }

    /// Gives all lone events of a tranche lanes.
    pub(super) fn give_lanes(&mut self, tranche: u32) {
        for batch in self.ledger.tranches[tranche as usize].queue.clone() {
            let lone: Vec<_> = self.ready.lone(batch).map(|(at, _)| at).collect();
            for at in lone {
                self.give_lane(batch, at);
            }
        }
        let out: Vec<_> = self.outs.lone().filter(|&out| self.outs.get(out).tranche == tranche).collect();
        for out in out {
            self.give_lane_to_out(out);
        }
    }
}
