//! The tranche that a stream belongs to (C4, C7).

use super::ingest::{Arrival, BatchOrigin, Freshness};
use super::slab::NONE;
use super::{BrokenFeed, Scheduler};

impl Scheduler {
    /// Admits an event from another tranche than the stream's earlier ones. The other tranche may have been released,
    /// or be done with the stream. If it has brought this index already, the feed is broken (C4). Otherwise the events
    /// of both are queued together, and no call holds events of both.
    pub(super) fn change_tranche(&mut self, origin: &BatchOrigin, arrival: &Arrival) -> Result<(), BrokenFeed> {
        let (stream, index) = (arrival.stream, arrival.index);
        let known = self.streams.get(stream);
        let lane = known.lane();
        if !self.ledger.epochs[known.epoch as usize].open {
            self.adopt(stream, origin.epoch);
            return Ok(());
        }
        if let Some(other) = self.brought_by(stream, index).filter(|&other| other != origin.tranche) {
            return Err(BrokenFeed::StreamInTwoTranches {
                stream: self.streams.text(stream).to_owned(),
                index,
                from: self.ledger.tranches[origin.tranche as usize].id.clone(),
                other: self.ledger.tranches[other as usize].id.clone(),
            });
        }
        if self.is_idle(stream) {
            self.adopt(stream, origin.epoch);
        } else {
            self.lanes[lane].mixed = true;
        }
        Ok(())
    }

    /// Returns the tranche that has brought an index already.
    fn brought_by(&self, stream: u32, index: i64) -> Option<u32> {
        let known = self.streams.get(stream);
        let lane = (known.lane() != NONE).then(|| &self.lanes[known.lane()]);
        if let Some(node) = lane.and_then(|lane| lane.find(&self.nodes, index)) {
            return Some(self.ledger.tranche_of(self.nodes[node].batch));
        }
        match self.freshness(stream, index) {
            Freshness::Fresh => None,
            _ if index >= known.write() => lane.map(|lane| self.in_flight.get(lane.in_flight).tranche),
            _ => Some(self.ledger.epochs[known.epoch as usize].tranche),
        }
    }

    /// Moves a stream to another epoch, and forgets the write position if its old epoch is closed (C7).
    pub(super) fn adopt(&mut self, stream: u32, epoch: u32) {
        let known = self.streams.get_mut(stream);
        let old = std::mem::replace(&mut known.epoch, epoch);
        if !self.ledger.epochs[old as usize].open {
            known.forget();
        }
        self.ledger.epochs[epoch as usize].streams += 1;
        self.ledger.leave_epoch(old);
    }
}
