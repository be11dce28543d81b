//! Files: a sink of JSON lines, and a checkpoint store of one JSON file per tranche.

pub mod sink;
pub mod store;
