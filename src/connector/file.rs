//! Files: a sink of lines, and a checkpoint store with one JSON file per tranche.

pub mod sink;
pub mod store;
