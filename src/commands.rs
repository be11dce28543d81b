//! The commands of the program, apart from the daemon itself. No command uses another one.

pub mod schema;
pub mod explain;
pub mod handler_tests;
pub mod doctor;
pub mod scaffold;
