//! The actions of each target on arbitrary input. A panic or a failed assertion is a finding.
//!
//! The package's own tests include this file and replay the corpus with it.

mod lines;
mod script;
mod spec;

pub use lines::json_lines;
pub use script::script_api;
pub use spec::{spec_toml, spec_yaml};
