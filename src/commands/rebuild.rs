//! `rebuild`: makes the results of a pipeline again from the origin of its source, beside the present ones.
//!
//! A rebuild is a finite job of the same pipeline in a data directory of its own: the same group, the same statements, and
//! no progress. The daemon may run meanwhile, because it locks another data directory. [`Plan`] decides whether a pipeline
//! can be rebuilt, [`Work`] owns the directory of the rebuild, and `app::rebuild` runs the job and exchanges the files.

mod refusals;
mod report;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::document::Problem;
use crate::daemon::NotStarted;
use crate::daemon::assembly::config_hash;
use crate::daemon::data_dir::{self, DataDir};
use crate::daemon::exchange::{self, Direction, Exchange, Workspace, context, disk_usage, own_files};
use crate::formats::words::io_error;
use crate::spec::{self, Checked, Definition, Progress};

pub(crate) use report::{FileSizes, Outcome};

/// The reason why a rebuild did not happen.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The files are wrong, or the pipeline cannot be rebuilt.
    Files(Vec<Problem>),
    /// The environment is wrong: the feed is missing, the data directory is in use.
    Environment(anyhow::Error),
    /// The new files would lack something that the present ones have, or there is nothing to return to.
    Failed(String),
}

impl From<NotStarted> for Refused {
    fn from(error: NotStarted) -> Self {
        match error {
            NotStarted::Files(problems) => Self::Files(problems),
            NotStarted::Environment(error) => Self::Environment(error),
        }
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Environment(error)
    }
}

/// The steps of a rebuild, and the facts that they depend on.
pub(crate) struct Plan {
    pub checked: Checked,
    pub data: PathBuf,
    pub workspace: Workspace,
    /// The process that uses the data directory, such as `process 17`.
    pub holder: Option<String>,
    pub earlier: Earlier,
    is_fresh: bool,
    /// The files to exchange, relative to the data directory.
    files: Vec<PathBuf>,
}

/// An earlier rebuild that was not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Absent,
    /// It is of the same definition and is resumed.
    Resumed,
    /// It is of another definition of the pipeline and is discarded.
    Outdated,
    /// The operator discards it.
    Unwanted,
}

impl Plan {
    /// Decides whether the pipeline of a file can be rebuilt. `files`: all pipeline files of the daemon. `is_fresh`: an earlier
    /// rebuild is discarded.
    ///
    /// # Errors
    /// It cannot be rebuilt.
    pub(crate) fn new(data: &Path, file: &Path, files: &[PathBuf], is_fresh: bool) -> Result<Self, Refused> {
        let loaded = spec::load_file(file).map_err(Refused::Files)?;
        let mut outcome = spec::check(vec![loaded], data).map_err(Refused::Files)?;
        let checked = outcome.checked.pop().context("the pipeline has no known script")?;
        let definition = &checked.definition;
        refusals::of_kind(definition, data).map_err(|problem| Refused::Files(vec![problem]))?;
        refusals::of_sharing(definition, files, data).map_err(Refused::Files)?;
        let workspace = Workspace::new(data, definition.name());
        let holder = holder(data)?;
        let files = own_files(definition, data);
        let earlier = Earlier::find(&workspace, &checked, is_fresh);
        Ok(Self { data: data.to_owned(), workspace, holder, earlier, is_fresh, files, checked })
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.checked.definition
    }

    /// Returns the pipeline's file.
    pub(crate) fn file(&self) -> &Path {
        self.definition().loaded.file()
    }

    /// Checks that the events which the present results are made of can be read again. `accepts_loss`: it does not matter if
    /// some cannot.
    ///
    /// # Errors
    /// The feed is missing, or was read in a part that does not exist any more.
    pub(crate) fn check_feed(&self, accepts_loss: bool) -> Result<(), Refused> {
        refusals::of_feed(self.definition(), &self.data, accepts_loss)
    }

    /// Creates and locks the directory of the rebuild.
    ///
    /// # Errors
    /// It cannot be created, another process uses it, or its files could not take the place of the present ones.
    pub(crate) fn open(mut self) -> anyhow::Result<Work> {
        std::fs::create_dir_all(&self.data).map_err(|error| {
            anyhow::anyhow!("cannot create the data directory `{}`: {}", self.data.display(), io_error(&error))
        })?;
        let lock = DataDir::lock(self.workspace.root()).context("cannot begin the rebuild")?;
        // Another rebuild may have ended between the plan and the lock.
        self.earlier = Earlier::find(&self.workspace, &self.checked, self.is_fresh);
        let made = exchange::metadata(self.workspace.root())?;
        for file in &self.files {
            let present = self.data.join(file);
            if let (Some(old), Some(made)) = (exchange::metadata(&present)?, &made) {
                exchange::fits(&present, &old, made)?;
            }
        }
        Ok(Work { plan: self, _lock: lock })
    }
}

impl Earlier {
    fn find(workspace: &Workspace, checked: &Checked, is_fresh: bool) -> Self {
        if !workspace.rebuilt().exists() {
            return Self::Absent;
        }
        if is_fresh {
            return Self::Unwanted;
        }
        // An unreadable hash is another one: the rebuild starts over.
        let made_by = std::fs::read_to_string(workspace.definition()).unwrap_or_default();
        if made_by == config_hash(checked) { Self::Resumed } else { Self::Outdated }
    }
}

/// A rebuild whose directory is locked.
pub(crate) struct Work {
    pub plan: Plan,
    _lock: DataDir,
}

impl Work {
    /// Prepares the data directory of the job, and returns it.
    ///
    /// # Errors
    /// An earlier rebuild cannot be removed, or the directory cannot be written.
    pub(crate) fn prepare(&self) -> anyhow::Result<PathBuf> {
        let Plan { workspace, earlier, checked, .. } = &self.plan;
        let rebuilt = workspace.rebuilt();
        if *earlier != Earlier::Resumed {
            exchange::remove_directory(&rebuilt)?;
            // Before the job begins, so that its files are never taken for those of another definition.
            std::fs::write(workspace.definition(), config_hash(checked))
                .with_context(|| format!("cannot write `{}`", workspace.definition().display()))?;
        }
        Ok(rebuilt)
    }

    /// Completes an exchange that was interrupted. No daemon may use the data directory.
    ///
    /// # Errors
    /// The data directory is in use, or a file cannot be renamed.
    pub(crate) fn complete(&self) -> anyhow::Result<()> {
        let _lock = DataDir::lock(&self.plan.data)?;
        exchange::complete(self.plan.definition(), &self.plan.data).map(drop)
    }

    /// Checks that the rebuilt results have everything that the present ones have.
    ///
    /// # Errors
    /// They lack something, or cannot be read.
    pub(crate) fn check_results(&self) -> Result<(), Refused> {
        let Plan { data, workspace, .. } = &self.plan;
        let definition = self.plan.definition();
        let Progress::Sink(sink) = &definition.progress else { return Ok(()) };
        let missing = sink.missing(&context(definition, data), &context(definition, &workspace.rebuilt()))?;
        refusals::of_missing(&missing, definition, &workspace.rebuilt()).map_err(Refused::Failed)
    }

    /// Prepares the return to the files before the latest exchange.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn prepare_undo(&self) -> Result<(), Refused> {
        let workspace = &self.plan.workspace;
        let former = workspace.former();
        if !former.is_dir() {
            let why = format!("there is nothing to return to: `{}` does not exist", former.display());
            return Err(Refused::Failed(why));
        }
        // The present files take the place of the rebuild. They also have the events that the daemon has handled since,
        // perhaps by other definitions, so that no rebuild may resume from them.
        Ok(exchange::remove_file(&workspace.definition())?)
    }

    /// Returns the process that uses the data directory now.
    ///
    /// # Errors
    /// The lock file cannot be read.
    pub(crate) fn holder(&self) -> anyhow::Result<Option<String>> {
        holder(&self.plan.data)
    }

    /// Exchanges the files. No daemon may use the data directory.
    ///
    /// # Errors
    /// The data directory is in use, or the files cannot be exchanged.
    pub(crate) fn exchange(&self, direction: Direction) -> anyhow::Result<()> {
        let _lock = DataDir::lock(&self.plan.data)?;
        self.of(direction).perform()
    }

    /// Declares the exchange, which the next start of the pipeline performs.
    ///
    /// # Errors
    /// The files do not fit each other, or the intent cannot be written.
    pub(crate) fn declare(&self, direction: Direction) -> anyhow::Result<()> {
        self.of(direction).declare().map(drop)
    }

    fn of(&self, direction: Direction) -> Exchange<'_> {
        Exchange::new(self.plan.definition(), &self.plan.data, &self.plan.workspace, direction)
    }

    /// Returns the files to exchange, with their present sizes.
    pub(crate) fn sizes(&self) -> Vec<(PathBuf, u64)> {
        let size = |file: &PathBuf| (self.plan.data.join(file), disk_usage(&self.plan.data.join(file)));
        self.plan.files.iter().map(size).collect()
    }
}

fn holder(data: &Path) -> anyhow::Result<Option<String>> {
    data_dir::holder(data)
        .with_context(|| format!("cannot find out which process uses the data directory `{}`", data.display()))
}
