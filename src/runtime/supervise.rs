//! Tasks with an owner.
//!
//! Each task belongs to a [`Group`]: one group for the daemon, and under it one per pipeline. A task that ends early,
//! returns an error or panics is a [`Failure`] of its group (R29). The tables of [`TaskKind`] give the consequence of a
//! failure and the reaction to a stop. [`Restarts`] gives the delay before a failed pipeline restarts.
//!
//! Absent on purpose: the work of a task, and the handling of a failure. The owner of the group decides on that.

mod group;
mod kind;
mod restarts;

pub use group::{Failure, Group, StillRunning, panic_message, pipeline_span};
pub use kind::{OnError, OnStop, TaskKind};
pub use restarts::Restarts;

#[cfg(test)]
mod tests;
