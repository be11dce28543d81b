//! Files that several pipelines write to, or one as two things.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::Loaded;
use super::super::connectors::{Role, WrittenFile};
use super::lexical;
use crate::config::document::Problem;

/// Who writes to a file.
struct Writer<'a> {
    pipeline: &'a Loaded,
    file: WrittenFile,
}

impl Writer<'_> {
    fn problem(&self, why: String) -> Problem {
        self.pipeline.document.problem(&self.file.at, why)
    }
}

/// Returns what comes of files that more than one part writes to.
pub(super) fn shared(pipelines: &[Loaded], data: &Path) -> Vec<Problem> {
    let mut writers: BTreeMap<PathBuf, Vec<Writer<'_>>> = BTreeMap::new();
    for pipeline in pipelines {
        for file in pipeline.spec.written(&pipeline.name) {
            writers.entry(lexical(&data.join(&file.path))).or_default().push(Writer { pipeline, file });
        }
    }
    let lock = lexical(&data.join("propulsiond.lock"));
    let mut problems = Vec::new();
    for (path, writers) in &writers {
        if *path == lock {
            let ours =
                |writer: &Writer<'_>| writer.problem("this is the file that the daemon holds as its lock".to_owned());
            problems.extend(writers.iter().map(ours));
            continue;
        }
        for (number, writer) in writers.iter().enumerate().skip(1) {
            problems.extend(writers[..number].iter().find_map(|before| conflict(before, writer)));
        }
    }
    problems
}

/// Returns what is wrong with two that write to the same file.
fn conflict(first: &Writer<'_>, second: &Writer<'_>) -> Option<Problem> {
    let is_one = first.pipeline.name == second.pipeline.name;
    let other = &first.pipeline.name;
    match (first.file.role, second.file.role) {
        (Role::Lines, Role::Lines) => {
            let problem = second.problem(format!("the pipeline `{other}` appends to this file, and one alone may"));
            Some(problem.help("give each a file of its own; one source reads several if they stand in one folder"))
        }
        (Role::Lines, _) | (_, Role::Lines) => {
            // What is said of lines stands where the file of lines is named.
            let (lines, database) = if first.file.role == Role::Lines { (first, second) } else { (second, first) };
            let whose = if is_one { String::new() } else { format!(" of the pipeline `{}`", database.pipeline.name) };
            let what = if database.file.role == Role::Checkpoints { "checkpoint database" } else { "database" };
            Some(lines.problem(format!("this file is the {what}{whose}, not one of lines")))
        }
        (Role::Projection, Role::Checkpoints) if is_one => {
            let problem =
                first.problem("this database holds the progress as well, but not in the same transactions".to_owned());
            Some(
                problem.help("write `checkpoint = \"sink\"`, and every event has its effect exactly once").as_warning(),
            )
        }
        (Role::Projection, Role::Checkpoints) => Some(with_progress(first, second)),
        (Role::Checkpoints, Role::Projection) => Some(with_progress(second, first)),
        (Role::Projection, Role::Projection) | (Role::Checkpoints, Role::Checkpoints) => None,
    }
}

/// Tables that are made anew by removing their file take the progress of others with them.
fn with_progress(projection: &Writer<'_>, checkpoints: &Writer<'_>) -> Problem {
    let whose = &checkpoints.pipeline.name;
    let why =
        format!("this database holds the progress of the pipeline `{whose}` as well: who removes one removes both");
    projection.problem(why).help("give the tables a file of their own").as_warning()
}
