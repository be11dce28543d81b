//! The files that were read before the current one, and whether they are still what they were.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use super::files::{self, Listed};
use super::input::Input;
use super::position::LeftFile;
use super::proof::EarlierDigest;
use crate::source::SourceError;

/// The earlier files that still exist, by name.
#[derive(Debug, Default)]
pub(super) struct EarlierFiles {
    files: BTreeMap<String, LeftFile>,
    digest: EarlierDigest,
}

impl EarlierFiles {
    pub(super) fn digest(&self) -> EarlierDigest {
        self.digest
    }

    pub(super) fn insert(&mut self, left: LeftFile) {
        self.remove(&left.file);
        self.digest.add(&left.file, left.size);
        self.files.insert(left.file.clone(), left);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<LeftFile> {
        let removed = self.files.remove(name)?;
        self.digest.remove(name, removed.size);
        Some(removed)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut LeftFile> {
        self.files.get_mut(name)
    }

    /// Forgets the files that were deleted.
    pub(super) fn retain_listed(&mut self, listed: &[Listed]) {
        let mut names: Vec<_> = listed.iter().map(|file| file.name.as_str()).collect();
        names.sort_unstable();
        let deleted: Vec<_> =
            self.files.keys().filter(|name| names.binary_search(&name.as_str()).is_err()).cloned().collect();
        for name in deleted {
            self.remove(&name);
        }
    }

    /// Takes unknown files for earlier ones if together with the known ones they have the digest of a position. So a
    /// position survives the loss of the registry. Returns whether they have it.
    pub(super) fn adopt(&mut self, unknown: &[&Listed], wanted: EarlierDigest) -> bool {
        let mut digest = self.digest;
        unknown.iter().for_each(|file| digest.add(&file.name, file.size));
        if digest != wanted {
            return false;
        }
        for file in unknown {
            let Listed { name, inode, size } = (*file).clone();
            let (offset, line, open) = (size, 0, false);
            self.insert(LeftFile { file: name, inode, size, offset, line, open, head: None, sum: None, tail: None });
        }
        true
    }
}

/// Returns how a listed file differs from its state when the reader left it. A copy counts as the original from then on.
pub(super) fn changed_since(
    left: &mut LeftFile,
    file: &Listed,
    directory: &Path,
) -> Result<Option<&'static str>, SourceError> {
    if left.inode != file.inode {
        if !is_copy(left, &directory.join(&file.name))? {
            return Ok(Some("it was replaced by another file after it was read"));
        }
        left.inode = file.inode;
    }
    Ok(match file.size.cmp(&left.size) {
        Ordering::Less => Some("it is shorter than when it was read"),
        Ordering::Equal => None,
        Ordering::Greater => Some("lines were added to it after the next file was begun"),
    })
}

/// Returns whether a file begins with all the bytes that were read of another one.
fn is_copy(left: &LeftFile, path: &Path) -> Result<bool, SourceError> {
    let Some(wanted) = left.head else { return Ok(false) };
    let failed = |error| files::failed("read", path, error);
    let Some(sum) = left.sum else {
        // Positions of the old form have the hash of the first bytes only.
        let file = std::fs::File::open(path).map_err(failed)?;
        return Ok(files::head(&file, wanted.len).map_err(failed)? == Some(wanted));
    };
    let Some((input, proof)) = Input::open_with_proof(path, left.offset).map_err(failed)? else { return Ok(false) };
    Ok(proof.sum() == sum && Some(proof.tail()) == left.tail && input.head(wanted.len).map_err(failed)? == Some(wanted))
}
