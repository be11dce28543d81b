//! What the driver knows of each tranche beside what the scheduler holds of it.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::commit::Step;
use crate::checkpoint::{CheckpointKey, Fence};
use crate::clock::Timestamp;
use crate::position::{Position, Progress, TrancheId};
use crate::source::Lag;

/// One tranche that this process may read.
#[derive(Debug)]
pub(super) struct Tranche {
    pub(super) key: CheckpointKey,
    /// The number of the assignment.
    pub(super) epoch: u64,
    /// Where it begins if nothing was ever committed.
    pub(super) origin: Option<Position>,
    pub(super) phase: Phase,
    pub(super) claim: Claim,
    pub(super) credits_out: usize,
    pub(super) at_tail: bool,
    pub(super) lag: Option<Lag>,
    /// Up to where it is read.
    pub(super) read: Option<Position>,
    /// Failures of its claim in a row.
    pub(super) failures: u32,
    /// Why it cannot be read at the moment, and since when.
    pub(super) trouble: Option<(String, Timestamp)>,
}

/// Where a tranche is in its life here.
#[derive(Debug)]
pub(super) enum Phase {
    /// The claim is under way, or failed and is tried again at that time.
    Claiming {
        retry_at: Option<Timestamp>,
    },
    Reading {
        opening: u64,
        credits: mpsc::Sender<crate::source::Room>,
    },
    /// Closed: no event will ever follow.
    Ended,
    /// Somebody else is to have it: what runs is finished and committed first.
    Leaving {
        deadline: Timestamp,
    },
}

/// The chain of commits (C11).
#[derive(Debug, Default)]
pub(super) struct Claim {
    pub(super) fence: Option<Fence>,
    /// The number of the last commit that is stored.
    pub(super) sequence: u64,
    /// What is stored, and the scheduler's version of it.
    pub(super) committed: Option<Progress>,
    pub(super) version: u64,
    pub(super) committed_at: Option<Timestamp>,
    /// A commit of which it is not known whether it happened: it is made again as it was before another follows it.
    pub(super) unsure: Option<Step>,
    /// Bytes that a run of the set took when last encoded, times 16.
    pub(super) run_size: usize,
}

impl Tranche {
    pub(super) fn new(key: CheckpointKey, origin: Option<Position>, epoch: u64) -> Self {
        Self {
            key,
            epoch,
            origin,
            phase: Phase::Claiming { retry_at: None },
            claim: Claim::default(),
            credits_out: 0,
            at_tail: false,
            lag: None,
            read: None,
            failures: 0,
            trouble: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Reading { .. } | Phase::Ended | Phase::Leaving { .. })
    }

    /// Returns whether nothing more is to be read of it in a run that ends at the tail.
    pub(super) fn is_read_to_its_end(&self) -> bool {
        matches!(self.phase, Phase::Ended) || (self.at_tail && matches!(self.phase, Phase::Reading { .. }))
    }
}

/// By name, so that everything that walks them does so in the same order each time.
pub(super) type Tranches = BTreeMap<TrancheId, Tranche>;

impl Tranche {
    /// Returns when something is due for it by the mere passing of time.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Claiming { retry_at } => *retry_at,
            Phase::Leaving { deadline } => Some(*deadline),
            Phase::Reading { .. } | Phase::Ended => None,
        }
    }
}
