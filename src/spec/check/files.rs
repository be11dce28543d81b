//! Files that two settings name, in one pipeline or in two.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::{Definition, Progress};
use super::identity::FileId;
use crate::config::document::Problem;
use crate::connector::kind::{KindFile, Usage};

/// A file, and the setting that names it.
struct Use<'a> {
    pipeline: &'a Definition,
    role: Role,
    /// The keys that lead to the setting.
    at: Vec<&'static str>,
}

/// The role of a file in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Connector(Usage),
    Script,
    /// The pipeline file itself.
    Document,
}

impl Role {
    /// Returns whether the pipeline writes the file.
    fn is_written(self) -> bool {
        !matches!(self, Self::Script | Self::Document | Self::Connector(Usage::Input | Usage::Stdin))
    }
}

impl Use<'_> {
    fn problem(&self, why: impl Into<String>) -> Problem {
        self.pipeline.loaded.document.problem(&self.at, why)
    }
}

/// Returns the conflicts between settings that name one file, however they spell it.
pub(super) fn shared(pipelines: &[Definition], data: &Path) -> Vec<Problem> {
    let mut files: BTreeMap<FileId, Vec<Use<'_>>> = BTreeMap::new();
    for pipeline in pipelines {
        for (path, used) in uses(pipeline, data) {
            files.entry(FileId::of(&path)).or_default().push(used);
        }
    }
    let lock = FileId::of(&data.join("propulsiond.lock"));
    let mut problems = Vec::new();
    for (file, uses) in &files {
        if *file == lock {
            let written = uses.iter().filter(|used| used.role.is_written());
            problems.extend(written.map(|used| used.problem("this file is the daemon's lock")));
            continue;
        }
        for (number, used) in uses.iter().enumerate() {
            problems.extend(uses[..number].iter().find_map(|before| conflict(before, used)));
        }
    }
    problems
}

fn uses<'a>(pipeline: &'a Definition, data: &Path) -> Vec<(std::path::PathBuf, Use<'a>)> {
    let directory = pipeline.loaded.directory();
    let document = Use { pipeline, role: Role::Document, at: Vec::new() };
    let mut uses = vec![(pipeline.loaded.file().to_owned(), document)];
    if let Some(script) = pipeline.spec().script().filter(|script| !script.is_hole() && !script.is_empty()) {
        let at = vec!["handler", "rhai", "script"];
        uses.push((directory.join(&**script), Use { pipeline, role: Role::Script, at }));
    }
    let mut add = |role: &'static str, key: &'static str, files: Vec<KindFile>| {
        for file in files.into_iter().filter(|file| !file.path.is_empty()) {
            let base = if matches!(file.usage, Usage::Input | Usage::Stdin) { directory } else { data };
            let at = [role, key].into_iter().chain(file.key).collect();
            uses.push((base.join(&file.path), Use { pipeline, role: Role::Connector(file.usage), at }));
        }
    };
    add("source", pipeline.source.key, pipeline.source.files(pipeline.name()));
    add("sink", pipeline.sink.key, pipeline.sink.files(pipeline.name()));
    if let Progress::Store(store) = &pipeline.progress {
        add("checkpoint", store.key, store.files(pipeline.name()));
    }
    uses
}

/// Returns the conflict of two settings that name one file.
fn conflict(first: &Use<'_>, second: &Use<'_>) -> Option<Problem> {
    match (first.role, second.role) {
        (Role::Connector(Usage::Stdin), Role::Connector(Usage::Stdin)) => {
            let why =
                format!("the pipeline `{}` reads standard input as well, and one alone can", first.pipeline.name());
            Some(second.problem(why).help("write the input into a file or a named pipe for each"))
        }
        (first_role, second_role) if !first_role.is_written() && !second_role.is_written() => None,
        (Role::Connector(first_usage), Role::Connector(second_usage)) => {
            written_twice((first, first_usage), (second, second_usage))
        }
        (Role::Connector(_), role) => Some(over_text(first, second, role)),
        (role, Role::Connector(_)) => Some(over_text(second, first, role)),
        _ => None,
    }
}

/// Returns the conflict of a written file that is a pipeline's file or script.
fn over_text(writer: &Use<'_>, text: &Use<'_>, role: Role) -> Problem {
    let verb = if role == Role::Script { "is the script of" } else { "declares" };
    let name = text.pipeline.name();
    writer.problem(format!("this file {verb} the pipeline `{name}`, and a write would destroy it"))
}

type Used<'a> = (&'a Use<'a>, Usage);

fn written_twice(first: Used<'_>, second: Used<'_>) -> Option<Problem> {
    let is_one_pipeline = first.0.pipeline.name() == second.0.pipeline.name();
    match (first.1, second.1) {
        (Usage::Lines, Usage::Lines) => {
            let other = first.0.pipeline.name();
            let problem = second.0.problem(format!("the pipeline `{other}` appends to this file, too"));
            Some(problem.help("give each pipeline a file of its own: one source can read all files of a directory"))
        }
        // Within one pipeline, the check of that pipeline has reported it. A pipeline may read the output of another.
        (Usage::Input, Usage::Lines) | (Usage::Lines, Usage::Input) => None,
        (Usage::Input | Usage::Stdin, usage) => Some(over_input(second.0, usage, first.0, is_one_pipeline)),
        (usage, Usage::Input | Usage::Stdin) => Some(over_input(first.0, usage, second.0, is_one_pipeline)),
        (Usage::Lines, usage) => Some(not_lines(first.0, usage, second.0, is_one_pipeline)),
        (usage, Usage::Lines) => Some(not_lines(second.0, usage, first.0, is_one_pipeline)),
        (Usage::Projection, Usage::Checkpoints) => Some(with_progress(first.0, second.0, is_one_pipeline)),
        (Usage::Checkpoints, Usage::Projection) => Some(with_progress(second.0, first.0, is_one_pipeline)),
        (first_usage, second_usage) if first_usage == second_usage => None,
        (Usage::CheckpointDirectory, _) => Some(not_a_directory(second.0, first.0)),
        (_, _) => Some(not_a_directory(first.0, second.0)),
    }
}

fn noun(usage: Usage) -> &'static str {
    match usage {
        Usage::Input => "feed",
        Usage::Stdin => "standard input",
        Usage::Lines => "file of lines",
        Usage::Projection => "database",
        Usage::Checkpoints => "checkpoint database",
        Usage::CheckpointDirectory => "checkpoint directory",
    }
}

/// Returns the possessive that names another pipeline.
fn owner(of: &Use<'_>, is_one_pipeline: bool) -> String {
    if is_one_pipeline { String::new() } else { format!(" of the pipeline `{}`", of.pipeline.name()) }
}

fn over_input(writer: &Use<'_>, usage: Usage, reader: &Use<'_>, is_one_pipeline: bool) -> Problem {
    let (noun, owner) = (noun(usage), owner(reader, is_one_pipeline));
    let problem = writer.problem(format!("this path is the feed of the source{owner}, so it cannot be the {noun}"));
    problem.help("name another path")
}

fn not_lines(lines: &Use<'_>, usage: Usage, other: &Use<'_>, is_one_pipeline: bool) -> Problem {
    lines.problem(format!("this file is the {}{}, not a file of lines", noun(usage), owner(other, is_one_pipeline)))
}

fn not_a_directory(database: &Use<'_>, directory: &Use<'_>) -> Problem {
    let name = directory.pipeline.name();
    database.problem(format!("this is the checkpoint directory of the pipeline `{name}`, not a database"))
}

/// Advises about tables and progress in one file. An operator who removes the file to rebuild the tables removes the progress,
/// too.
fn with_progress(projection: &Use<'_>, checkpoints: &Use<'_>, is_one_pipeline: bool) -> Problem {
    if is_one_pipeline {
        let why = "this database also holds the progress, but commits it in other transactions";
        let help = "write `checkpoint = \"sink\"`: every event then has its effect exactly once";
        return projection.problem(why).help(help).as_warning();
    }
    let owner = checkpoints.pipeline.name();
    let why =
        format!("this database also holds the progress of the pipeline `{owner}`, and removing the file removes both");
    projection.problem(why).help("give the tables a file of their own").as_warning()
}
