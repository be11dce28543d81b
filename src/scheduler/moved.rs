//! Which streams have moved since a store was last told (`require_all`).
//!
//! Where a stream is offered only from where it is handled on, that must be known after a restart, whatever moved it: a call,
//! a decision without effects, a placeholder, a skip or a park. It is told together with the progress that covers it.

use crate::position::{TrancheId, WritePosition};

use super::known::{Busy, Known};
use super::slab::NONE;
use super::{Order, Scheduler};

impl Scheduler {
    pub(super) fn take_moved_of(&mut self, id: &TrancheId) -> Vec<(Box<str>, WritePosition)> {
        let Some(tranche) = self.ledger.held(id).filter(|_| !self.moved.is_empty()) else { return Vec::new() };
        let epoch = self.ledger.tranches[tranche as usize].epoch;
        let moved: Vec<u32> = self.moved.iter().copied().collect();
        let mut positions = Vec::new();
        for stream in moved {
            let known = *self.streams.get(stream);
            let is_gone = known.free || !self.ledger.epochs[known.epoch as usize].open;
            if !is_gone && known.epoch != epoch {
                continue;
            }
            self.moved.remove(&stream);
            if let Some(position) = (!is_gone).then(|| self.position(&known)).flatten() {
                positions.push((self.streams.text(stream).into(), position));
            }
        }
        positions
    }

    fn position(&self, known: &Known) -> Option<WritePosition> {
        let aside = match known.busy() {
            Busy::Lane(lane) => self.lanes[lane].aside,
            Busy::Nothing | Busy::Lone { .. } | Busy::LoneOut(_) => NONE,
        };
        let gaps = if aside == NONE { Vec::new() } else { self.asides[aside].gaps.ranges().to_vec() };
        known.position(&gaps)
    }

    pub(super) fn untake_moved_of(&mut self, id: &TrancheId, positions: &[(Box<str>, WritePosition)]) {
        let Some(tranche) = self.ledger.held(id).filter(|_| self.options.require_all) else { return };
        if self.options.order == Order::Stream {
            let scope = self.scope(tranche);
            let streams =
                positions.iter().filter_map(|(name, _)| self.find(name.as_bytes(), scope)).collect::<Vec<_>>();
            self.moved.extend(streams);
        }
    }
}
