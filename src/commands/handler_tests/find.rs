//! The search for test files and their pipelines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::document::{Format, Problem, closest};
use crate::formats::words::io_error;
use crate::spec;

/// A pipeline, and its test file if it has one.
pub(super) struct Found {
    pub(super) pipeline: PathBuf,
    pub(super) tests: Option<PathBuf>,
}

impl Found {
    pub(super) fn name(&self) -> String {
        stem(&self.pipeline)
    }
}

/// Returns whether a file is a test file, by its name.
pub fn is_test(file: &Path) -> bool {
    Format::of(file).is_some() && stem(file).ends_with(SUFFIX)
}

const SUFFIX: &str = ".test";

/// Returns the pipelines at `paths`, each with its tests.
///
/// # Errors
/// Paths that lead nowhere, and tests without a pipeline.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<Found>, Vec<Problem>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        match if path.is_dir() { in_directory(path) } else { at_file(path).map(|found| vec![found]) } {
            Ok(more) => found.extend(more),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn at_file(path: &Path) -> Result<Found, Vec<Problem>> {
    if is_test(path) {
        let name = owner(path);
        let directory = path.parent().unwrap_or(Path::new(""));
        return match Format::find(directory, &name) {
            Some(pipeline) => Ok(Found { pipeline, tests: Some(path.to_owned()) }),
            None => Err(vec![orphan(path, &[])]),
        };
    }
    let pipeline = spec::scan(path)?.pop().unwrap_or_default();
    let directory = path.parent().filter(|directory| *directory != Path::new("")).unwrap_or(Path::new("."));
    let mut tests = tests_in(directory)?;
    let mut tests = tests.remove(&stem(path)).unwrap_or_default();
    if tests.len() > 1 {
        return Err(vec![twice(&tests)]);
    }
    Ok(Found { pipeline, tests: tests.pop().map(|tests| beside(path, &tests)) })
}

fn in_directory(directory: &Path) -> Result<Vec<Found>, Vec<Problem>> {
    let pipelines = spec::scan(directory)?;
    let mut tests = tests_in(directory)?;
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for pipeline in pipelines {
        let mut tests = tests.remove(&stem(&pipeline)).unwrap_or_default();
        if tests.len() > 1 {
            problems.push(twice(&tests));
        }
        found.push(Found { tests: tests.pop(), pipeline });
    }
    let names: Vec<_> = found.iter().map(Found::name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    problems.extend(tests.values().flatten().map(|file| orphan(file, &names)));
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// Returns the test files of a directory by the name of their pipeline.
fn tests_in(directory: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, Vec<Problem>> {
    let failed = |error: std::io::Error| {
        vec![Problem::new(directory, format!("cannot read the directory: {}", io_error(&error)))]
    };
    let mut tests: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && is_test(&file) {
            tests.entry(owner(&file)).or_default().push(file);
        }
    }
    tests.values_mut().for_each(|files| files.sort());
    Ok(tests)
}

/// Returns the path of a file in the same directory, spelled as `path` is.
fn beside(path: &Path, file: &Path) -> PathBuf {
    path.with_file_name(file.file_name().unwrap_or_default())
}

/// Returns the name of the pipeline that a test file belongs to.
fn owner(tests: &Path) -> String {
    stem(tests).strip_suffix(SUFFIX).unwrap_or_default().to_owned()
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn orphan(tests: &Path, names: &[&str]) -> Problem {
    let name = owner(tests);
    let help = match closest(&name, names) {
        Some(meant) => format!("did you mean `{meant}{SUFFIX}`?"),
        None => format!("the pipeline is `{name}.toml`, `{name}.yaml` or `{name}.yml` in the same directory"),
    };
    Problem::new(tests, format!("there is no pipeline `{name}` beside this test file")).help(help)
}

fn twice(tests: &[PathBuf]) -> Problem {
    let other = tests[0].file_name().unwrap_or_default().to_string_lossy();
    Problem::new(&tests[1], format!("the file `{other}` has tests of this pipeline, too")).help("join the two files")
}
