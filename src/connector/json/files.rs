//! The file system as the source needs it: the files of a directory, their order, and their first bytes.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;

use super::Sort;
use super::proof::{PrefixHash, WINDOW};
use crate::formats::records::Format;
use crate::source::{SourceError, SourceErrorKind};

/// The files of a directory that are read, and their order.
#[derive(Debug)]
pub(super) struct Names {
    pattern: Option<String>,
    /// The endings of the names without a pattern. `.gz` may follow.
    endings: &'static [&'static str],
    sort: Sort,
    /// The entries that cannot be read and were named in the log; `None` if nothing is to be logged.
    reported: Option<Mutex<BTreeSet<OsString>>>,
}

/// Returns the usual endings of files with records of a form.
pub(super) fn endings(format: Format) -> &'static [&'static str] {
    match format {
        Format::Json => &[".jsonl", ".ndjson"],
        Format::Document => &[".json"],
        Format::Csv => &[".csv"],
        Format::Text => &[".log", ".txt"],
    }
}

impl Names {
    pub(super) fn new(pattern: Option<&str>, sort: Sort) -> Self {
        let endings = endings(Format::Json);
        Self { pattern: pattern.map(str::to_owned), endings, sort, reported: Some(Mutex::default()) }
    }

    /// Sets the form of the records, which gives the usual endings.
    pub(super) fn of_format(self, format: Format) -> Self {
        Self { endings: endings(format), ..self }
    }

    /// As [`Self::new`], for a look that logs nothing.
    pub(super) fn quiet(pattern: Option<&str>, sort: Sort) -> Self {
        Self { reported: None, ..Self::new(pattern, sort) }
    }

    fn matches(&self, name: &[u8]) -> bool {
        !name.starts_with(b".")
            && match &self.pattern {
                Some(pattern) => matches_pattern(pattern.as_bytes(), name),
                None => {
                    let name = name.strip_suffix(b".gz").unwrap_or(name);
                    self.endings.iter().any(|ending| name.ends_with(ending.as_bytes()))
                }
            }
    }

    /// Compares two names in the order in which files are read.
    pub(super) fn compare(&self, a: &str, b: &str) -> Ordering {
        match self.sort {
            Sort::Name => a.cmp(b),
            Sort::Natural => natural(a, b),
        }
    }

    /// Returns a remedy if `first` is read before `second` only because their numbers are compared as text.
    pub(super) fn sort_advice(&self, first: &str, second: &str) -> Option<&'static str> {
        (self.sort == Sort::Name && first < second && natural(first, second).is_gt())
            .then_some("`sort = \"natural\"` in `[source.json]` compares the numbers in names by their value")
    }

    /// Names an entry that matches but cannot be read, once.
    fn report(&self, directory: &Path, name: &OsStr, why: &str) {
        let Some(reported) = &self.reported else { return };
        let mut reported = reported.lock().expect("nothing panics under the lock");
        if reported.insert(name.to_owned()) {
            let directory = directory.display();
            // `Debug` escapes the bytes that could forge a log line.
            tracing::warn!(entry = ?name, %directory, reason = why, "entry of the feed's directory skipped");
        }
    }
}

/// Compares runs of digits by their value and everything else as text. Names that differ in leading zeros alone are
/// compared as text, so that no two names are equal.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    while let (Some(first_a), Some(first_b)) = (rest_a.first(), rest_b.first()) {
        let order = if first_a.is_ascii_digit() && first_b.is_ascii_digit() {
            let (digits_a, digits_b) = (split_number(&mut rest_a), split_number(&mut rest_b));
            digits_a.len().cmp(&digits_b.len()).then(digits_a.cmp(digits_b))
        } else {
            let order = first_a.cmp(first_b);
            (rest_a, rest_b) = (&rest_a[1..], &rest_b[1..]);
            order
        };
        if order.is_ne() {
            return order;
        }
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// Returns the name that follows in a numbered sequence, if its number has one more digit: `a-10` after `a-9`.
pub(super) fn longer_successor(name: &str) -> Option<String> {
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    let digits = &name[start..end];
    let is_last = digits.bytes().all(|digit| digit == b'9');
    is_last.then(|| format!("{}1{}{}", &name[..start], "0".repeat(digits.len()), &name[end..]))
}

/// Takes the digits at the start of a text, and returns them without leading zeros.
fn split_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(len);
    *text = rest;
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    &digits[zeros..]
}

/// Matches `*` (any run) and `?` (any byte). Backtracks to the last `*` only, which bounds the time.
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

/// A file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) inode: u64,
    pub(super) size: u64,
}

/// Returns the files to be read, in their order. Entries that are no readable files are skipped, and named once.
pub(super) fn list(directory: &Path, names: &Names) -> Result<Vec<Listed>, SourceError> {
    let failed = |error| failed("list", directory, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !names.matches(name.as_bytes()) {
            continue;
        }
        let Some(utf8) = name.to_str() else {
            names.report(directory, &name, "the name is not UTF-8, so that no position can hold it");
            continue;
        };
        // Links are followed.
        match std::fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => {
                files.push(Listed { name: utf8.to_owned(), inode: metadata.ino(), size: metadata.len() });
            }
            Ok(_) => {}
            // The file was deleted after the directory was read, or the link leads nowhere yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_loop(&error) => names.report(directory, &name, "it is a link that leads to itself"),
            Err(error) => return Err(failed(error)),
        }
    }
    files.sort_by(|a, b| names.compare(&a.name, &b.name));
    Ok(files)
}

fn is_loop(error: &io::Error) -> bool {
    // ELOOP; `io::ErrorKind::FilesystemLoop` is unstable.
    error.raw_os_error() == Some(40)
}

pub(super) fn is_directory(path: &Path) -> Result<bool, SourceError> {
    std::fs::metadata(path).map(|metadata| metadata.is_dir()).map_err(|error| failed("open", path, error))
}

/// Returns the metadata of a path; `None` if nothing is there.
pub(super) fn metadata_if_present(path: &Path) -> Result<Option<Metadata>, SourceError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path, error)),
    }
}

pub(super) fn metadata(path: &Path) -> Result<Metadata, SourceError> {
    std::fs::metadata(path).map_err(|error| failed("open", path, error))
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns `len` bytes of a file from `offset` on; `None` if it ends before that.
pub(super) fn bytes_at(file: &File, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the hash of the first bytes of a file, at most `len` and a window of them; `None` if there are fewer.
pub(super) fn head(file: &File, len: u64) -> io::Result<Option<PrefixHash>> {
    let len = usize::try_from(len).unwrap_or(WINDOW).min(WINDOW);
    Ok(bytes_at(file, 0, len)?.map(|bytes| PrefixHash::of(&bytes)))
}

pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> SourceError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => SourceErrorKind::Denied,
        _ => SourceErrorKind::Unavailable,
    };
    SourceError::new(kind, format!("{doing} `{}`", path.display())).caused_by(error)
}

pub(super) fn unavailable(doing: &str, path: &Path, why: &'static str) -> SourceError {
    let error = SourceError::new(SourceErrorKind::Unavailable, format!("{doing} `{}`", path.display()));
    error.caused_by(anyhow::anyhow!(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directorys_files_are_chosen_by_ending_or_pattern() {
        let names = ["a.jsonl", "a.ndjson.gz", "a.json", ".a.jsonl", "a.jsonl.tmp", "orders-1.log"];
        let chosen = |pattern| -> Vec<_> {
            let wanted = Names::new(pattern, Sort::Name);
            names.into_iter().filter(|name| wanted.matches(name.as_bytes())).collect()
        };
        assert_eq!(chosen(None), ["a.jsonl", "a.ndjson.gz"]);
        assert_eq!(chosen(Some("orders-?.*")), ["orders-1.log"]);
        assert_eq!(chosen(Some("*.json*")), ["a.jsonl", "a.json", "a.jsonl.tmp"]);
        assert_eq!(chosen(Some("*a*l*l*")), [""; 0]);
    }

    #[test]
    fn s25_the_next_name_with_one_more_digit_is_known() {
        let next = |name| longer_successor(name);
        assert_eq!(next("events-9.jsonl").as_deref(), Some("events-10.jsonl"));
        assert_eq!(next("99").as_deref(), Some("100"));
        assert_eq!([next("events-09.jsonl"), next("events-8.jsonl"), next("events.jsonl")], [None, None, None]);
    }

    #[test]
    fn s25_natural_order_compares_numbers_by_value() {
        let mut names =
            ["e-10", "e-9", "e-09", "e-1a", "e", "e-100.jsonl", "f-1", "e-10a2", "e-10a10", "99999999999999999999"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            ["99999999999999999999", "e", "e-1a", "e-09", "e-9", "e-10", "e-10a2", "e-10a10", "e-100.jsonl", "f-1"]
        );
    }
}
