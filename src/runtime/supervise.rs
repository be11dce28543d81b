//! Tasks with an owner.
//!
//! Everything that runs beside something else belongs to a [`Group`]: one for the daemon, under it one per pipeline.
//! A task that ends before it should, errs or panics is a [`Failure`] of its group, never a silence (R29); what it means
//! and what becomes of the task on a stop is said once, in the tables of [`TaskKind`]. [`Restarts`] says when a failed
//! pipeline is started again.
//!
//! Absent on purpose: what a task does, and what is done about a failure. The owner of the group decides that.

mod group;
mod kind;
mod restarts;

pub use group::{Failure, Group, StillRunning, panic_message, pipeline_span};
pub use kind::{OnError, OnStop, TaskKind};
pub use restarts::Restarts;

#[cfg(test)]
mod tests;
