//! The tranche that a stream belongs to (C4, C7).

use hashbrown::HashMap;

use super::ingest::{Arrival, BatchOrigin};
use super::slab::NONE;
use super::{BrokenFeed, Scheduler};

/// The streams that passed from one held tranche to another, with the indexes that each former tranche brought.
#[derive(Debug, Default)]
pub(super) struct FormerTranches(HashMap<u32, Vec<Former>>);

/// A former tranche of a stream.
#[derive(Clone, Copy, Debug)]
struct Former {
    /// The end of the indexes that it brought. They begin at the end of the one before.
    next: i64,
    epoch: u32,
    /// Whether earlier tranches brought some of these indexes.
    several: bool,
}

impl FormerTranches {
    /// The most former tranches that are kept for one stream. Beyond that, the two oldest become one.
    const MOST: usize = 64;

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, stream: u32, next: i64, epoch: u32) {
        let all = self.0.entry(stream).or_default();
        all.push(Former { next, epoch, several: false });
        if all.len() > Self::MOST {
            all.remove(0);
            all[0].several = true;
        }
    }

    /// Returns an epoch, other than `epoch`, that brought this index of a stream. `current` is the stream's epoch.
    fn find_other(&self, stream: u32, index: i64, current: u32, epoch: u32) -> Option<u32> {
        let all = self.0.get(&stream).map_or(&[][..], Vec::as_slice);
        let other = match all.iter().find(|former| index < former.next) {
            // The tranche that brought this index is forgotten, so that any other one counts. A dropped event could be
            // lost.
            Some(former) if former.several => {
                let latest_first = all.iter().rev().map(|former| former.epoch);
                return std::iter::once(current).chain(latest_first).find(|&other| other != epoch);
            }
            Some(former) => former.epoch,
            None => current,
        };
        (other != epoch).then_some(other)
    }

    /// Forgets a stream.
    pub(super) fn forget_stream(&mut self, stream: u32) {
        if !self.is_empty() {
            self.0.remove(&stream);
        }
    }

    /// Returns the number of former tranches of all streams.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Forgets an epoch that ends. The indexes that its tranche brought count as those of the next tranche.
    pub(super) fn forget_epoch(&mut self, epoch: u32) {
        self.0.retain(|_, former| {
            former.retain(|former| former.epoch != epoch);
            !former.is_empty()
        });
    }
}

impl Scheduler {
    /// Determines the tranche that an event's stream belongs to from this event on. The feed is broken if another held
    /// tranche has brought this event or a later one of the stream (C4). Whether these are handled makes no difference,
    /// so that the result does not depend on the speed of a handler.
    pub(super) fn check_tranche(&mut self, origin: &BatchOrigin, arrival: &Arrival) -> Result<(), BrokenFeed> {
        let (stream, index) = (arrival.stream, arrival.index);
        let Some(other) = self.change_tranche(origin, stream, index) else { return Ok(()) };
        Err(BrokenFeed::StreamInTwoTranches {
            stream: self.streams.text(stream).to_owned(),
            index,
            from: self.ledger.tranches[origin.tranche as usize].id.clone(),
            other: self.ledger.tranches[other as usize].id.clone(),
        })
    }

    /// Gives a stream to the tranche of an event, if the event is after all others of the stream. The earlier tranche
    /// may have been released, or be done with the stream. Otherwise, returns the other held tranche that brought the
    /// event or a later one, if there is one.
    pub(super) fn change_tranche(&mut self, origin: &BatchOrigin, stream: u32, index: i64) -> Option<u32> {
        let epoch = self.streams.get(stream).epoch;
        if epoch == origin.epoch && self.former.is_empty() {
            return None;
        }
        if !self.ledger.epochs[epoch as usize].open {
            self.adopt(stream, origin.epoch);
            return None;
        }
        if index >= self.next_of(stream) {
            self.pass_on(origin, stream);
            return None;
        }
        let other = self.former.find_other(stream, index, epoch, origin.epoch)?;
        Some(self.ledger.epochs[other as usize].tranche)
    }

    /// Gives a stream to the tranche of an event, along with all indexes from the stream's next one on. Events of the
    /// earlier tranche may be queued. No call holds events of both.
    pub(super) fn pass_on(&mut self, origin: &BatchOrigin, stream: u32) {
        let epoch = self.streams.get(stream).epoch;
        if epoch == origin.epoch {
            return;
        }
        let next = self.next_of(stream);
        if self.ledger.epochs[epoch as usize].open && next >= 0 {
            self.former.add(stream, next, epoch);
        }
        let lane = self.streams.get(stream).lane();
        if lane != NONE {
            self.lanes[lane].mixed |= !self.lanes[lane].is_idle();
        }
        self.adopt(stream, origin.epoch);
    }

    /// Returns the index after all events of a stream, handled or not; negative if there are none.
    fn next_of(&self, stream: u32) -> i64 {
        let known = self.streams.get(stream);
        let write = known.write();
        if known.lane() == NONE {
            return write;
        }
        let lane = &self.lanes[known.lane()];
        let queued = if lane.tail == NONE { write } else { lane.last.saturating_add(1) };
        let call = (lane.in_flight != NONE).then(|| self.in_flight.get(lane.in_flight));
        let in_flight = call.filter(|call| !call.revoked && !call.late).map_or(write, |call| call.span_next);
        write.max(queued).max(in_flight)
    }

    /// Moves a stream to another epoch, and forgets the write position if its old epoch is closed (C7).
    pub(super) fn adopt(&mut self, stream: u32, epoch: u32) {
        let known = self.streams.get_mut(stream);
        let old = std::mem::replace(&mut known.epoch, epoch);
        if !self.ledger.epochs[old as usize].open {
            known.forget();
            self.former.forget_stream(stream);
        }
        self.ledger.epochs[epoch as usize].streams += 1;
        self.ledger.leave_epoch(old);
    }
}
