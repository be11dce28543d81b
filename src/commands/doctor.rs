//! `doctor`: an inspection of the data directory and of everything that pipelines keep in it, and the repair of damage
//! that needs no decision (R73).
//!
//! A connector inspects its own files (`connector::kind`). This module decides which repositories are inspected, and finds
//! progress that belongs to no pipeline. In a directory that a daemon holds, unfinished writes are no diagnosis, and nothing
//! is repaired. No file is read into memory as a whole, and the number of diagnoses of each kind is bounded.

mod keys;
mod places;
mod rebuilds;
mod report;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::document::Problem;
use crate::config::scalar::allowing_missing;
use crate::connector::SourceSpec;
use crate::connector::diagnosis::{Diagnosis, Severity};
use crate::connector::kind::Scope;
use crate::daemon::data_dir::{self, DataDir};
use crate::daemon::exchange::context;
use crate::formats::words::io_error;
use crate::spec::{self, Definition};

use keys::Keys;

/// The result of an inspection.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub data: PathBuf,
    /// The holder of the data directory, such as `process 17`.
    pub holder: Option<String>,
    pub diagnoses: Vec<Diagnosis>,
}

/// The reason why nothing was inspected.
#[derive(Debug)]
pub(crate) enum NotLooked {
    /// The named pipelines do not exist.
    Files(Vec<Problem>),
    /// The data directory cannot be read, or a repair was asked for while it is in use.
    Environment(anyhow::Error),
}

/// Inspects the data directory and everything that the pipelines at `paths` keep. `fix`: repair damage; no other process
/// may use the directory meanwhile.
///
/// # Errors
/// Nothing could be inspected.
pub(crate) fn examine(data: &Path, paths: &[PathBuf], fix: bool) -> Result<Inspection, NotLooked> {
    let pipelines = Pipelines::load(paths).map_err(NotLooked::Files)?;
    if let Some(missing) = missing(data)? {
        return Ok(Inspection { data: data.to_owned(), holder: None, diagnoses: vec![missing] });
    }
    let held = if fix {
        Some(DataDir::lock(data).context("nothing was repaired").map_err(NotLooked::Environment)?)
    } else {
        None
    };
    let holder = if fix { None } else { holder(data)? };
    let mut diagnoses = Vec::new();
    diagnoses.extend(pipelines.unsure());
    if holder.is_none() && held.is_none() {
        diagnoses.extend(not_writable(data));
    }
    let scope = Scope { in_use: holder.is_some(), repair: fix };
    let look = Look { data, pipelines: &pipelines, scope };
    diagnoses.extend(look.everything());
    diagnoses.sort_by_key(|diagnosis| std::cmp::Reverse(diagnosis.severity));
    Ok(Inspection { data: data.to_owned(), holder, diagnoses })
}

fn missing(data: &Path) -> Result<Option<Diagnosis>, NotLooked> {
    match std::fs::read_dir(data) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let means =
                "no daemon ran here yet, or `--data-dir` names another directory; the daemon creates it at its start";
            Ok(Some(Diagnosis::new(Severity::Note, data, "the data directory does not exist", means)))
        }
        Err(error) => Err(NotLooked::Environment(
            anyhow::Error::msg(io_error(&error))
                .context(format!("cannot read the data directory `{}`", data.display())),
        )),
    }
}

fn holder(data: &Path) -> Result<Option<String>, NotLooked> {
    let holder = data_dir::holder(data)
        .with_context(|| format!("cannot find out which process uses the data directory `{}`", data.display()));
    holder.map_err(NotLooked::Environment)
}

fn not_writable(data: &Path) -> Option<Diagnosis> {
    let error = data_dir::try_writing(data).err()?;
    let means = "no pipeline can store progress or results in it, and the daemon does not start";
    let diagnosis = Diagnosis::new(
        Severity::Error,
        data,
        format!("the data directory cannot be written: {}", io_error(&error)),
        means,
    );
    Some(diagnosis.operator(
        "give the daemon's user the right to write there, and check that the disk is neither full nor read-only",
    ))
}

/// The pipelines whose files choose one of each part.
struct Pipelines {
    config: PathBuf,
    defined: Vec<Definition>,
    /// The reason why pipelines may be missing here, or may hold other values.
    unsure: Option<&'static str>,
}

impl Pipelines {
    fn load(paths: &[PathBuf]) -> Result<Self, Vec<Problem>> {
        let files = paths.iter().map(|path| spec::scan(path)).collect::<Result<Vec<_>, _>>()?.concat();
        let define = |file: &PathBuf| spec::load_file(file).and_then(spec::define);
        let all = |files: &[PathBuf]| -> Vec<_> { files.iter().map(define).collect() };
        let mut defined = all(&files);
        let mut unsure = None;
        if defined.iter().any(Result::is_err) {
            defined = allowing_missing(|| all(&files));
            let wrong = "some pipelines have errors, which `propulsiond check` lists";
            let unset = "some pipelines refer to variables that are not set here";
            unsure = Some(if defined.iter().any(Result::is_err) { wrong } else { unset });
        }
        Ok(Self { config: paths[0].clone(), defined: defined.into_iter().flatten().collect(), unsure })
    }

    fn unsure(&self) -> Option<Diagnosis> {
        let means = "checkpoints and files without a pipeline were not judged";
        self.unsure.map(|why| Diagnosis::new(Severity::Note, &self.config, why, means))
    }
}

/// The inspection of everything in the data directory.
struct Look<'a> {
    data: &'a Path,
    pipelines: &'a Pipelines,
    scope: Scope,
}

impl Look<'_> {
    fn everything(&self) -> Vec<Diagnosis> {
        let pipelines = &self.pipelines.defined;
        let mut keys = Keys::new(self.data, self.pipelines);
        let mut diagnoses = Vec::new();
        for repository in places::repositories(self.data, pipelines) {
            diagnoses.extend(repository.inspect(self.scope));
            keys.judge(&*repository);
        }
        diagnoses.extend(keys.finish());
        diagnoses.extend(pipelines.iter().flat_map(|definition| self.of_pipeline(definition)));
        diagnoses.extend(self.leftovers());
        diagnoses.extend(rebuilds::inspect(self.data));
        diagnoses
    }

    fn of_pipeline(&self, definition: &Definition) -> Vec<Diagnosis> {
        let context = context(definition, self.data);
        let mut diagnoses = definition.sink.inspect(&context, self.scope);
        diagnoses.extend(definition.source.inspect(&context, self.scope));
        diagnoses
    }

    /// Inspects the files that sources kept for pipelines that no longer exist.
    fn leftovers(&self) -> Vec<Diagnosis> {
        // If some pipelines are unknown, one of them may own the files.
        if self.pipelines.unsure.is_some() {
            return Vec::new();
        }
        let kinds = SourceSpec::defaults().into_iter();
        kinds
            .flat_map(|kind| {
                let is_owner = |name: &str| {
                    let of_kind = |definition: &&Definition| definition.source.key == kind.key;
                    self.pipelines
                        .defined
                        .iter()
                        .filter(of_kind)
                        .any(|definition| [definition.name(), definition.group()].contains(&name))
                };
                kind.inspect_leftovers(self.data, &is_owner)
            })
            .collect()
    }
}
