//! Work in flight.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::position::Ordinal;
use crate::work::{WorkId, WorkKind};

use super::slab::NONE;

/// One piece of work that was handed out and is not finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) generation: u32,
    /// The stream of a singleton, whose batch and place follow; `NONE` if the work has a lane.
    pub(super) singleton: u32,
    pub(super) batch: u32,
    pub(super) slot: u32,
    /// The lane that it was taken from; `NONE` for a singleton.
    pub(super) lane: u32,
    pub(super) tranche: u32,
    /// The first of the nodes that it took from its lane, placeholders included.
    pub(super) head: u32,
    /// Other work of the same lane (a tranche in read order may have several streams in one call).
    pub(super) sibling: u32,
    pub(super) events: u32,
    pub(super) bytes: u64,
    pub(super) first: i64,
    pub(super) first_at: Ordinal,
    /// The next index after its events and placeholders, and after its events alone;
    /// `i64::MIN` if it has unfolds only.
    pub(super) span_next: i64,
    pub(super) real_next: i64,
    /// The next index after everything.
    pub(super) next: i64,
    /// The index of its unfolds; `i64::MIN` if it has none.
    pub(super) unfolds_at: i64,
    pub(super) kind: WorkKind,
    pub(super) late: bool,
    /// Its tranche was revoked: its result counts for nothing (C6).
    pub(super) revoked: bool,
    pub(super) taken: Timestamp,
    /// The reading of the held clock when its clock of `stuck_after` began to run (C20), in nanoseconds. `None`: the clock
    /// stands still.
    pub(super) clock: Option<u64>,
    /// The time that its clock ran before, in nanoseconds.
    pub(super) ran: u64,
}

impl InFlight {
    pub(super) fn new(lane: u32, head: u32, kind: WorkKind, taken: Timestamp, clock: u64) -> Self {
        Self {
            generation: 0,
            singleton: NONE,
            batch: NONE,
            slot: 0,
            lane,
            tranche: NONE,
            head,
            sibling: NONE,
            events: 0,
            bytes: 0,
            first: 0,
            first_at: Ordinal::default(),
            span_next: i64::MIN,
            real_next: i64::MIN,
            next: 0,
            unfolds_at: i64::MIN,
            kind,
            late: false,
            revoked: false,
            taken,
            clock: Some(clock),
            ran: 0,
        }
    }

    /// Returns the time that its clock ran. `shown` is the reading of the held clock.
    pub(super) fn spent(&self, shown: u64) -> Duration {
        Duration::from_nanos(self.ran + self.clock.map_or(0, |from| shown.saturating_sub(from)))
    }

    #[inline]
    pub(super) fn is_singleton(&self) -> bool {
        self.singleton != NONE
    }

    fn is_unused(&self) -> bool {
        self.lane == NONE && self.singleton == NONE
    }

    /// Returns whether a call that is done up to `next` has handled all of it.
    pub(super) fn ends_by(&self, next: i64) -> bool {
        next >= self.next
    }
}

#[derive(Debug, Default)]
pub(super) struct InFlightTable {
    places: Vec<InFlight>,
    unused: Vec<u32>,
}

impl InFlightTable {
    /// Returns a place for a piece of work, and the work's id.
    #[inline]
    pub(super) fn claim(&mut self) -> (&mut InFlight, WorkId) {
        let slot = match self.unused.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        let call = &mut self.places[slot as usize];
        call.generation = call.generation.wrapping_add(1);
        let generation = call.generation;
        (call, WorkId { slot, generation })
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        let slot = u32::try_from(self.places.len()).expect("fewer than 2^32 calls run at the same time");
        self.places.push(InFlight::new(NONE, NONE, WorkKind::Handle, Timestamp::ZERO, 0));
        slot
    }

    #[inline]
    pub(super) fn insert(&mut self, call: InFlight) -> WorkId {
        let (place, id) = self.claim();
        *place = InFlight { generation: id.generation, ..call };
        id
    }

    /// Returns the work of this id, unless it is finished.
    pub(super) fn find(&self, id: WorkId) -> Option<&InFlight> {
        self.places.get(id.slot as usize).filter(|call| call.generation == id.generation && !call.is_unused())
    }

    pub(super) fn find_mut(&mut self, id: WorkId) -> Option<&mut InFlight> {
        self.places.get_mut(id.slot as usize).filter(|call| call.generation == id.generation && !call.is_unused())
    }

    pub(super) fn get(&self, slot: u32) -> &InFlight {
        &self.places[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut InFlight {
        &mut self.places[slot as usize]
    }

    /// Removes a piece of work that is finished.
    pub(super) fn remove(&mut self, id: WorkId) -> InFlight {
        assert!(self.find(id).is_some(), "work is finished once");
        let call = *self.get(id.slot);
        self.release(id.slot);
        call
    }

    /// Releases a place.
    #[inline]
    pub(super) fn release(&mut self, slot: u32) {
        let call = &mut self.places[slot as usize];
        (call.lane, call.singleton) = (NONE, NONE);
        self.unused.push(slot);
    }

    /// Returns the singletons in flight.
    pub(super) fn singletons(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.places).filter(|(_, call)| call.is_singleton()).map(|(slot, _)| slot)
    }

    /// Marks all work of a tranche in flight as revoked. Returns the first node of each.
    pub(super) fn revoke(&mut self, tranche: u32) -> Vec<u32> {
        let mut heads = Vec::new();
        for call in self.places.iter_mut().filter(|call| !call.is_unused() && call.tranche == tranche) {
            assert!(!call.is_singleton(), "revoked work has a lane");
            call.revoked = true;
            heads.push(call.head);
        }
        heads
    }
}

/// A clock that stands still while it is held.
#[derive(Debug, Default)]
pub(super) struct HeldClock {
    since: Option<Timestamp>,
    /// The total time that it was held, in nanoseconds.
    total: u64,
}

impl HeldClock {
    /// Returns the reading, in nanoseconds.
    #[inline]
    pub(super) fn read(&self, now: Timestamp) -> u64 {
        self.since.unwrap_or(now).as_nanos().saturating_sub(self.total)
    }

    /// Returns the time since the reading `earlier`.
    pub(super) fn since(&self, earlier: u64, now: Timestamp) -> Duration {
        Duration::from_nanos(self.read(now).saturating_sub(earlier))
    }

    pub(super) fn hold(&mut self, held: bool, now: Timestamp) {
        match (held, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.total += now.as_nanos().saturating_sub(since.as_nanos());
                self.since = None;
            }
            _ => {}
        }
    }
}
