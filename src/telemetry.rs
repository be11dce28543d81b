//! Everything an operator observes: states and their judgement, logs, metrics, exported traces.

pub mod health;
pub mod logging;
pub mod metrics;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
