//! What is tested from outside: one binary, as each one relinks the package.
#![expect(clippy::unwrap_used, reason = "what helpers of tests unwrap fails the test, as in the tests themselves")]

mod cli;
mod contract;
mod daemon;
mod jobs;
mod kill;
mod metrics;
mod mistakes;
mod restarts;
mod serving;
mod shipped;
mod sim;
mod tidy;
mod verbs;
