//! What each target does with an input, whatever its bytes are. A panic is a finding, and so is what is asserted.
//!
//! The package's own tests include this file and replay the corpus with it.

mod lines;
mod script;
mod spec;

pub use lines::json_lines;
pub use script::script_api;
pub use spec::{spec_toml, spec_yaml};
