//! The connectors: everything that reads from, writes to or keeps progress in the outside world.
//!
//! A connector never uses another one; what two share is a leaf module.

pub mod diagnosis;

pub mod file;
pub mod generate;
pub mod http;
pub mod json;
pub mod memory;
pub mod null;
pub mod sqlite;
pub mod stats;
pub mod stdout;

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most events that a `batch` may be set to.
const MAX_BATCH: usize = 1_000_000;

/// A setting that no value of its type makes sense of alone: what `check` finds before anything is built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadSetting {
    /// The keys that lead to it, from the connector's own table on.
    pub path: Vec<String>,
    pub why: String,
    pub help: Option<String>,
}

impl BadSetting {
    pub fn new(path: &[&str], why: impl Into<String>) -> Self {
        Self { path: path.iter().map(|key| (*key).to_owned()).collect(), why: why.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// What a connector is to know of the pipeline that it is built for.
#[derive(Clone, Debug)]
pub struct Context {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The consumer group.
    pub group: Arc<str>,
    /// The folder of the pipeline's file: what a pipeline reads stands beside it.
    pub folder: PathBuf,
    /// The daemon's data directory: what a pipeline writes goes there.
    pub data: PathBuf,
}

impl Context {
    /// Returns where a file that the pipeline reads is.
    pub fn input(&self, path: &str) -> PathBuf {
        self.folder.join(Path::new(path))
    }

    /// Returns where a file that the pipeline writes is.
    pub fn output(&self, path: &str) -> PathBuf {
        self.data.join(Path::new(path))
    }
}
