//! The tests from outside. They are one binary, because each binary links the package again.
#![expect(clippy::unwrap_used, reason = "what helpers of tests unwrap fails the test, as in the tests themselves")]

mod after;
mod broken;
mod by_event;
mod causes;
mod checkpoints;
mod cli;
mod commands;
mod contract;
mod corpus;
mod daemon;
mod diff;
mod deploy;
mod docs;
mod doctor;
mod failures;
mod foreign;
mod handler_tests;
mod hangs;
mod jobs;
mod kill;
mod measure;
mod parked;
mod metrics;
mod readme;
mod rebuild;
mod renamed;
mod reload;
mod restarts;
mod samples;
mod scaffold;
mod secrets;
mod serving;
mod shipped;
mod sim;
mod soak;
mod tidy;
mod tools;
#[cfg(feature = "otlp")]
mod traces;
mod tutorial;
mod upcast;
