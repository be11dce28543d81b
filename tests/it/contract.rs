//! What every connector of a kind must do, run against each of them.

mod checkpoint;
pub(crate) mod sink;
mod source;
