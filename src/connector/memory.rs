//! Memory: events that are pushed in, and progress that ends with the process.

pub mod source;
pub mod store;
