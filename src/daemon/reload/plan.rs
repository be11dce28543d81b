//! The plan of a reload: for each pipeline, the difference between its files and its running definition.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Action, Reloaded};
use crate::config::document::Problem;
use crate::config::scalar::Text;
use crate::script::Script;
use crate::spec::{self, Checked, Loaded, PipelineSpec};
use crate::telemetry::health::RefusedFile;

/// The changes by pipeline.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(super) changes: BTreeMap<String, Change>,
    pub(super) advice: Vec<Problem>,
}

/// The change of a pipeline.
#[derive(Debug)]
pub(crate) enum Change {
    Start(Box<Checked>),
    Stop,
    /// Only the handler or the filter changed.
    InPlace {
        new: Box<Checked>,
        changed: Vec<&'static str>,
        new_event_types: Vec<String>,
    },
    Restart {
        new: Box<Checked>,
        changed: Vec<&'static str>,
        new_event_types: Vec<String>,
    },
    Keep,
    Refuse(Vec<Problem>),
}

impl Plan {
    /// Reads and checks the files at `paths`, and compares them with the running definitions. `data` is the data directory.
    /// `gated`: the pipelines whose handlers the gate refuses, with the reasons.
    ///
    /// # Errors
    /// Mistakes that belong to no single pipeline: a directory that cannot be read or is empty, a bad file name.
    pub(super) fn make(
        running: &BTreeMap<String, Checked>,
        paths: &[PathBuf],
        data: &Path,
        gated: BTreeMap<String, Vec<Problem>>,
    ) -> Result<Self, Vec<Problem>> {
        let (mut passed, mut refused) = (BTreeMap::new(), gated);
        for file in spec::find(paths)? {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if refused.contains_key(&name) {
                continue;
            }
            match spec::load_file(&file).and_then(|loaded| alone(loaded, data)) {
                Ok(checked) => drop(passed.insert(name, checked)),
                Err(problems) => drop(refused.insert(name, problems)),
            }
        }
        let advice = refuse_conflicts(running, &mut passed, &mut refused, data)?;
        let mut changes: BTreeMap<_, _> = passed
            .into_iter()
            .map(|(name, new)| {
                let change = match running.get(&name) {
                    None => Change::Start(Box::new(new)),
                    Some(old) => Change::between(old, new),
                };
                (name, change)
            })
            .collect();
        changes.extend(refused.into_iter().map(|(name, problems)| (name, Change::Refuse(problems))));
        for name in running.keys() {
            changes.entry(name.clone()).or_insert(Change::Stop);
        }
        Ok(Self { changes, advice })
    }

    /// Returns the plan as a report shows it.
    pub(super) fn shown(&self) -> Vec<Reloaded> {
        self.changes.iter().map(|(name, change)| change.shown(name)).collect()
    }

    /// Returns the refused files.
    pub(super) fn refused(&self) -> Vec<RefusedFile> {
        let refused = self.changes.values().filter_map(|change| match change {
            Change::Refuse(problems) => problems.iter().find(|problem| problem.is_error()).or(problems.first()),
            _ => None,
        });
        refused.map(refused_file).collect()
    }
}

/// Returns a problem as the health shows it.
pub(super) fn refused_file(problem: &Problem) -> RefusedFile {
    RefusedFile { file: problem.file.display().to_string(), why: problem.with_help() }
}

/// Checks a pipeline by itself.
fn alone(loaded: Loaded, data: &Path) -> Result<Checked, Vec<Problem>> {
    let mut outcome = spec::check(vec![loaded], data)?;
    // Only `--allow-missing-env` lets a script be unknown.
    outcome.checked.pop().ok_or_else(Vec::new)
}

/// Checks all pipelines together, and refuses those that conflict with others. A refused pipeline takes part with its
/// running definition. Returns advice about the others.
///
/// # Errors
/// The conflict lies in no changed file.
fn refuse_conflicts(
    running: &BTreeMap<String, Checked>,
    passed: &mut BTreeMap<String, Checked>,
    refused: &mut BTreeMap<String, Vec<Problem>>,
    data: &Path,
) -> Result<Vec<Problem>, Vec<Problem>> {
    loop {
        let going_on = refused.keys().filter_map(|name| running.get(name));
        let together: Vec<_> =
            passed.values().chain(going_on).map(|checked| checked.definition.loaded.clone()).collect();
        let problems = match spec::check(together, data) {
            Ok(outcome) => return Ok(outcome.advice),
            Err(problems) => problems,
        };
        // The script of a refused pipeline may be broken by now. The running one is compiled already.
        let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
        let guilty: Vec<_> = passed
            .iter()
            .filter(|(name, new)| running.get(*name) != Some(*new))
            .map(|(name, new)| (name.clone(), new.definition.loaded.file().to_owned()))
            .filter(|(_, file)| errors.iter().any(|problem| problem.file == *file))
            .collect();
        if guilty.is_empty() {
            let is_of_refused = |problem: &&Problem| {
                refused.keys().filter_map(|name| running.get(name)).any(|old| belongs_to(problem, old))
            };
            let others: Vec<_> = errors.iter().filter(|problem| !is_of_refused(problem)).collect();
            return if others.is_empty() { Ok(Vec::new()) } else { Err(problems) };
        }
        for (name, file) in guilty {
            passed.remove(&name);
            let own = problems.iter().filter(|problem| problem.file == file).cloned().collect();
            refused.insert(name, own);
        }
    }
}

/// Returns whether a problem lies in the files of a pipeline.
fn belongs_to(problem: &Problem, checked: &Checked) -> bool {
    let loaded = &checked.definition.loaded;
    let script = loaded.spec.script().map(|script| loaded.directory().join(&**script));
    problem.file == loaded.file() || script.is_some_and(|script| script.parent() == problem.file.parent())
}

impl Change {
    /// Compares a running definition with a new one.
    fn between(old: &Checked, new: Checked) -> Self {
        if *old == new {
            return Self::Keep;
        }
        let changed = changed(old, &new);
        let new_event_types = new_event_types(old.script.as_ref(), new.script.as_ref());
        let new = Box::new(new);
        if is_in_place(old, &new) {
            Self::InPlace { new, changed, new_event_types }
        } else {
            Self::Restart { new, changed, new_event_types }
        }
    }

    fn shown(&self, name: &str) -> Reloaded {
        let plain = |action| Reloaded::new(name, action);
        match self {
            Self::Start(_) => plain(Action::Start),
            Self::Stop => plain(Action::Stop),
            Self::Keep => plain(Action::Keep),
            Self::Refuse(problems) => {
                let why: Vec<_> = problems.iter().map(Problem::with_help).collect();
                Reloaded { why: Some(why.join("\n")), ..plain(Action::Refuse) }
            }
            Self::InPlace { changed, new_event_types, .. } | Self::Restart { changed, new_event_types, .. } => {
                let action = if matches!(self, Self::InPlace { .. }) { Action::InPlace } else { Action::Restart };
                let changed = changed.iter().map(|&part| part.to_owned()).collect();
                Reloaded { changed, new_event_types: new_event_types.clone(), ..plain(action) }
            }
        }
    }
}

/// Returns the parts of a pipeline that differ.
fn changed(old: &Checked, new: &Checked) -> Vec<&'static str> {
    let (a, b) = (old.definition.spec(), new.definition.spec());
    let script = |checked: &Checked| checked.script.as_ref().map(Script::hash);
    let parts = [
        ("file", old.definition.loaded.file() != new.definition.loaded.file()),
        ("group", a.group != b.group),
        ("source_id", a.source_id != b.source_id),
        ("after", a.after != b.after),
        ("stop", a.stop != b.stop),
        ("source", a.source != b.source),
        ("checkpoint", a.checkpoint != b.checkpoint),
        ("filter", a.filter != b.filter),
        ("schedule", a.schedule != b.schedule),
        ("errors", a.errors != b.errors),
        ("handler", a.handler != b.handler),
        ("script", script(old) != script(new)),
        ("sink", a.sink != b.sink),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Returns whether a running pipeline can take the new definition: its threads, stores and limits stay.
///
/// With `upcast`, the script filters by type, and else the reader does. If that changes, nothing would filter the events that
/// are read and not handled yet.
fn is_in_place(old: &Checked, new: &Checked) -> bool {
    let same_file = old.definition.loaded.file() == new.definition.loaded.file();
    let frame = |checked: &Checked| -> PipelineSpec {
        let mut spec = checked.definition.spec().clone();
        spec.filter = Default::default();
        if let Some(rhai) = &mut spec.handler.rhai {
            (rhai.params, rhai.limits) = Default::default();
            rhai.script = Text::literal("");
        }
        spec
    };
    let upcasts = |checked: &Checked| checked.script.as_ref().map(Script::upcasts);
    same_file && upcasts(old) == upcasts(new) && frame(old) == frame(new)
}

/// Returns the event types that the new script names and the old one does not.
fn new_event_types(old: Option<&Script>, new: Option<&Script>) -> Vec<String> {
    let named = |script: Option<&Script>| script.map(Script::compared_texts).unwrap_or_default();
    let old = named(old);
    named(new).into_iter().filter(|name| !old.contains(name)).collect()
}
