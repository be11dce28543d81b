//! The daemon: the pipelines of one process, and the directory that holds their data.
//!
//! [`assembly`] makes a pipeline from its file. A [`keeper`] owns it from then on, and [`registry`] lists all of them for the
//! API, the statistics and the progress display. [`reload`] applies changed files. [`exchange`] puts the files of a rebuild in
//! the place of the present ones. [`apart`] reads a pipeline's source apart from the running pipeline, and
//! [`effects`] compares two handlers over its events.

pub(crate) mod data_dir;
pub(crate) mod exchange;
pub(crate) mod apart;
pub(crate) mod effects;
pub(crate) mod assembly;
pub(crate) mod keeper;
pub(crate) mod parked;
pub(crate) mod registry;
pub(crate) mod reload;

use crate::checkpoint::Owner;
use crate::config::document::Problem;

/// The reason why the daemon did not start.
#[derive(Debug)]
pub enum NotStarted {
    /// The pipeline files are wrong.
    Files(Vec<Problem>),
    /// The environment is wrong: a port, the data directory.
    Environment(anyhow::Error),
}

/// Returns the owner of a pipeline's claims: host, process and pipeline.
fn owner(pipeline: &str) -> Owner {
    // A container may hide the file. The process and the pipeline still name the owner within the host.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Owner(format!("{}/{}/{pipeline}", host.trim(), std::process::id()).into())
}
