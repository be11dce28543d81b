//! The contract suites of connectors: every connector of a kind passes its suite.

mod checkpoint;
pub(crate) mod sink;
mod source;
