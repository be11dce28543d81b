//! What state a pipeline is in, and what all of that means for who watches the daemon.
//!
//! * [`State`]: the life of a pipeline. Every [`Verb`] is legal in every state (R58); [`State::after`] says what it does.
//! * [`PipelineStatus`]: the facts of one pipeline, each with the moment since when it is one.
//! * [`judge`]: makes `/health` and `/readyz` of them (R66).
//!
//! Who asks passes the time in and compares it with moments that the pipeline noted (R67): a loop that stands still
//! cannot make itself look well, because it would have to answer to do so.

mod judge;
mod state;

pub use judge::{Health, Judgement, Limits, Outage, PipelineStatus, Verdict, judge};
pub use state::{Effect, State, Verb};
