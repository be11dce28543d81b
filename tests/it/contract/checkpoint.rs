//! Checkpoint stores: what is kept, who may move it; and sinks that hold the progress themselves.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod crash;
mod harness;
mod laws;
mod moved;
mod sqlite_errors;
mod sqlite_sink;
mod store;
mod transaction;
