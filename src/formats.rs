//! Formats that several connectors read or write.

pub mod jsonlines;
pub mod encode;
pub(crate) mod words;
