//! The identity of files, however a setting spells their paths.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The identity of a file or directory. Equal identities are one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileId {
    /// The device and inode of a file that exists: links and hard links have those of their target.
    Existing(u64, u64),
    /// The resolved path of a file that does not exist yet.
    Absent(PathBuf),
}

impl FileId {
    pub(super) fn of(path: &Path) -> Self {
        let path = resolved(path);
        match fs::metadata(&path) {
            Ok(metadata) => Self::Existing(metadata.dev(), metadata.ino()),
            Err(_) => Self::Absent(path),
        }
    }
}

/// The most links that are followed, as in Linux.
const MAX_LINKS: usize = 40;

/// Returns the absolute path of a file that need not exist, without links, `.` and `..`.
pub(in crate::spec) fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut todo: Vec<OsString> = components(&absolute);
    let mut out = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            out.pop();
            continue;
        }
        let next = out.join(&name);
        match fs::read_link(&next) {
            // The target of a link may be missing: a file created through the link is created there.
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    out = PathBuf::from("/");
                }
                todo.extend(components(&target));
            }
            _ => out = next,
        }
    }
    out
}

/// Returns the names in a path, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut names: Vec<_> = names.map(|part| part.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn s22_spellings_of_one_file_have_one_identity() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("real/deep")).unwrap();
        fs::write(at("real/a"), "").unwrap();
        symlink(at("real"), at("directory")).unwrap();
        symlink("real/a", at("link")).unwrap();
        fs::hard_link(at("real/a"), at("hard")).unwrap();
        for spelling in ["directory/a", "link", "hard", "real/../real/./a", "directory/deep/../a", "real/none/../a"] {
            assert_eq!(FileId::of(&at(spelling)), FileId::of(&at("real/a")), "{spelling}");
        }
        assert_ne!(FileId::of(&at("real")), FileId::of(&at("real/a")));
    }

    #[test]
    fn s22_spellings_of_a_file_that_is_yet_to_come_have_one_identity() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("real/deep")).unwrap();
        symlink(at("real"), at("directory")).unwrap();
        symlink("real/later", at("dangling")).unwrap();
        for spelling in ["directory/later", "dangling", "real/x/y/../../later", "directory/deep/../later"] {
            assert_eq!(FileId::of(&at(spelling)), FileId::of(&at("real/later")), "{spelling}");
        }
        symlink("loop", at("loop")).unwrap();
        assert_ne!(FileId::of(&at("loop")), FileId::of(&at("real/later")), "a link to itself ends");
    }
}
