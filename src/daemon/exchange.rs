//! The exchange of a pipeline's files for those that a rebuild made beside them.
//!
//! A rebuild has a directory of its own, `DATA/rebuild/PIPELINE`:
//!
//! | name | contents |
//! |---|---|
//! | `new/` | the data directory of the rebuild |
//! | `old/` | the files before the latest exchange |
//! | `definition` | the hash of the definition that `new/` is made by |
//! | `exchange` | an exchange has begun: its [`Intent`] |
//!
//! An exchange takes several renames, and a crash can come between any two of them. A database and a registry of different
//! runs do not fit together: the same number can denote two files. Therefore `exchange` is durable before the first rename.
//! The next start of the pipeline, or the next run of the command, performs the remaining renames before it opens a file. So
//! no pipeline runs between two renames, and their order does not matter.
//!
//! The command performs an exchange itself if no daemon uses the data directory. If one does, the command declares the
//! intent and has the daemon restart the pipeline.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::connector::{self, Context};
use crate::runtime::blocking;
use crate::spec::{Definition, Progress};

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

/// An exchange that has begun. It does not depend on the pipeline's definition, which can change before its completion.
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

/// Like [`complete`], between two runs of the pipeline in this process.
///
/// # Errors
/// As [`complete`]'s.
pub(crate) async fn complete_between_runs(definition: Definition, data: PathBuf) -> anyhow::Result<Option<Direction>> {
    // Most starts have nothing to complete, and need not wait.
    if Workspace::new(&data, definition.name()).interrupted()?.is_none() {
        return Ok(None);
    }
    // The latest run has ended, and its files close on threads of their own. One that stays open fails the exchange.
    let _still_open = connector::closed(FILES_TO_CLOSE).await;
    blocking::start(move || complete(&definition, &data)).result().await?
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

/// Replaces a file or directory by another one, and keeps it under a third path. Does nothing if the other one is gone: an
/// earlier attempt moved it.
fn replace(present: &Path, new: &Path, kept: &Path, before: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    if !new.try_exists()? {
        return Ok(());
    }
    for path in [present, kept] {
        fs::create_dir_all(parent(path))?;
    }
    if present.try_exists()? {
        before()?;
        keep(present, kept)?;
    }
    before()?;
    fs::rename(new, present)?;
    make_durable([present, new, kept])
}

/// Keeps a file or directory under another path. Does nothing if it is gone: an earlier attempt moved it.
fn move_away(present: &Path, kept: &Path, before: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    if !present.try_exists()? {
        return Ok(());
    }
    fs::create_dir_all(parent(kept))?;
    before()?;
    fs::rename(present, kept)?;
    make_durable([present, kept])
}

/// Makes the renames of files durable. The intent is removed later, and must not be gone before them.
fn make_durable<'p>(paths: impl IntoIterator<Item = &'p Path>) -> io::Result<()> {
    paths.into_iter().try_for_each(|path| File::open(parent(path))?.sync_all())
}

/// Keeps a file under a second name until a rename replaces the first one, so that its readers find one at any time. A
/// directory, or a file on a file system without hard links, is moved.
fn keep(present: &Path, kept: &Path) -> io::Result<()> {
    if present.is_file() {
        match fs::hard_link(present, kept) {
            Ok(()) => return Ok(()),
            // The link of an earlier attempt.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(_) => {}
        }
    }
    fs::rename(present, kept)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Gives a new file the permissions of the present one. Returns whether there is a new one.
///
/// # Errors
/// The new one cannot take the place of the present one.
fn adapt(present: &Path, new: &Path) -> anyhow::Result<bool> {
    let (old, made) = (metadata(present)?, metadata(new)?);
    if let (Some(old), Some(made)) = (&old, &made) {
        fits(present, old, made)?;
        if old.is_file() && old.permissions() != made.permissions() {
            fs::set_permissions(new, old.permissions())
                .with_context(|| format!("cannot set the permissions of `{}`", new.display()))?;
        }
    }
    Ok(made.is_some())
}

/// Checks that a file made by this process could take the place of the present one.
///
/// # Errors
/// It could not.
pub(crate) fn fits(present: &Path, old: &Metadata, made: &Metadata) -> anyhow::Result<()> {
    let shown = present.display();
    if old.is_symlink() {
        bail!("`{shown}` is a link, which a rename would replace (name the file itself in the pipeline's file)");
    }
    ensure!(
        old.dev() == made.dev(),
        "`{shown}` is on another file system than the directory of the rebuild, so that no rename can replace it"
    );
    ensure!(
        old.uid() == made.uid(),
        "`{shown}` belongs to user {}, and this process makes files of user {}, which the daemon may not be able to \
         write (run the command as the daemon's user)",
        old.uid(),
        made.uid()
    );
    Ok(())
}

/// Returns the metadata of a file, or of a link itself. `None`: it does not exist.
///
/// # Errors
/// The file cannot be accessed.
pub(crate) fn metadata(path: &Path) -> anyhow::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the metadata of `{}`", path.display())),
    }
}

/// Returns the size of a file, or of the files in a directory. One that cannot be read counts as empty.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| disk_usage(&entry.path())).sum()
        }
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}

/// Removes a file, if it exists.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn remove_file(path: &Path) -> anyhow::Result<()> {
    unless_absent(fs::remove_file(path), path)
}

/// Removes a directory with its contents, if it exists.
///
/// # Errors
/// A file in it cannot be removed.
pub(crate) fn remove_directory(path: &Path) -> anyhow::Result<()> {
    unless_absent(fs::remove_dir_all(path), path)
}

fn unless_absent(removed: io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
