//! Dirty streams: those that moved since their write positions were last stored (`require_all`).
//!
//! A restart needs their write positions, whatever moved them: a call, a decision without effects, a placeholder, a
//! skip or a park. The store gets them together with the progress that covers them.

use crate::position::{TrancheId, WritePosition};

use super::known::{Busy, Known};
use super::slab::NONE;
use super::{Order, Scheduler};

impl Scheduler {
    pub(super) fn take_dirty_streams_of(&mut self, id: &TrancheId) -> Vec<(Box<str>, WritePosition)> {
        let Some(tranche) = self.ledger.held(id).filter(|_| !self.dirty_streams.is_empty()) else { return Vec::new() };
        let epoch = self.ledger.tranches[tranche as usize].epoch;
        let moved: Vec<u32> = self.dirty_streams.iter().copied().collect();
        let mut positions = Vec::new();
        for stream in moved {
            let known = *self.streams.get(stream);
            let is_gone = known.free || !self.ledger.epochs[known.epoch as usize].open;
            if !is_gone && known.epoch != epoch {
                continue;
            }
            self.dirty_streams.remove(&stream);
            if let Some(position) = (!is_gone).then(|| self.position(&known)).flatten() {
                positions.push((self.streams.text(stream).into(), position));
            }
        }
        positions
    }

    fn position(&self, known: &Known) -> Option<WritePosition> {
        let extras = match known.busy() {
            Busy::Lane(lane) => self.lanes[lane].extras,
            Busy::Nothing | Busy::Singleton { .. } | Busy::SingletonInFlight(_) => NONE,
        };
        let gaps = if extras == NONE { Vec::new() } else { self.lane_extras[extras].gaps.ranges().to_vec() };
        known.position(&gaps)
    }

    pub(super) fn restore_dirty_streams_of(&mut self, id: &TrancheId, positions: &[(Box<str>, WritePosition)]) {
        let Some(tranche) = self.ledger.held(id).filter(|_| self.options.require_all) else { return };
        if self.options.order == Order::Stream {
            let scope = self.scope(tranche);
            let streams =
                positions.iter().filter_map(|(name, _)| self.find(name.as_bytes(), scope)).collect::<Vec<_>>();
            self.dirty_streams.extend(streams);
        }
    }
}
