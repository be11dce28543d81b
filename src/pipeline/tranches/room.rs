//! The room that each tranche has for reading: credits, within the limits of batches, bytes and events.

use super::{Phase, Tranches};
use crate::position::TrancheId;
use crate::scheduler::TrancheReport;
use crate::source::Room;

/// The number of batches that a reader may read before the driver has received the first. With four, neither waits for the
/// other to wake up.
pub(super) const CREDITS: usize = 4;

/// The limits of reading ahead.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Limits {
    pub(in crate::pipeline) batches: usize,
    /// Over all tranches.
    pub(in crate::pipeline) bytes: usize,
    pub(in crate::pipeline) events: u64,
    /// The size that a set of handled ordinals may have (C14).
    pub(in crate::pipeline) set_bytes: Option<usize>,
    /// Nothing is read behind the tail.
    pub(in crate::pipeline) finite: bool,
}

impl Tranches {
    /// Returns the tranches that had no room for the bytes of all, if these fit again.
    pub(in crate::pipeline) fn take_starved(&mut self, limits: &Limits) -> Vec<TrancheId> {
        if self.starved.is_empty() || self.bytes >= limits.bytes {
            return Vec::new();
        }
        std::mem::take(&mut self.starved).into_iter().collect()
    }

    /// Grants a reader credits as far as the limits allow. `waiting` counts pieces of its work that wait for a retry of their
    /// write: their batches do not count, like those of other waiting events.
    pub(in crate::pipeline) fn grant(
        &mut self,
        tranche: &TrancheId,
        report: &TrancheReport,
        limits: &Limits,
        waiting: usize,
    ) {
        let Some(state) = self.all.get_mut(tranche) else { return };
        if state.phase != Phase::Reading {
            return;
        }
        self.starved.remove(tranche);
        self.bytes = self.bytes - state.bytes + report.bytes;
        state.bytes = report.bytes;
        if state.at_tail && limits.finite {
            return;
        }
        let Some(reader) = &state.reader else { return };
        // The stored set can cover ordinals that are not read yet, and only reading shrinks it. An idle tranche must
        // therefore keep reading.
        let set_bytes = state.claim.set_bytes(report.set_runs);
        let set_fits = limits.set_bytes.is_none_or(|max| set_bytes < max) || report.unhandled == 0;
        let batches = report.batches.saturating_sub(waiting);
        while set_fits
            && report.ahead < limits.events
            && state.credits_out < CREDITS
            && batches + state.credits_out < limits.batches
        {
            let expected = self.bytes + state.credits_out * state.batch_bytes;
            let holds_none = report.batches == 0 && state.credits_out == 0;
            if expected >= limits.bytes && !holds_none {
                self.starved.insert(tranche.clone());
                break;
            }
            let room = Room {
                events: usize::try_from(limits.events - report.ahead).unwrap_or(usize::MAX),
                bytes: limits.bytes.saturating_sub(expected).max(1),
            };
            if reader.credits.try_send(room).is_err() {
                break; // The reader has ended; its last message is on its way.
            }
            state.credits_out += 1;
        }
    }
}
