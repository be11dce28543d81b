//! The exchange of a pipeline's files for those that a rebuild made beside them.
//!
//! A rebuild has a directory of its own, `DATA/rebuild/PIPELINE`:
//!
//! | name | contents |
//! |---|---|
//! | `new/` | the data directory of the rebuild |
//! | `old/` | the files before the latest exchange |
//! | `definition` | the hash of the definition that `new/` is made by |
//! | `exchange` | the [`Intent`] of a declared exchange |
//!
//! An exchange takes several renames, and a crash can come between any two of them. A database and a registry of different
//! runs do not fit together: the same number can denote two files. Therefore `exchange` is durable before the first rename.
//! The next start of the pipeline, or the next run of the command, performs the remaining renames before it opens a file. So
//! no pipeline runs between two renames, and their order does not matter.
//!
//! The command performs an exchange itself if no daemon uses the data directory. If one does, the command declares the
//! intent and has the daemon restart the pipeline. A start that cannot rename any file withdraws the intent: the pipeline
//! goes on with the present files.

mod files;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::connector::{self, Context};
use crate::runtime::blocking;
use crate::spec::{Definition, Progress};

use files::{adapt, move_away, replace};
pub(crate) use files::{disk_usage, fits, metadata, remove_directory, remove_file};

/// The directory of the rebuilds in a data directory.
const REBUILDS: &str = "rebuild";
/// The time for the files of the latest run to be closed before an exchange.
const FILES_TO_CLOSE: Duration = Duration::from_secs(10);

/// The directory of a pipeline's rebuilds.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

/// The files that come into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Direction {
    /// The rebuilt files; the present ones are kept in `old/`.
    #[serde(rename = "new")]
    Rebuilt,
    /// The files before the latest exchange; the present ones are kept in `new/`.
    #[serde(rename = "old")]
    Former,
}

/// A declared exchange. It does not depend on the pipeline's definition, which can change before the completion.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Intent {
    /// The directory whose files come into use.
    pub direction: Direction,
    files: Vec<IntendedFile>,
}

/// A file or directory of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct IntendedFile {
    /// The path relative to the data directory.
    path: PathBuf,
    /// Another file replaces it. If not, the present one is moved away, because there was none on the other side.
    is_replaced: bool,
}

impl Direction {
    /// Returns the name of the directory whose files come into use.
    fn name(self) -> &'static str {
        match self {
            Self::Rebuilt => "new",
            Self::Former => "old",
        }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Rebuilt => Self::Former,
            Self::Former => Self::Rebuilt,
        }
    }
}

impl Workspace {
    pub(crate) fn new(data: &Path, pipeline: &str) -> Self {
        Self { root: data.join(REBUILDS).join(pipeline) }
    }

    /// Returns the workspaces in a data directory, each with the name of its pipeline.
    pub(crate) fn all(data: &Path) -> Vec<(String, Self)> {
        let entries = fs::read_dir(data.join(REBUILDS)).into_iter().flatten().flatten();
        let mut all: Vec<_> = entries
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, Self { root: entry.path() })))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the data directory of the rebuild.
    pub(crate) fn rebuilt(&self) -> PathBuf {
        self.directory(Direction::Rebuilt)
    }

    /// Returns the directory of the files before the latest exchange.
    pub(crate) fn former(&self) -> PathBuf {
        self.directory(Direction::Former)
    }

    /// Returns the directory whose files come into use.
    pub(crate) fn directory(&self, direction: Direction) -> PathBuf {
        self.root.join(direction.name())
    }

    /// Returns the file with the hash of the definition.
    pub(crate) fn definition(&self) -> PathBuf {
        self.root.join("definition")
    }

    fn intent(&self) -> PathBuf {
        self.root.join("exchange")
    }

    /// Returns the exchange that was interrupted, if there is one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn interrupted(&self) -> anyhow::Result<Option<Intent>> {
        let path = self.intent();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("cannot parse `{}`", path.display()))
    }

    /// Makes an intent durable.
    fn declare(&self, intent: &Intent) -> io::Result<()> {
        // A rename makes it appear as a whole or not at all.
        let draft = self.root.join("exchange.tmp");
        let mut file = File::create(&draft)?;
        serde_json::to_writer(&mut file, intent)?;
        file.sync_all()?;
        fs::rename(&draft, self.intent())?;
        File::open(&self.root)?.sync_all()
    }

    /// Performs an exchange, or the rest that earlier attempts left of it. `before` runs before each change, and can stop it.
    fn rename(&self, data: &Path, intent: &Intent, before: &mut dyn FnMut() -> io::Result<()>) -> anyhow::Result<()> {
        let (new, kept) = (self.directory(intent.direction), self.directory(intent.direction.opposite()));
        for IntendedFile { path, is_replaced } in &intent.files {
            let (present, new, kept) = (data.join(path), new.join(path), kept.join(path));
            let exchanged = match is_replaced {
                true => replace(&present, &new, &kept, before),
                false => move_away(&present, &kept, before),
            };
            exchanged.with_context(|| format!("cannot exchange `{}` for `{}`", present.display(), new.display()))?;
        }
        Ok(())
    }

    /// Returns whether a file of an exchange is in another place already.
    fn has_begun(&self, data: &Path, intent: &Intent) -> bool {
        let (new, kept) = (self.directory(intent.direction), self.directory(intent.direction.opposite()));
        intent.files.iter().any(|IntendedFile { path, is_replaced }| {
            // A second name of the present file changes nothing yet.
            let is_away = kept.join(path).exists() && !data.join(path).exists();
            is_away || *is_replaced && !new.join(path).exists()
        })
    }

    /// Returns whether the files of an exchange are in use: its end removes their directory.
    ///
    /// # Errors
    /// The intent cannot be read.
    pub(crate) fn has_ended(&self, direction: Direction) -> anyhow::Result<bool> {
        Ok(self.interrupted()?.is_none() && !self.directory(direction).exists())
    }

    /// Removes the intent, and then the directory that held the replacements.
    fn end(&self, direction: Direction) -> anyhow::Result<()> {
        let intent = self.intent();
        fs::remove_file(&intent)
            .and_then(|()| File::open(&self.root)?.sync_all())
            .with_context(|| format!("cannot remove `{}`", intent.display()))?;
        remove_directory(&self.directory(direction))
    }
}

/// The present files of a pipeline, and a directory with their replacements.
pub(crate) struct Exchange<'a> {
    definition: &'a Definition,
    data: &'a Path,
    workspace: &'a Workspace,
    direction: Direction,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        definition: &'a Definition,
        data: &'a Path,
        workspace: &'a Workspace,
        direction: Direction,
    ) -> Self {
        Self { definition, data, workspace, direction }
    }

    /// Performs an exchange. The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// The files do not fit each other, a process has one open, or a file cannot be renamed. Once the exchange has begun,
    /// [`complete`] performs its rest.
    pub(crate) fn perform(&self) -> anyhow::Result<()> {
        settle(self.definition, self.data)?;
        let intent = self.declare()?;
        let rest =
            "the exchange is not complete (the next start of the pipeline completes it, and so does the command)";
        let renamed = self.workspace.rename(self.data, &intent, &mut || Ok(()));
        renamed.and_then(|()| self.workspace.end(self.direction)).context(rest)
    }

    /// Declares an exchange, which the next start of the pipeline performs. A daemon may use the present files.
    ///
    /// # Errors
    /// The files do not fit each other, or the intent cannot be written.
    pub(crate) fn declare(&self) -> anyhow::Result<Intent> {
        settle(self.definition, &self.workspace.directory(self.direction))?;
        let intent = self.intent()?;
        let kept = self.workspace.directory(self.direction.opposite());
        // The files before an earlier exchange: one generation is kept.
        remove_directory(&kept)?;
        fs::create_dir_all(&kept).with_context(|| format!("cannot create `{}`", kept.display()))?;
        self.workspace
            .declare(&intent)
            .with_context(|| format!("cannot write `{}`", self.workspace.intent().display()))?;
        Ok(intent)
    }

    /// Decides about each file, and adapts the replacements to the present files.
    fn intent(&self) -> anyhow::Result<Intent> {
        let replacements = self.workspace.directory(self.direction);
        let files = own_files(self.definition, self.data).into_iter().map(|path| {
            let is_replaced = adapt(&self.data.join(&path), &replacements.join(&path))?;
            Ok(IntendedFile { path, is_replaced })
        });
        Ok(Intent { direction: self.direction, files: files.collect::<anyhow::Result<_>>()? })
    }
}

/// Closes the pipeline's files in a data directory.
fn settle(definition: &Definition, data: &Path) -> anyhow::Result<()> {
    match &definition.progress {
        Progress::Sink(sink) => sink.settle(&context(definition, data)),
        Progress::Store(_) => Ok(()),
    }
}

/// Performs the rest of an exchange of a pipeline's files that was interrupted, if there is one. The caller holds the lock of
/// the data directory.
///
/// # Errors
/// A process has a file open, or a file cannot be renamed.
pub(crate) fn complete(definition: &Definition, data: &Path) -> anyhow::Result<Option<Direction>> {
    let workspace = Workspace::new(data, definition.name());
    let Some(intent) = workspace.interrupted()? else { return Ok(None) };
    let direction = intent.direction;
    let completed = settle(definition, data)
        .and_then(|()| settle(definition, &workspace.directory(direction)))
        .and_then(|()| workspace.rename(data, &intent, &mut || Ok(())))
        .and_then(|()| workspace.end(direction));
    completed.with_context(|| {
        format!("the exchange of the files of `{}`, which a rebuild began, cannot be completed", definition.name())
    })?;
    Ok(Some(direction))
}

/// The effect of a start of a pipeline on a declared exchange.
#[derive(Debug)]
pub(crate) enum AtStart {
    /// None was declared.
    Nothing,
    Exchanged,
    /// Nothing could be renamed: the intent is withdrawn, and the present files stay.
    Withdrawn(anyhow::Error),
}

/// Like [`complete`], between two runs of the pipeline in this process. If another program has a file open, the pipeline
/// need not wait for it: an exchange that has not begun is withdrawn.
///
/// # Errors
/// The exchange has begun, and its rest fails.
pub(crate) async fn complete_at_start(definition: Definition, data: PathBuf) -> anyhow::Result<AtStart> {
    // Most starts have nothing to complete, and need not wait.
    if Workspace::new(&data, definition.name()).interrupted()?.is_none() {
        return Ok(AtStart::Nothing);
    }
    // The latest run has ended, and its files close on threads of their own. One that stays open fails the exchange.
    let _still_open = connector::closed(FILES_TO_CLOSE).await;
    let work = move || match complete(&definition, &data) {
        Ok(_) => Ok(AtStart::Exchanged),
        Err(error) => withdraw(&definition, &data, error),
    };
    blocking::start(work).result().await?
}

/// Removes the intent of an exchange that has not begun.
fn withdraw(definition: &Definition, data: &Path, error: anyhow::Error) -> anyhow::Result<AtStart> {
    let workspace = Workspace::new(data, definition.name());
    match workspace.interrupted()? {
        Some(intent) if !workspace.has_begun(data, &intent) => {
            // It may hold second names of the present files.
            remove_directory(&workspace.directory(intent.direction.opposite()))?;
            remove_file(&workspace.intent())?;
            Ok(AtStart::Withdrawn(error))
        }
        _ => Err(error),
    }
}

/// Returns the files that a rebuild of a pipeline exchanges, relative to the data directory.
pub(crate) fn own_files(definition: &Definition, data: &Path) -> Vec<PathBuf> {
    let context = context(definition, data);
    let mut files = definition.sink.own_files(&context);
    files.extend(definition.source.own_files(&context));
    files
}

/// Returns the context of a pipeline's connectors, apart from its runs.
pub(crate) fn context(definition: &Definition, data: &Path) -> Context {
    let context = Context::new(definition.name(), definition.loaded.directory(), data);
    Context { group: definition.group().into(), ..context }
}

#[cfg(test)]
mod tests;
