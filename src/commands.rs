//! The commands of the program, apart from the daemon itself. They take plain arguments, and none uses another one.

pub(crate) mod schema;
pub(crate) mod explain;
pub mod handler_tests;
pub(crate) mod doctor;
pub(crate) mod rebuild;
pub(crate) mod scaffold;
pub(crate) mod map;
pub(crate) mod parked;
pub(crate) mod list;
pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod checkpoint;
pub(crate) mod status;
pub(crate) mod diff;
