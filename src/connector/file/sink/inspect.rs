//! Looking over the files of a sink while it does not run.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::Settings;
use super::mend::{Mended, look, mend};
use crate::config::template::Template;
use crate::connector::Context;
use crate::connector::diagnosis::{Bounded, Finding, Remedy, Severity};
use crate::formats::encode::Format;

/// How many files are looked at where a sink has one per stream.
const MOST_FILES: usize = 100_000;

/// Looks for torn last lines. `repair`: mend them, as the sink does before its first write.
pub fn inspect(settings: &Settings, context: &Context, repair: bool) -> Vec<Finding> {
    let mut found = Bounded::default();
    let mut judge = |path: &Path| {
        let torn = if repair { mended(path, settings.format) } else { seen(path, settings.format) };
        match torn {
            Ok(Mended::Nothing) => {}
            Ok(torn) => found.push(|| torn_line(path, torn, repair)),
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
    // A pipe or a device has no end that could be torn.
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        judge(path);
    }
}

/// Judges the files that the template makes, and no others that stand among them.
fn walk(template: &Template, data: &Path, judge: &mut dyn FnMut(&Path)) {
    let mut folders = vec![data.join(template.folder())];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            let relative = path.strip_prefix(data).unwrap_or(&path).to_str();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && relative.is_some_and(|path| template.matches(path)) {
                looked_at += 1;
                if looked_at > MOST_FILES {
                    return;
                }
                judge(&path);
            }
        }
    }
}

fn seen(path: &Path, format: Format) -> io::Result<Mended> {
    look(&mut File::open(path)?, format)
}

fn mended(path: &Path, format: Format) -> io::Result<Mended> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::other("another process writes to it"),
        fs::TryLockError::Error(error) => error,
    })?;
    mend(&mut file, format)
}

fn torn_line(path: &Path, torn: Mended, repaired: bool) -> Finding {
    let (what, would, did) = match torn {
        Mended::Cut { bytes } => (
            format!("the last line is torn: {bytes} bytes without an end"),
            "cuts it off, as the sink does before its first write",
            "it was cut off",
        ),
        _ => (
            "the last line is whole, but lacks its newline".to_owned(),
            "adds the newline, as the sink does before its first write",
            "it has its newline",
        ),
    };
    let means = "a write did not come to its end; what it was did not count as written and comes again";
    let remedy = if repaired { Remedy::Fixed(did.to_owned()) } else { Remedy::Fix(would.to_owned()) };
    Finding::new(Severity::Warning, path, what, means).remedy(remedy)
}

fn cannot_be_read(path: &Path, error: &io::Error) -> Finding {
    let means = "it is not known whether its last line is whole";
    Finding::new(Severity::Warning, path, format!("the file cannot be looked at: {error}"), means)
        .person("see to it that the file can be read and written")
}
