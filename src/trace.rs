//! Traces: the W3C context that events carry, and the spans of the work on them.
//!
//! The daemon makes a [`Recorder`] only if it exports traces. Without a recorder there are no spans, and a piece of
//! work has an empty place for one. With a recorder, sampled work carries a [`Traced`], and each part that works on it
//! records spans below that. Recording never waits: a span that finds no room in the queue is dropped and counted.

mod propagation;
mod context;
mod recorder;
mod span;

pub use context::Context;
pub use propagation::Propagation;
pub use recorder::Recorder;
pub use span::{Attribute, Kind, Open, Parent, Span, Traced};
