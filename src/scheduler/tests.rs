//! The scheduler as its caller sees it: a script goes in, a list of actions comes out.

mod audit;
mod covered;
mod faults;
mod invariants;
mod kept;
mod orders;
mod parking;
mod progress;
mod reports;
mod script;
mod sparse;
mod spans;
mod streams;
mod assignment;
mod walk;
