//! The daemon: the pipelines that one process runs, and the directory that holds their data.

pub mod data_dir;
pub mod assembly;

use crate::checkpoint::Owner;
use crate::config::document::Problem;

/// Why the daemon did not start.
#[derive(Debug)]
pub enum NotStarted {
    /// The files are wrong.
    Files(Vec<Problem>),
    /// The environment is.
    Environment(anyhow::Error),
}

/// Returns the name of this process as the owner of a pipeline's claims: host, process, pipeline.
fn owner(pipeline: &str) -> Owner {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Owner(format!("{}/{}/{pipeline}", host.trim(), std::process::id()).into())
}
