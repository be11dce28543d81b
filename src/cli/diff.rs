//! The arguments of `diff`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Compare the handler of the pipeline with this name, or in this file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Compare with the handler of this pipeline file, or with this script
    #[arg(long, value_name = "FILE")]
    pub against: PathBuf,
    /// Compare over this number of events, the last ones of the source
    #[arg(long, value_name = "N", default_value = "1000")]
    pub last: NonZeroUsize,
    /// Look for the name in this directory; may be repeated [default: pipelines]
    #[arg(long, value_name = "DIR")]
    config: Vec<PathBuf>,
}

impl DiffArgs {
    pub(super) const HELP: &str = "Example: propulsiond diff orders --against drafts/orders.rhai --last 5000\n\
        Exit status: 0 the effects are equal, 1 they differ, 2 a file is wrong, 3 the source cannot be read";

    /// Returns the directories in which the name is looked for.
    pub fn directories(&self) -> Vec<PathBuf> {
        super::or_default(self.config.clone())
    }
}
