//! The search and parsing of pipeline files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{ErrorsSpec, PipelineSpec, ScheduleSpec, SinkSpec, SourceSpec};
use crate::config::document::{Document, Format, Kind, Problem};
use crate::config::filter;
use crate::config::scalar::Text;
use crate::config::settings::{self, DaemonSettings};
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
        match self.document.file.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        }
    }

    /// Returns the consumer group.
    pub fn group(&self) -> &str {
        self.spec.group.as_ref().map_or(&self.name, Text::identity)
    }

    /// Returns the spec with every default filled in, for display: references as the file writes them, secrets masked.
    pub fn normalised(&self) -> String {
        serde_json::to_string(&self.spec).expect("a spec is a tree of plain values")
    }
}

/// Reads the pipelines at a path, a file or a directory.
///
/// # Errors
/// Everything that is wrong with any of them. [`scan`] and [`load_file`] judge the files one by one.
pub fn load(path: &Path) -> Result<Vec<Loaded>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut loaded = Vec::new();
    let files = scan(path)?;
    if files.is_empty() {
        let problem = Problem::new(path, "there is no pipeline in this directory");
        problems.push(problem.help("a pipeline is a file `NAME.toml` or `NAME.yaml`, directly in the directory"));
    }
    for file in files {
        match load_file(&file) {
            Ok(pipeline) => loaded.push(pipeline),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
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
    Problem::new(file, "a pipeline file ends in `.toml` or `.yaml`")
}

/// Returns the right name of a file whose ending is nearly right.
fn nearly_named(name: &str) -> Option<String> {
    let (stem, ending) = name.rsplit_once('.')?;
    let right = match ending.to_ascii_lowercase().as_str() {
        "toml" => "toml",
        "yaml" | "yml" => "yaml",
        _ => return None,
    };
    (ending != right).then(|| format!("{stem}.{right}"))
}

fn stem_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn same_names(files: &[PathBuf]) -> Vec<Problem> {
    let mut by_name: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
    for file in files {
        by_name.entry(stem_of(file)).or_default().push(file);
    }
    let twice = by_name.iter().filter(|(_, files)| files.len() > 1);
    twice
        .map(|(name, files)| {
            let other = files[0].file_name().unwrap_or_default().to_string_lossy();
            Problem::new(files[1], format!("the pipeline `{name}` is described by `{other}` as well"))
                .help("remove one of the files")
        })
        .collect()
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
    let problem = Problem::new(file, "this name cannot be a pipeline's: it is part of URLs and a metric's label");
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
    let spec = document.deserialize_with_hints(correct_table)?;
    Ok(Loaded { name, document, spec })
}

/// Returns the right place of a key that stands in the wrong table.
fn correct_table(key: &str) -> Option<String> {
    let has = |table: serde_json::Result<serde_json::Value>| table.is_ok_and(|table| table.get(key).is_some());
    let filters = ["categories", "exclude_categories", "streams", "exclude_streams", "events", "exclude_events"];
    let table = if has(serde_json::to_value(ScheduleSpec::default())) || ["max_bytes", "purge"].contains(&key) {
        "schedule"
    } else if has(serde_json::to_value(ErrorsSpec::default())) {
        "errors"
    } else if has(serde_json::to_value(filter::Settings::default())) || filters.contains(&key) {
        "filter"
    } else if ["group", "source_id", "stop"].contains(&key) {
        return Some(format!("`{key}` stands at the top of the file, before the first table"));
    } else if has(serde_json::to_value(DaemonSettings::default())) {
        return Some(format!("`{key}` is the daemon's: it belongs in `{}`", settings::DEFAULT_FILE));
    } else {
        return None;
    };
    Some(format!("`{key}` belongs in `{table}`"))
}
