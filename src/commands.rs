//! The commands of the program, apart from the daemon itself. They take plain arguments, and none uses another one.

pub mod schema;
pub mod explain;
pub mod handler_tests;
pub mod doctor;
pub mod scaffold;
pub mod health;
