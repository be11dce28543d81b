//! Memory: a source of pushed events, and a store and a sink whose contents end with the process.

pub mod source;
pub mod store;
