//! The log of commits: a file of JSON lines beside that of the key.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::document::{self, StoredProgress};
use crate::checkpoint::{CheckpointKey, LOG_INTERVAL, LogEntry, LogReason, MAX_LOG_ENTRIES};
use crate::clock;
use crate::position::Progress;

/// An entry as a line.
#[derive(Deserialize, Serialize)]
struct Line {
    number: u64,
    /// Seconds since 1970.
    at: i64,
    reason: String,
    progress: Option<StoredProgress>,
}

/// Logs a commit, unless the newest entry is too young.
pub(super) fn note_commit(directory: &Path, key: &CheckpointKey, progress: &Progress) -> io::Result<()> {
    let (path, now) = (path_of(directory, key), clock::wall());
    // The file changes with each entry, so that its time tells whether one is due, without a look at its content.
    let changed = fs::metadata(&path).and_then(|found| found.modified()).map(OffsetDateTime::from);
    if changed.is_ok_and(|changed| (now - changed).unsigned_abs() < LOG_INTERVAL) {
        return Ok(());
    }
    let position = Progress { position: progress.position.clone(), ..Progress::default() };
    note(&path, now, LogReason::Commit, Some(&position))
}

/// Logs the progress that an operator replaces.
pub(super) fn note_replaced(directory: &Path, key: &CheckpointKey, replaced: Option<&Progress>) -> io::Result<()> {
    note(&path_of(directory, key), clock::wall(), LogReason::Replaced, replaced)
}

fn note(path: &Path, at: OffsetDateTime, reason: LogReason, progress: Option<&Progress>) -> io::Result<()> {
    let text = read(path)?;
    let mut lines: Vec<_> = text.lines().filter(|line| parse(line).is_some()).collect();
    let number = lines.last().and_then(|line| parse(line)).map_or(1, |newest| newest.number + 1);
    let (at, reason, progress) = (at.unix_timestamp(), reason.as_str().to_owned(), progress.map(StoredProgress::of));
    let mut new = serde_json::to_string(&Line { number, at, reason, progress })?;
    new.push('\n');
    if lines.len() < MAX_LOG_ENTRIES {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        // A line that a crash truncated ends here.
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return file.write_all(format!("{gap}{new}").as_bytes());
    }
    // Half of the log stays, so that not every entry writes it anew.
    lines.drain(..lines.len() - MAX_LOG_ENTRIES / 2);
    let kept: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    let beside = path.with_extension("log.tmp");
    fs::write(&beside, kept + &*new)?;
    fs::rename(beside, path)
}

/// Returns the entries of a key, the oldest first. A line that a crash truncated is left out.
pub(super) fn entries(directory: &Path, key: &CheckpointKey) -> io::Result<Vec<LogEntry>> {
    Ok(read(&path_of(directory, key))?.lines().filter_map(parse).collect())
}

fn read(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn parse(line: &str) -> Option<LogEntry> {
    let Line { number, at, reason, progress } = serde_json::from_str(line).ok()?;
    let progress = match progress {
        None => None,
        Some(stored) => Some(stored.progress()?),
    };
    let at = OffsetDateTime::from_unix_timestamp(at).ok()?;
    Some(LogEntry { number, at, reason: LogReason::parse(&reason)?, progress })
}

fn path_of(directory: &Path, key: &CheckpointKey) -> PathBuf {
    directory.join(document::file_name(key)).with_extension("log")
}
