//! The arguments of `rebuild`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Rebuild the pipeline with this name, or in this file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// Look for the name in this directory; may be repeated [default: pipelines]
    #[arg(long, value_name = "DIR")]
    config: Vec<PathBuf>,
    /// Show the steps, or the reason against them, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Discard a rebuild that was not finished, and start at the origin
    #[arg(long)]
    pub fresh: bool,
    /// Return to the files before the latest rebuild
    #[arg(long, conflicts_with_all = ["fresh", "dry_run"])]
    pub undo: bool,
    /// Accept rebuilt results that lack events or tables of the present ones
    #[arg(long)]
    pub yes: bool,
}

impl RebuildArgs {
    pub(super) const HELP: &str = "Example: propulsiond rebuild orders --dry-run\n\
        Exit status: 0 the files are exchanged, 1 the rebuild failed or would lose something, 2 the pipeline cannot be \
        rebuilt, 3 the feed is missing, or the daemon uses the files and cannot be asked";

    /// Returns the directories in which the name is looked for.
    pub fn directories(&self) -> Vec<PathBuf> {
        super::or_default(self.config.clone())
    }
}
