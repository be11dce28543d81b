//! One running pipeline: a source read tranche by tranche, a scheduler, a handler, a sink, and the progress.
//!
//! A driver owns the scheduler and the parts that change. Tasks around it wait for readers, handlers, sinks and stores, and
//! send it messages; it never waits for them (C25). A part is a plain struct: inputs and the time go in, actions come out.
//! [`Pipeline::run`] builds the parts, drives them, and restarts after a failure with a growing delay (R36).
//!
//! Every task logs in the pipeline's span. A line about one tranche names it: by the span of its reader, or by a field.

mod policy;
mod rate;
mod view;
mod after;
mod options;
mod messages;
mod breaker;
mod reader;
mod watch;
mod workers;
mod tranches;
mod calls;
mod writes;
mod set_room;
mod commits;
mod transaction;
mod parked;
mod parked_lane;
mod failures;
mod drain;
mod spans;
pub mod counts;
mod handle;
mod driver;
mod lifecycle;
pub mod stats;

pub use after::{Leaders, Links};
pub use drain::Ended;
pub use handle::{Handle, Listener};
pub use lifecycle::Pipeline;
pub use options::{Assemble, Identity, Options, Parts, Stop};
pub use policy::{ErrorPolicy, OutageRule, ParkLimits, Then};
pub use rate::Rate;
pub use view::{Standing, StreamFailure, TrancheView, View};

#[cfg(test)]
mod tests;
