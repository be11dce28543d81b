//! Faults that tests and simulations inject.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::checkpoint::CheckpointKey;
use crate::handler::HandlerErrorKind;
use crate::sink::Decided;

/// An operation that is about to run.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    Load(&'a CheckpointKey),
    Claim(&'a CheckpointKey),
    Commit(&'a CheckpointKey),
    Release(&'a CheckpointKey),
    WritePositions(&'a CheckpointKey),
    /// An operation of the parked store on one tranche.
    Parked(&'a CheckpointKey),
    /// An operator's operation on the parked streams of a group and source.
    ParkedOf(&'a str, &'a str),
    /// One decision of a write.
    Write(&'a Decided),
    Begin,
    /// The commit of a transaction of a [`MemorySink`](super::MemorySink), or of a plain write.
    Transaction,
}

/// A fault of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails as unavailable and changes nothing.
    Reject,
    /// A decision fails with this kind and writes nothing. For [`Operation::Write`].
    Refuse(HandlerErrorKind),
    /// The operation succeeds and reports a failure: an unknown outcome where the trait knows one (C11).
    FailAfterWrite,
    /// The operation changes nothing and reports an unknown outcome.
    UnknownBeforeWrite,
    /// The operation waits until [`release_held`](super::MemoryCheckpoints::release_held), then succeeds.
    Hold,
    /// The operation takes this long, in tokio's time, which a test may pause.
    Slow(Duration),
}

type Decide = Box<dyn FnMut(&Operation<'_>) -> Option<Fault> + Send>;

/// The chooser of faults, and the operations that it holds.
pub(super) struct Faults {
    decide: Mutex<Option<Decide>>,
    /// The number of releases of held operations so far.
    releases: watch::Sender<u64>,
}

/// The rest of a fault, after its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InjectedFault {
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

    /// Returns the fault of an operation.
    pub(super) fn decide(&self, operation: &Operation<'_>) -> Option<Fault> {
        let mut decide = self.decide.lock().unwrap_or_else(PoisonError::into_inner);
        decide.as_mut().and_then(|decide| decide(operation))
    }

    /// Waits as the operation's fault requires, and returns the rest of the fault.
    pub(super) async fn due(&self, operation: &Operation<'_>) -> InjectedFault {
        let Some(fault) = self.decide(operation) else { return InjectedFault::Go };
        match fault {
            Fault::Reject | Fault::Refuse(_) => InjectedFault::Reject,
            Fault::FailAfterWrite => InjectedFault::FailAfterwards,
            Fault::UnknownBeforeWrite => InjectedFault::Unknown,
            Fault::Hold => {
                let mut releases = self.releases.subscribe();
                // The sender is a field of `self`, so that it cannot close before this returns.
                drop(releases.changed().await);
                InjectedFault::Go
            }
            Fault::Slow(delay) => {
                tokio::time::sleep(delay).await;
                InjectedFault::Go
            }
        }
    }
}
