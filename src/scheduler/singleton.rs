//! Singletons: the short path of the usual case, an event that is the only work of its stream.
//!
//! A singleton needs neither a node nor a lane. Its stream knows its place in its batch or, while it is in flight, its
//! call. Its batch knows its stream. Anything else (another event of the stream, a call that did not just handle it, a
//! revoked tranche) gives it a lane, which has no short path.

use crate::clock::Timestamp;
use crate::event::Indexes;
use crate::work::{Streams, Work, WorkId, WorkKind};

use super::ingest::{Arrival, BatchOrigin};
use super::known::Busy;
use super::lane::{Body, Lane, LaneKind, Node};
use super::ready::{FETCHED_SINGLETONS, Singleton, class};
use super::slab::NONE;
use super::{Order, Scheduler};

impl Scheduler {
    /// Returns whether events of a tranche may be singletons: nothing but their stream decides whether they are
    /// offered.
    pub(super) fn may_be_singleton(&self, tranche: u32) -> bool {
        self.options.order == Order::Stream && !(self.leaving && self.ledger.tranches[tranche as usize].leaving)
    }

    /// Admits an event of a stream without work. Returns `false`, and does nothing, if the event needs a lane.
    #[inline]
    pub(super) fn admit_singleton(&mut self, origin: &BatchOrigin, arrival: &Arrival) -> bool {
        let known = self.streams.get_mut(arrival.stream);
        let is_singleton = known.has_nothing_to_do()
            && known.epoch == origin.epoch
            && arrival.index >= known.write()
            && (!self.options.require_all || arrival.index <= known.write().max(0));
        if is_singleton {
            known.set_busy(Busy::Singleton { batch: origin.batch, at: arrival.at });
            self.ready.add_singleton(
                origin.batch,
                arrival.at,
                Singleton { stream: arrival.stream, slot: arrival.slot },
            );
        }
        is_singleton
    }

    /// Offers a singleton. The call is put together before the slower steps: the caller moves it at once, and the move
    /// would have to wait for the latest writes.
    #[inline(always)]
    pub(super) fn offer_singleton(&mut self, batch: u32, at: u32, now: Timestamp) -> Streams {
        if at.is_multiple_of(FETCHED_SINGLETONS) {
            // The streams were admitted long ago. Fetched together, their cache misses overlap.
            self.streams.fetch_known(self.ready.next_singletons(batch, at));
        }
        let Singleton { stream, slot } = self.ready.take_singleton(batch, at);
        let of = self.ledger.batch(batch);
        let (read_at, tranche) = (of.read_at, of.tranche);
        let (in_flight, id) = self.in_flight.claim();
        let events = self.pool.pop().unwrap_or_default();
        let kind = WorkKind::Handle;
        let next = self.store.read(batch, at).next_index();
        let mut call =
            Streams::from_buf([Work { id, kind, events, next, failures: 0, read_at, late: false, trace: None }]);
        self.store.hand_out_read(batch, at, &mut call[0].events);
        let event = &call[0].events[0];
        (in_flight.singleton, in_flight.batch, in_flight.slot, in_flight.tranche) = (stream, batch, slot, tranche);
        (in_flight.events, in_flight.kind, in_flight.late, in_flight.revoked) = (1, kind, false, false);
        (in_flight.first, in_flight.first_at, in_flight.next) = (event.index(), event.at(), next);
        (in_flight.bytes, in_flight.taken) = (event.held_bytes() as u64, now);
        (in_flight.clock, in_flight.ran) = (Some(self.clock.read(now)), 0);
        self.streams.get_mut(stream).set_busy(Busy::SingletonInFlight(id.slot));
        self.ledger.tranche_mut(tranche).counts.in_flight += 1;
        call
    }

    /// Finishes a singleton whose stream has nothing more to do.
    #[inline(always)]
    pub(super) fn finish_singleton(&mut self, id: WorkId, next: i64) {
        let call = self.in_flight.get(id.slot);
        let (stream, first, tranche, bytes) = (call.singleton, call.first, call.tranche, call.bytes);
        let (batch, slot) = (call.batch, call.slot);
        self.in_flight.release(id.slot);
        let completes = self.ledger.mark_singleton(tranche, batch, slot, bytes);
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

    /// Returns the lane of a stream; `NONE` if it has nothing to do. A singleton gets a lane.
    #[inline]
    pub(super) fn find_lane(&mut self, stream: u32) -> u32 {
        match self.streams.get(stream).busy() {
            Busy::Nothing => NONE,
            Busy::Lane(lane) => lane,
            Busy::Singleton { batch, at } => self.give_singleton_lane(batch, at),
            Busy::SingletonInFlight(call) => self.give_in_flight_lane(call),
        }
    }

    /// Gives a queued singleton a lane.
    fn give_singleton_lane(&mut self, batch: u32, at: u32) -> u32 {
        let Singleton { stream, slot } = self.ready.singleton_at(batch, at);
        let event = self.store.read(batch, at);
        let (bytes, index) = (event.held_bytes() as u64, event.index());
        let node = self.nodes.insert(Node::new(batch, slot, index, Body::Read(at)));
        let mut lane = Lane::new(LaneKind::Stream, stream, self.ledger.batch(batch).read_at);
        lane.append(&mut self.nodes, node);
        (lane.bytes, lane.ready_batch, lane.ready_class) = (bytes, batch, class(1));
        let lane = self.lanes.insert(lane);
        self.streams.get_mut(stream).set_busy(Busy::Lane(lane));
        self.ready.replace_singleton(batch, at, lane);
        lane
    }

    /// Gives a singleton in flight a lane.
    pub(super) fn give_in_flight_lane(&mut self, slot: u32) -> u32 {
        let call = self.in_flight.get_mut(slot);
        let stream = std::mem::replace(&mut call.singleton, NONE);
        let mut lane = Lane::new(LaneKind::Stream, stream, self.ledger.batch(call.batch).read_at);
        lane.in_flight = slot;
        call.lane = self.lanes.insert(lane);
        call.head = self.nodes.insert(Node::new(call.batch, call.slot, call.first, Body::InFlight));
        call.sibling = NONE;
        (call.span_next, call.real_next, call.unfolds_at) = (call.next, call.next, i64::MIN);
        self.streams.get_mut(stream).set_busy(Busy::Lane(call.lane));
        call.lane
    }

    /// Gives all singletons of a tranche lanes.
    pub(super) fn give_singletons_lanes(&mut self, tranche: u32) {
        for batch in self.ledger.tranches[tranche as usize].queue.clone() {
            let singleton: Vec<_> = self.ready.singletons(batch).map(|(at, _)| at).collect();
            for at in singleton {
                self.give_singleton_lane(batch, at);
            }
        }
        let in_flight: Vec<_> =
            self.in_flight.singletons().filter(|&call| self.in_flight.get(call).tranche == tranche).collect();
        for call in in_flight {
            self.give_in_flight_lane(call);
        }
    }
}
