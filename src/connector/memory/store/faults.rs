//! What goes wrong on request.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::checkpoint::CheckpointKey;
use crate::handler::HandlerErrorKind;
use crate::sink::Decided;

/// What is about to be done.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    Load(&'a CheckpointKey),
    Claim(&'a CheckpointKey),
    Commit(&'a CheckpointKey),
    Release(&'a CheckpointKey),
    WritePositions(&'a CheckpointKey),
    /// Of any of the parked store's.
    Parked(&'a CheckpointKey),
    /// One decision of a write.
    Write(&'a Decided),
    Begin,
    /// A transaction of a [`MemorySink`](super::MemorySink), or the one that holds a plain write.
    Transaction,
}

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails as unavailable, and nothing is done.
    Reject,
    /// A decision fails like this, and nothing of it is written. For [`Operation::Write`].
    Refuse(HandlerErrorKind),
    /// It is done, and reported as failed: as an unknown outcome where that may be said (C11).
    FailAfterWrite,
    /// Nothing is done, and the outcome is reported as unknown.
    UnknownBeforeWrite,
    /// It waits until [`release_held`](super::MemoryCheckpoints::release_held), then goes on as if nothing had been.
    Hold,
    /// It takes this long (of tokio's time, which a test may pause).
    Slow(Duration),
}

type Decide = Box<dyn FnMut(&Operation<'_>) -> Option<Fault> + Send>;

pub(super) struct Faults {
    decide: Mutex<Option<Decide>>,
    /// Counts how often what is held was released.
    releases: watch::Sender<u64>,
}

/// What is left to be done once an operation has waited its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Reject,
    FailAfterwards,
    Unknown,
}

impl Default for Faults {
    fn default() -> Self {
        Self { decide: Mutex::new(None), releases: watch::Sender::new(0) }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

impl Faults {
    pub(super) fn inject(&self, decide: impl FnMut(&Operation<'_>) -> Option<Fault> + Send + 'static) {
        *self.decide.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(decide));
    }

    pub(super) fn release_held(&self) {
        self.releases.send_modify(|releases| *releases += 1);
    }

    /// Returns what is to go wrong with an operation.
    pub(super) fn decide(&self, operation: &Operation<'_>) -> Option<Fault> {
        let mut decide = self.decide.lock().unwrap_or_else(PoisonError::into_inner);
        decide.as_mut().and_then(|decide| decide(operation))
    }

    /// Waits as long as a fault says, and returns what else it says.
    pub(super) async fn due(&self, operation: &Operation<'_>) -> Verdict {
        let Some(fault) = self.decide(operation) else { return Verdict::Go };
        match fault {
            Fault::Reject | Fault::Refuse(_) => Verdict::Reject,
            Fault::FailAfterWrite => Verdict::FailAfterwards,
            Fault::UnknownBeforeWrite => Verdict::Unknown,
            Fault::Hold => {
                let mut releases = self.releases.subscribe();
                // The sender lives as long as this.
                drop(releases.changed().await);
                Verdict::Go
            }
            Fault::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Verdict::Go
            }
        }
    }
}
