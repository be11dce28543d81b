//! Traces: the W3C context that events carry, and the spans that tell what became of them.
//!
//! Without a [`Recorder`], which the daemon makes only where traces are exported, there are no spans: a piece of work has an
//! empty place for one. With it, what is sampled carries a [`Traced`] along, and each part that works on it records spans
//! below that. Recording never waits: what the queue has no room for is dropped and counted.

mod propagation;
mod context;
mod recorder;
mod span;

pub use context::Context;
pub use propagation::Propagation;
pub use recorder::Recorder;
pub use span::{Attribute, Kind, Open, Parent, Span, Traced};
