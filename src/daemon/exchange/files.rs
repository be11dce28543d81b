//! Files and directories: their renames, their permissions, their sizes.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

/// Replaces a file or directory by another one, and keeps it under a third path. Does nothing if the other one is gone: an
/// earlier attempt moved it.
pub(super) fn replace(
    present: &Path,
    new: &Path,
    kept: &Path,
    before: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<()> {
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
pub(super) fn move_away(present: &Path, kept: &Path, before: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
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
pub(super) fn adapt(present: &Path, new: &Path) -> anyhow::Result<bool> {
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
