//! What is tested from outside: one binary, as each one relinks the package.
#![expect(clippy::unwrap_used, reason = "what helpers of tests unwrap fails the test, as in the tests themselves")]

mod cli;
mod contract;
mod corpus;
mod daemon;
mod deploy;
mod doctor;
mod handler_tests;
mod jobs;
mod kill;
mod measure;
mod metrics;
mod mistakes;
mod readme;
mod renamed;
mod restarts;
mod samples;
mod scaffold;
mod serving;
mod shipped;
mod sim;
mod tidy;
mod tools;
#[cfg(feature = "otlp")]
mod traces;
mod verbs;
