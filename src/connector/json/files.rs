//! The file system, as the source needs it: which files there are, and whether one is what it was.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::place::Head;
use crate::source::{SourceError, SourceErrorKind};

/// Which files of a folder are read.
#[derive(Clone, Debug)]
pub(super) struct Names(Option<String>);

const ENDINGS: [&str; 4] = [".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"];

impl Names {
    pub(super) fn new(pattern: Option<&str>) -> Self {
        Self(pattern.map(str::to_owned))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        !name.starts_with('.')
            && match &self.0 {
                Some(pattern) => matches_pattern(pattern.as_bytes(), name.as_bytes()),
                None => ENDINGS.iter().any(|ending| name.ends_with(ending)),
            }
    }
}

/// Matches `*` (any run) and `?` (any byte). Only the last `*` is ever gone back to, so that the time stays bounded.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || *wanted == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                seen = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) inode: u64,
    pub(super) size: u64,
}

/// Returns the files that are to be read, by name.
pub(super) fn list(folder: &Path, names: &Names) -> Result<Vec<Listed>, SourceError> {
    let failed = |error| failed("list", folder, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let doing = format!("list `{}`: the name {name:?} is not UTF-8", folder.display());
            return Err(SourceError::new(SourceErrorKind::Refused, doing));
        };
        if !names.matches(name) {
            continue;
        }
        // Links are followed; a file that went away in between was not there.
        match std::fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => {
                files.push(Listed { name: name.to_owned(), inode: metadata.ino(), size: metadata.len() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

pub(super) fn is_folder(path: &Path) -> Result<bool, SourceError> {
    std::fs::metadata(path).map(|metadata| metadata.is_dir()).map_err(|error| failed("open", path, error))
}

/// Returns what is at a path, if anything.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, SourceError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path, error)),
    }
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns what the first `len` bytes of a file come to; `None` if there are fewer.
pub(super) fn head(file: &File, len: u64) -> io::Result<Option<Head>> {
    let mut bytes = vec![0; usize::try_from(len.min(Head::WINDOW)).unwrap_or_default()];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(Some(Head::of(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> SourceError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => SourceErrorKind::Denied,
        _ => SourceErrorKind::Unavailable,
    };
    SourceError::new(kind, format!("{what} `{}`", path.display())).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folders_files_are_chosen_by_ending_or_pattern() {
        let names = ["a.jsonl", "a.ndjson.gz", "a.json", ".a.jsonl", "a.jsonl.tmp", "orders-1.log"];
        let chosen = |pattern| -> Vec<_> {
            let wanted = Names::new(pattern);
            names.into_iter().filter(|name| wanted.matches(name)).collect()
        };
        assert_eq!(chosen(None), ["a.jsonl", "a.ndjson.gz"]);
        assert_eq!(chosen(Some("orders-?.*")), ["orders-1.log"]);
        assert_eq!(chosen(Some("*.json*")), ["a.jsonl", "a.json", "a.jsonl.tmp"]);
        assert_eq!(chosen(Some("*a*l*l*")), [""; 0]);
    }
}
