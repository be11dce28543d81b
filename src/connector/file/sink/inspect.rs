//! Inspects the files of a sink that does not run.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::Settings;
use super::repair::{Repair, look, repair};
use crate::config::template::Template;
use crate::connector::Context;
use crate::connector::diagnosis::{Bounded, Diagnosis, Remedy, Severity};
use crate::formats::encode::Format;

/// The most files that an inspection reads of a sink with a file per stream.
const MAX_FILES: usize = 100_000;

/// Looks for truncated last lines. `fix`: repairs them, as the sink does before its first write.
pub fn inspect(settings: &Settings, context: &Context, fix: bool) -> Vec<Diagnosis> {
    let mut found = Bounded::default();
    let mut judge = |path: &Path| {
        let last_line = if fix { repaired(path, settings.format) } else { seen(path, settings.format) };
        match last_line {
            Ok(Repair::Nothing) => {}
            Ok(repair) => found.push(|| truncated_line(path, repair, fix)),
            Err(error) => found.push(|| cannot_be_read(path, &error)),
        }
    };
    match &settings.path {
        Some(path) if !path.is_literal() => walk(path, &context.output(""), &mut judge),
        Some(path) => judge_if_there(&context.output(path.text()), &mut judge),
        None => judge_if_there(&context.output(&format!("{}.jsonl", context.pipeline)), &mut judge),
    }
    found.finish()
}

fn judge_if_there(path: &Path, judge: &mut dyn FnMut(&Path)) {
    // A pipe or a device has no last line.
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        judge(path);
    }
}

/// Judges the files that the template can name, and no others beside them.
fn walk(template: &Template, data: &Path, judge: &mut dyn FnMut(&Path)) {
    let mut directories = vec![data.join(template.directory())];
    let mut inspected = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            let relative = path.strip_prefix(data).unwrap_or(&path).to_str();
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() && relative.is_some_and(|path| template.matches(path)) {
                inspected += 1;
                if inspected > MAX_FILES {
                    return;
                }
                judge(&path);
            }
        }
    }
}

fn seen(path: &Path, format: Format) -> io::Result<Repair> {
    look(&mut File::open(path)?, format)
}

fn repaired(path: &Path, format: Format) -> io::Result<Repair> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::other("another process writes to it"),
        fs::TryLockError::Error(error) => error,
    })?;
    repair(&mut file, format)
}

fn truncated_line(path: &Path, repair: Repair, fixed: bool) -> Diagnosis {
    let (what, would, did) = match repair {
        Repair::Cut { bytes } => (
            format!("the last line is truncated: {bytes} bytes without a newline"),
            "removes it, as the sink does before its first write",
            "it was removed",
        ),
        _ => (
            "the last line is whole, but lacks its newline".to_owned(),
            "adds the newline, as the sink does before its first write",
            "the newline was added",
        ),
    };
    let means = "a write was interrupted and not acknowledged; its events are redelivered";
    let remedy = if fixed { Remedy::Fixed(did.to_owned()) } else { Remedy::Fix(would.to_owned()) };
    Diagnosis::new(Severity::Warning, path, what, means).remedy(remedy)
}

fn cannot_be_read(path: &Path, error: &io::Error) -> Diagnosis {
    let means = "its last line was not checked";
    Diagnosis::new(Severity::Warning, path, format!("the file cannot be inspected: {error}"), means)
        .operator("make the file readable and writable")
}
