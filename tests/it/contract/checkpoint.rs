//! The contracts of checkpoint stores, and of sinks that hold the progress.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod crash;
mod harness;
mod laws;
mod moved;
mod parked;
mod sqlite_errors;
mod sqlite_sink;
mod store;
mod transaction;
