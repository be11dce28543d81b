//! The exchange of a pipeline's files for those that a rebuild made beside them.
//!
//! A rebuild has a directory of its own, `DATA/rebuild/PIPELINE`:
//!
//! | name | contents |
//! |---|---|
//! | `new/` | the data directory of the rebuild |
//! | `old/` | the files before the latest exchange |
//! | `definition` | the hash of the definition that `new/` is made by |
//! | `exchange` | an exchange has begun: the name of the directory whose files come into use |
//!
//! An exchange takes several renames, and a crash can come between any two of them. A database and a registry of different
//! runs do not fit together: the same number can denote two files. Therefore `exchange` is durable before the first rename.
//! The next process that locks the data directory, a daemon or the command, performs the remaining renames before it
//! opens a file. So no pipeline runs between two renames, and their order does not matter.

use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};

use crate::connector::Context;
use crate::spec::{Definition, Progress};

/// The directory of the rebuilds in a data directory.
const REBUILDS: &str = "rebuild";

/// The directory of a pipeline's rebuilds.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

/// The files that come into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The rebuilt files; the present ones are kept in `old/`.
    Rebuilt,
    /// The files before the latest exchange; the present ones are kept in `new/`.
    Former,
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

    fn directory(&self, direction: Direction) -> PathBuf {
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
    pub(crate) fn interrupted(&self) -> anyhow::Result<Option<Direction>> {
        let text = match fs::read_to_string(self.intent()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(anyhow!(error).context(format!("cannot read `{}`", self.intent().display()))),
        };
        let known = [Direction::Rebuilt, Direction::Former].into_iter().find(|known| text.trim() == known.name());
        known.map(Some).ok_or_else(|| anyhow!("`{}` names no directory: `{}`", self.intent().display(), text.trim()))
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
        self.settle()?;
        for file in own_files(self.definition, self.data) {
            adapt(&self.data.join(&file), &self.replacements().join(&file))?;
        }
        let kept = self.workspace.directory(self.direction.opposite());
        // The files before an earlier exchange: one generation is kept.
        remove_directory(&kept)?;
        fs::create_dir_all(&kept).with_context(|| format!("cannot create `{}`", kept.display()))?;
        self.declare().with_context(|| format!("cannot write `{}`", self.workspace.intent().display()))?;
        self.rename(&mut || Ok(()))?;
        self.end()
    }

    fn replacements(&self) -> PathBuf {
        self.workspace.directory(self.direction)
    }

    /// Closes the files on both sides.
    fn settle(&self) -> anyhow::Result<()> {
        let Progress::Sink(sink) = &self.definition.progress else { return Ok(()) };
        sink.settle(&context(self.definition, self.data))?;
        sink.settle(&context(self.definition, &self.replacements()))
    }

    /// Makes the intent durable.
    fn declare(&self) -> io::Result<()> {
        // A rename makes it appear as a whole or not at all.
        let draft = self.workspace.root.join("exchange.tmp");
        let mut file = File::create(&draft)?;
        writeln!(file, "{}", self.direction.name())?;
        file.sync_all()?;
        fs::rename(&draft, self.workspace.intent())?;
        File::open(&self.workspace.root)?.sync_all()
    }

    /// Renames the files that earlier attempts left. `before` runs before each change, and can stop it.
    fn rename(&self, before: &mut dyn FnMut() -> io::Result<()>) -> anyhow::Result<()> {
        let kept = self.workspace.directory(self.direction.opposite());
        for file in own_files(self.definition, self.data) {
            let (present, new) = (self.data.join(&file), self.replacements().join(&file));
            replace(&present, &new, &kept.join(&file), before)
                .with_context(|| format!("cannot exchange `{}` for `{}`", present.display(), new.display()))?;
        }
        Ok(())
    }

    /// Removes the intent, and then the directory that held the replacements.
    fn end(&self) -> anyhow::Result<()> {
        let intent = self.workspace.intent();
        fs::remove_file(&intent)
            .and_then(|()| File::open(&self.workspace.root)?.sync_all())
            .with_context(|| format!("cannot remove `{}`", intent.display()))?;
        remove_directory(&self.replacements())
    }
}

/// Performs the rest of an exchange of a pipeline's files that was interrupted, if there is one. The caller holds the lock of
/// the data directory.
///
/// # Errors
/// A process has a file open, or a file cannot be renamed.
pub(crate) fn complete(definition: &Definition, data: &Path) -> anyhow::Result<Option<Direction>> {
    let workspace = Workspace::new(data, definition.name());
    let Some(direction) = workspace.interrupted()? else { return Ok(None) };
    let exchange = Exchange::new(definition, data, &workspace, direction);
    let completed = exchange.settle().and_then(|()| exchange.rename(&mut || Ok(()))).and_then(|()| exchange.end());
    completed.with_context(|| {
        format!("the exchange of the files of `{}` was interrupted, and its rest fails", definition.name())
    })?;
    Ok(Some(direction))
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

/// Replaces a file or directory by another one, and keeps it under a third path. Does nothing if there is no other one: an
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
    // The intent is removed later, and must not be gone before these renames are durable.
    [present, new, kept].into_iter().try_for_each(|path| File::open(parent(path))?.sync_all())
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

/// Gives a new file the permissions of the present one.
///
/// # Errors
/// The new one cannot take the place of the present one.
fn adapt(present: &Path, new: &Path) -> anyhow::Result<()> {
    let (Some(old), Some(made)) = (metadata(present)?, metadata(new)?) else { return Ok(()) };
    fits(present, &old, &made)?;
    if old.is_file() && old.permissions() != made.permissions() {
        fs::set_permissions(new, old.permissions())
            .with_context(|| format!("cannot set the permissions of `{}`", new.display()))?;
    }
    Ok(())
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
