//! `diff`: compares the effects of a pipeline's handler with those of another one, over the last events of the source.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::clock;
use crate::config::document::{Format, Problem};
use crate::config::scalar::Text;
use crate::connector::Context;
use crate::connector::prose::counted;
use crate::daemon::apart::{self, Apart};
use crate::daemon::effects::{self, Comparison, Side};
use crate::spec::{self, Checked};

/// The most streams that the text shows.
const MAX_SHOWN: usize = 20;

/// A finished comparison.
#[derive(Debug)]
pub(crate) struct Diff {
    pipeline: String,
    against: PathBuf,
    pub comparison: Comparison,
}

/// The reason why nothing was compared.
#[derive(Debug)]
pub(crate) enum NotCompared {
    /// A file is wrong, or has no script.
    Files(Vec<Problem>),
    /// The source cannot be read.
    Unreadable(anyhow::Error),
}

impl From<Vec<Problem>> for NotCompared {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Files(problems)
    }
}

/// Compares the handler of a pipeline's file with that of another pipeline file or script. `data` is the data directory.
///
/// # Errors
/// A file is wrong, or the source cannot be read.
pub(crate) async fn run(data: &Path, file: &Path, against: &Path, last: NonZeroUsize) -> Result<Diff, NotCompared> {
    let old = checked(file, data)?;
    let new = if Format::of(against).is_some() { checked(against, data)? } else { with_script(&old, against)? };
    let (old_side, new_side) = (side(&old)?, side(&new)?);
    let definition = &old.definition;
    let context = Context {
        group: definition.group().into(),
        ..Context::new(definition.name(), definition.loaded.directory(), data)
    };
    let apart = Apart::open(&*definition.source, &context).map_err(NotCompared::Unreadable)?;
    let apart = apart.ok_or_else(|| {
        NotCompared::Unreadable(anyhow::anyhow!(
            "source `{}` delivers each event only once: there is nothing to compare the handlers with",
            definition.source
        ))
    })?;
    let starts = apart::logged(definition, &context).await;
    let takes = |event: &_| old_side.takes(event) || new_side.takes(event);
    let sample = apart.last(last.get(), apart::MAX_READ_TIME, &starts, takes).await.map_err(NotCompared::Unreadable)?;
    let comparison = effects::compare(old_side.clone(), new_side.clone(), sample, clock::wall()).await;
    let comparison = comparison.map_err(NotCompared::Unreadable)?;
    Ok(Diff { pipeline: definition.name().to_owned(), against: against.to_owned(), comparison })
}

fn checked(file: &Path, data: &Path) -> Result<Checked, Vec<Problem>> {
    let mut outcome = spec::check(vec![spec::load_file(file)?], data)?;
    outcome.checked.pop().ok_or_else(|| vec![Problem::new(file, "the script of the pipeline is unknown")])
}

/// Returns the pipeline with another script.
fn with_script(checked: &Checked, script: &Path) -> Result<Checked, Vec<Problem>> {
    let problem = |why: &str| vec![Problem::new(script, why).help("name a pipeline file or a script in rhai")];
    if script.extension().is_none_or(|extension| extension != "rhai") {
        return Err(problem("this is neither a pipeline file nor a script"));
    }
    let path = std::path::absolute(script).unwrap_or_else(|_| script.to_owned());
    if !path.is_file() {
        return Err(problem("there is no such file"));
    }
    let mut other = checked.clone();
    if let Some(rhai) = &mut other.definition.loaded.spec.handler.rhai {
        rhai.script = Text::literal(&path.display().to_string());
    }
    let (script, problems) = spec::compile_script(&other.definition.loaded)?;
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    Ok(Checked { script, ..other })
}

fn side(checked: &Checked) -> Result<Side, Vec<Problem>> {
    let file = checked.definition.loaded.file();
    let why = "this pipeline has no script: the events themselves go to its sink";
    Side::new(checked).ok_or_else(|| vec![Problem::new(file, why)])
}

impl Diff {
    pub(crate) fn render(&self) -> String {
        let Self { pipeline, against, comparison } = self;
        let mut text = format!("{pipeline} against {}: the last {}\n", against.display(), comparison.extent());
        for difference in comparison.differences.iter().take(MAX_SHOWN) {
            text.push_str(&difference.render());
        }
        let rest = comparison.differences.len().saturating_sub(MAX_SHOWN);
        if rest > 0 {
            text.push_str(&format!("{} more differ; `--json` shows all\n", counted(rest as u64, "stream")));
        }
        let end = if comparison.is_equal() { "the effects are equal".to_owned() } else { comparison.totals() };
        text.push_str(&format!("{end}\n"));
        text
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "pipeline": self.pipeline,
            "against": self.against.display().to_string(),
            "equal": self.comparison.is_equal(),
            "comparison": self.comparison,
        })
    }
}
