//! The states of a pipeline, and their summary for `/health` and `/readyz`.
//!
//! * [`State`]: the life of a pipeline. Every [`Command`] is legal in every state (R58); [`State::after`] holds the table.
//! * [`PipelineStatus`]: the facts of one pipeline, each with the time since which it holds.
//! * [`judge`]: derives the answers of `/health` and `/readyz` (R66).
//!
//! The caller of [`judge`] passes the time. It is compared with times that the pipeline noted itself (R67), so a driver
//! that hangs cannot look healthy.

mod judge;
mod state;

pub use judge::{Health, Judgement, Limits, Outage, PipelineHealth, PipelineStatus, RefusedFile, judge};
pub use state::{Command, State, Transition};
