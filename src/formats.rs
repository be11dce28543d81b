//! Formats that several connectors read or write.

pub mod jsonlines;
pub mod records;
pub mod map;
pub mod encode;
pub(crate) mod words;
pub(crate) mod diff;
