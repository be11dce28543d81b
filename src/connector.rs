//! The connectors: everything that reads from, writes to or keeps progress in the outside world.
//!
//! A connector never uses another one; what two share is a leaf module.

pub mod checkpoint_file;
pub mod checkpoint_memory;
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
