//! `doctor`: a look over the data folder and everything that pipelines keep in it, and the mending of what can be mended
//! without a decision (R73).
//!
//! What a connector knows of its own files it judges itself (`connector::…::inspect`); here is decided where to look, and
//! what belongs to nobody. A folder that a daemon holds is looked at, but what may be under way in it is no finding, and
//! nothing in it is mended. Nothing is read into memory as a whole, and of each kind a bounded number of findings is told.

mod keys;
mod places;
mod report;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::document::Problem;
use crate::config::scalar::allowing_missing;
use crate::connector::diagnosis::{Finding, Severity};
use crate::connector::{Context, file, json, sqlite};
use crate::daemon::data_dir::{self, DataFolder};
use crate::formats::words::io_error;
use crate::spec::{self, Loaded};

use keys::Keys;
use places::Places;

/// What was found, and what is left of it.
#[derive(Debug)]
pub struct Diagnosis {
    pub data: PathBuf,
    /// Who holds the data folder, such as `process 17`.
    pub holder: Option<String>,
    pub findings: Vec<Finding>,
}

/// Why nothing was looked at.
#[derive(Debug)]
pub enum NotLooked {
    /// The pipelines that were named are not there.
    Files(Vec<Problem>),
    /// The data folder cannot be read, or is in use and was to be mended.
    Environment(anyhow::Error),
}

/// Looks over the data folder and what the pipelines at `config` keep. `fix`: mend what can be mended; nobody else may use
/// the folder meanwhile.
///
/// # Errors
/// Nothing could be looked at.
pub fn examine(data: &Path, config: &Path, fix: bool) -> Result<Diagnosis, NotLooked> {
    let pipelines = Pipelines::load(config).map_err(NotLooked::Files)?;
    if let Some(missing) = missing(data)? {
        return Ok(Diagnosis { data: data.to_owned(), holder: None, findings: vec![missing] });
    }
    let held = if fix {
        Some(DataFolder::take(data).context("nothing was mended").map_err(NotLooked::Environment)?)
    } else {
        None
    };
    let holder = if fix { None } else { holder(data)? };
    let mut findings = Vec::new();
    findings.extend(pipelines.unsure());
    if holder.is_none() && held.is_none() {
        findings.extend(not_writable(data));
    }
    let look = Look { data, pipelines: &pipelines, in_use: holder.is_some(), mend: fix };
    findings.extend(look.everything());
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(Diagnosis { data: data.to_owned(), holder, findings })
}

fn missing(data: &Path) -> Result<Option<Finding>, NotLooked> {
    match std::fs::read_dir(data) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let means =
                "nothing was run here yet, or `--data-dir` names another folder; the daemon makes it when it starts";
            Ok(Some(Finding::new(Severity::Note, data, "there is no data folder", means)))
        }
        Err(error) => Err(NotLooked::Environment(
            anyhow::Error::msg(io_error(&error)).context(format!("cannot read the data folder `{}`", data.display())),
        )),
    }
}

fn holder(data: &Path) -> Result<Option<String>, NotLooked> {
    let holder =
        data_dir::holder(data).with_context(|| format!("cannot look at who uses the data folder `{}`", data.display()));
    holder.map_err(NotLooked::Environment)
}

fn not_writable(data: &Path) -> Option<Finding> {
    let error = data_dir::try_writing(data).err()?;
    let means = "no pipeline can keep its progress or its results in it, and the daemon does not start";
    let finding = Finding::new(
        Severity::Error,
        data,
        format!("the data folder cannot be written to: {}", io_error(&error)),
        means,
    );
    Some(finding.person(
        "see to it that whoever runs the daemon may write there, and that the disk is neither full nor read-only",
    ))
}

/// The pipelines whose files could be read.
struct Pipelines {
    config: PathBuf,
    loaded: Vec<Loaded>,
    /// Why it is not known whether these are all, and what they mean.
    unsure: Option<&'static str>,
}

impl Pipelines {
    fn load(config: &Path) -> Result<Self, Vec<Problem>> {
        let files = spec::scan(config)?;
        let all = |files: &[PathBuf]| -> Vec<_> { files.iter().map(|file| spec::load_file(file)).collect() };
        let mut loaded = all(&files);
        let mut unsure = None;
        if loaded.iter().any(Result::is_err) {
            loaded = allowing_missing(|| all(&files));
            let wrong = "some of the pipelines have mistakes, which `propulsiond check` explains";
            let unset = "some of the pipelines refer to variables that are not set here";
            unsure = Some(if loaded.iter().any(Result::is_err) { wrong } else { unset });
        }
        Ok(Self { config: config.to_owned(), loaded: loaded.into_iter().flatten().collect(), unsure })
    }

    fn unsure(&self) -> Option<Finding> {
        let means = "what belongs to none of the pipelines was not judged";
        self.unsure.map(|why| Finding::new(Severity::Note, &self.config, why, means))
    }
}

/// A look at everything there is.
struct Look<'a> {
    data: &'a Path,
    pipelines: &'a Pipelines,
    in_use: bool,
    mend: bool,
}

impl Look<'_> {
    fn everything(&self) -> Vec<Finding> {
        let places = Places::of(self.data, &self.pipelines.loaded);
        let mut keys = Keys::new(self.data, self.pipelines);
        let mut findings = Vec::new();
        for path in &places.databases {
            let inspected = sqlite::inspect::inspect(path, self.in_use, self.mend);
            findings.extend(inspected.findings);
            keys.in_database(path, inspected.kept);
        }
        for folder in &places.checkpoints {
            let found = file::store::inspect::inspect(folder, self.in_use, self.mend, &mut |path, kept| {
                keys.in_file(path, kept)
            });
            findings.extend(found);
        }
        findings.extend(keys.finish());
        findings.extend(self.pipelines.loaded.iter().flat_map(|loaded| self.of_pipeline(loaded)));
        findings.extend(places::numbers_of_nobody(self.data, self.pipelines));
        findings
    }

    fn of_pipeline(&self, loaded: &Loaded) -> Vec<Finding> {
        let mut findings = Vec::new();
        let context = context(loaded, self.data);
        // A line that is being written is not torn.
        if let Some(settings) = loaded.spec.sink.file.as_ref().filter(|_| !self.in_use) {
            findings.extend(file::sink::inspect::inspect(settings, &context, self.mend));
        }
        if loaded.spec.source.json.is_some() {
            findings.extend(json::inspect::inspect(
                &json::inspect::numbers_folder(self.data).join(json::inspect::registry_name(loaded.group())),
            ));
        }
        findings
    }
}

/// What a pipeline's connectors are told of it.
fn context(loaded: &Loaded, data: &Path) -> Context {
    Context {
        pipeline: loaded.name.as_str().into(),
        group: loaded.group().into(),
        folder: loaded.folder().to_owned(),
        data: data.to_owned(),
    }
}
