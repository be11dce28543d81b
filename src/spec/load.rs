//! The search and parsing of pipeline files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{ErrorsSpec, PipelineSpec, ScheduleSpec, SinkSpec, SourceSpec};
use crate::config::document::{Document, Format, Kind, Problem};
use crate::config::filter;
use crate::config::scalar::{self, Text};
use crate::config::settings::{self, DaemonSettings};
use crate::connector::prose::names;
use crate::formats::words::io_error;

/// A pipeline file that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file's stem.
    pub name: String,
    pub document: Document,
    pub spec: PipelineSpec,
}

impl Loaded {
    pub fn file(&self) -> &Path {
        &self.document.file
    }

    /// Returns the directory of the file. The files that the pipeline reads stand beside it.
    pub fn directory(&self) -> &Path {
        directory_of(&self.document.file)
    }

    /// Returns the consumer group.
    pub fn group(&self) -> &str {
        self.spec.group.as_ref().map_or(&self.name, Text::identity)
    }

    /// Returns the files whose content `${file:PATH}` takes.
    pub fn referenced_files(&self) -> Vec<PathBuf> {
        let references = self.document.text.split("${file:").skip(1).filter_map(|rest| rest.split_once('}'));
        references.map(|(path, _)| self.directory().join(path)).collect()
    }

    /// Returns the spec with every default filled in, for display: references as the file writes them, secrets masked.
    pub fn normalised(&self) -> String {
        serde_json::to_string(&self.spec).expect("a spec is a tree of plain values")
    }
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

/// Reads the pipelines at several paths, files or directories.
///
/// # Errors
/// Everything that is wrong with any of them. [`find`] and [`load_file`] judge the files one by one.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Loaded>, Vec<Problem>> {
    let Found { files, mut problems } = search_paths(paths);
    let mut loaded = Vec::new();
    for file in files {
        match load_file(&file) {
            Ok(pipeline) => loaded.push(pipeline),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// Returns the pipeline files at several paths, files or directories. A file that several paths lead to is there once.
///
/// # Errors
/// A path cannot be searched or has no pipeline; a name is no name of a pipeline, or describes two.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Vec<Problem>> {
    let Found { files, problems } = search_paths(paths);
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

struct Found {
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
}

fn search_paths(paths: &[PathBuf]) -> Found {
    let mut problems = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        match scan(path) {
            Ok(found) if found.is_empty() => problems.push(no_pipeline(path)),
            Ok(found) => files.extend(found),
            Err(wrong) => problems.extend(wrong),
        }
    }
    let mut seen = BTreeSet::new();
    // Links beside each other are pipelines of their own: only the directory is resolved.
    files.retain(|file| seen.insert((directory_of(file).canonicalize().ok(), file.file_name().map(ToOwned::to_owned))));
    // Within one directory, `scan` has found these already.
    if problems.is_empty() {
        problems.extend(same_names(&files));
    }
    Found { files, problems }
}

fn no_pipeline(directory: &Path) -> Problem {
    let below: Vec<_> = subdirectories(directory).iter().map(|path| path.display().to_string()).collect();
    let help = match below.as_slice() {
        [] => "a pipeline is a file `NAME.toml`, `NAME.yaml` or `NAME.yml`, directly in the directory".to_owned(),
        _ => format!("subdirectories are not searched: name {}", names(below.iter().map(String::as_str), "or")),
    };
    Problem::new(directory, "there is no pipeline in this directory").help(help)
}

/// The depth to which [`subdirectories`] searches, and the number of entries of a directory that it looks at. It serves a
/// hint, and a directory of feeds can have very many entries.
const MAX_DEPTH: usize = 3;
const MAX_ENTRIES: usize = 1_000;

/// Returns the subdirectories that hold pipelines, sorted. Unreadable ones are left out.
pub fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    search(directory, MAX_DEPTH, &mut found);
    found.sort();
    found
}

fn search(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    // `file_type` does not follow links, so that a link to a parent directory ends the search.
    let directories =
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    for subdirectory in directories.filter(|path| !is_hidden(path)) {
        if scan(&subdirectory).is_ok_and(|files| files.iter().any(|file| has_source(file))) {
            found.push(subdirectory.clone());
        }
        if depth > 1 {
            search(&subdirectory, depth - 1, found);
        }
    }
}

/// Returns whether a file names a source, as only a pipeline does.
fn has_source(file: &Path) -> bool {
    let document = Format::of(file).and_then(|format| Document::read(file, format).ok());
    document.is_some_and(|document| document.node(&["source"]).is_some())
}

/// Returns the pipeline files at a path, sorted by name: the file itself, or those directly in the directory except dot
/// files and tests.
pub fn scan(path: &Path) -> Result<Vec<PathBuf>, Vec<Problem>> {
    let failed = |error: std::io::Error| {
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file or directory".to_owned(),
            _ => format!("cannot read the directory: {}", io_error(&error)),
        };
        vec![
            Problem::new(path, what)
                .help("begin a pipeline with `propulsiond new NAME`, or name a file or a directory of them"),
        ]
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        match judge(&file) {
            Candidate::Pipeline => files.push(file),
            Candidate::Other => {}
            Candidate::Wrong(problem) => problems.push(problem),
        }
    }
    files.sort();
    problems.extend(same_names(&files));
    problems.sort_by(|a, b| a.file.cmp(&b.file));
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

enum Candidate {
    Pipeline,
    Other,
    Wrong(Problem),
}

fn judge(file: &Path) -> Candidate {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return Candidate::Other };
    if name.starts_with('.') {
        return Candidate::Other;
    }
    if let Some(renamed) = nearly_named(name) {
        return Candidate::Wrong(wrong_ending(file).help(format!("rename it to `{renamed}`")));
    }
    let is_pipeline = Format::of(file).is_some() && !stem_of(file).ends_with(".test");
    if is_pipeline { Candidate::Pipeline } else { Candidate::Other }
}

fn wrong_ending(file: &Path) -> Problem {
    Problem::new(file, "a pipeline file ends in `.toml`, `.yaml` or `.yml`")
}

/// Returns the right name of a file whose extension is in upper case.
fn nearly_named(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let right = extension.to_ascii_lowercase();
    (extension != right && Format::EXTENSIONS.contains(&&*right)).then(|| format!("{stem}.{right}"))
}

fn stem_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn same_names(files: &[PathBuf]) -> Vec<Problem> {
    let mut by_name: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
    for file in files {
        by_name.entry(stem_of(file)).or_default().push(file);
    }
    let mut problems = Vec::new();
    for (name, files) in by_name {
        let [first, second, ..] = files[..] else { continue };
        let other = match first.parent() == second.parent() {
            true => first.file_name().unwrap_or_default().to_string_lossy(),
            false => first.to_string_lossy(),
        };
        let problem = Problem::new(second, format!("the file `{other}` describes the pipeline `{name}`, too"));
        problems.push(problem.help("remove or rename one of the files"));
    }
    problems
}

/// Reads one pipeline file.
///
/// # Errors
/// Every mistake that the file shows by itself. [`check`](super::check()) makes the cross-checks.
pub fn load_file(file: &Path) -> Result<Loaded, Vec<Problem>> {
    let name = stem_of(file);
    let Some(format) = Format::of(file) else {
        let problem = wrong_ending(file);
        let renamed = file.file_name().and_then(|name| nearly_named(name.to_str()?));
        return Err(vec![match renamed {
            Some(renamed) => problem.help(format!("rename it to `{renamed}`")),
            None if file.extension().is_some_and(|ending| ending == "rhai") => {
                problem.help("this is a script: name the pipeline that it belongs to")
            }
            None => problem,
        }]);
    };
    check_name(file, &name)?;
    let document = Document::read(file, format).map_err(|problem| vec![problem])?;
    parse(name, document)
}

fn check_name(file: &Path, name: &str) -> Result<(), Vec<Problem>> {
    if is_name(name) {
        return Ok(());
    }
    let problem = Problem::new(file, "a pipeline cannot have this name, which URLs and metrics contain");
    Err(vec![problem.help(NAMES)])
}

/// The rule for names of pipelines.
pub const NAMES: &str = "a name is at most 64 letters (a-z), digits, `-` and `_`, and begins with a letter or digit";

/// Returns whether a pipeline may have this name: see [`NAMES`].
pub fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain)
}

/// Parses a document as a pipeline.
///
/// # Errors
/// As [`load_file`]'s.
pub fn parse(name: String, document: Document) -> Result<Loaded, Vec<Problem>> {
    let is_empty = match &document.root.kind {
        Kind::Null => true,
        Kind::Table(entries) => entries.is_empty(),
        _ => false,
    };
    if is_empty {
        let problem = Problem::new(&document.file, "the file is empty");
        return Err(vec![problem.help(format!(
            "a pipeline has at least a source and a sink, such as `source.{}` and `sink.{}`",
            SourceSpec::KINDS[0],
            SinkSpec::KINDS[0]
        ))]);
    }
    let directory = directory_of(&document.file);
    let spec = scalar::relative_to(directory, || document.deserialize_with_hints(correct_table))?;
    Ok(Loaded { name, document, spec })
}

/// Returns the right place of a key that stands in the wrong table.
fn correct_table(key: &str) -> Option<String> {
    let has = |table: serde_json::Result<serde_json::Value>| table.is_ok_and(|table| table.get(key).is_some());
    let filters = ["categories", "exclude_categories", "streams", "exclude_streams", "events", "exclude_events"];
    let table = if has(serde_json::to_value(ScheduleSpec::default())) || ["max_bytes", "purge"].contains(&key) {
        "schedule"
    } else if has(serde_json::to_value(ErrorsSpec::default())) || key == "then" {
        "errors"
    } else if has(serde_json::to_value(filter::Settings::default())) || filters.contains(&key) {
        "filter"
    } else if ["group", "source_id", "after", "stop"].contains(&key) {
        return Some(format!("`{key}` belongs at the top of the file, before the first table"));
    } else if has(serde_json::to_value(DaemonSettings::default())) {
        return Some(format!("`{key}` is a setting of the daemon and belongs in `{}`", settings::DEFAULT_FILE));
    } else {
        return None;
    };
    Some(format!("`{key}` belongs in `{table}`"))
}
