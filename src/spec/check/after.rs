//! `after`: the pipeline that another one comes after.

use std::path::Path;

use serde_json::Value;

use super::super::{Definition, Loaded, SourceSpec, load_file, scan};
use super::identity::{FileId, resolved};
use super::parts;
use crate::config::document::{Problem, closest};
use crate::connector::prose::names;
use crate::connector::{Chosen, SourceKind};

const AFTER: &[&str] = &["after"];

/// Refuses an `after` that names no pipeline, the pipeline itself or a cycle, and one between different feeds.
pub(super) fn broken(pipelines: &[Definition]) -> Vec<Problem> {
    pipelines.iter().filter_map(|pipeline| judge(pipeline, pipelines)).collect()
}

fn judge(pipeline: &Definition, pipelines: &[Definition]) -> Option<Problem> {
    let after = pipeline.spec().after.as_ref().filter(|after| !after.is_hole())?;
    let problem = |why: String| pipeline.loaded.document.problem(AFTER, why);
    if **after == *pipeline.name() {
        let help = "remove `after`, or name the pipeline that goes first";
        return Some(problem("a pipeline cannot come after itself".to_owned()).help(help));
    }
    let leader = match find(after, pipeline.loaded.directory(), pipelines) {
        Found::Pipeline(leader) => leader,
        // The mistakes of its own file are reported with it.
        Found::Unreadable => return None,
        Found::Nothing(known) => return Some(unknown(problem, after, &known)),
    };
    if let Some(cycle) = cycle(pipeline, pipelines) {
        let why = format!("these pipelines wait for each other: {}", arrows(&cycle));
        return Some(problem(why).help("remove one `after` of the cycle"));
    }
    if let Some(why) = other_feed(pipeline, &leader) {
        let help = "both must read the same feed: the same source with the same settings";
        return Some(problem(why).help(help));
    }
    incomparable(&pipeline.source).map(|why| problem(why).help("remove `after`, or read another source in both"))
}

/// The pipeline of a name, among the checked ones or beside the file that names it.
enum Found {
    Pipeline(Box<Leader>),
    /// Its file is there, and is wrong.
    Unreadable,
    /// There is none. These names are known.
    Nothing(Vec<String>),
}

/// The facts of a pipeline that another one comes after.
struct Leader {
    loaded: Loaded,
    source: Option<Chosen<dyn SourceKind>>,
}

fn find(name: &str, directory: &Path, pipelines: &[Definition]) -> Found {
    if let Some(known) = pipelines.iter().find(|pipeline| pipeline.name() == name) {
        let (loaded, source) = (known.loaded.clone(), Some(known.source.clone()));
        return Found::Pipeline(Box::new(Leader { loaded, source }));
    }
    let stem = |file: &Path| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let beside = scan(directory).unwrap_or_default();
    let Some(file) = beside.iter().find(|file| stem(file) == name) else {
        let mut known: Vec<_> = pipelines.iter().map(|pipeline| pipeline.name().to_owned()).collect();
        known.extend(beside.iter().map(|file| stem(file)));
        known.sort();
        known.dedup();
        return Found::Nothing(known);
    };
    match load_file(file) {
        Ok(loaded) => {
            let (parts, _) = parts::choose(&loaded);
            Found::Pipeline(Box::new(Leader { loaded, source: parts.source }))
        }
        Err(_) => Found::Unreadable,
    }
}

/// The most pipelines that an error lists.
const MAX_NAMED: usize = 5;

fn unknown(problem: impl Fn(String) -> Problem, after: &str, known: &[String]) -> Problem {
    let problem = problem(format!("there is no pipeline `{after}`"));
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    match closest(after, &known) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None if known.len() <= MAX_NAMED => {
            problem.help(format!("the pipelines are {}", names(known.iter().copied(), "and")))
        }
        None => problem.help("a pipeline has the name of its file, without the ending"),
    }
}

/// Returns the names of the cycle that a pipeline is in, from itself to itself.
fn cycle(pipeline: &Definition, pipelines: &[Definition]) -> Option<Vec<String>> {
    let mut path = vec![pipeline.name().to_owned()];
    let mut next = pipeline.after()?.to_owned();
    let mut directory = pipeline.loaded.directory().to_owned();
    loop {
        if next == path[0] {
            path.push(next);
            return Some(path);
        }
        // A cycle that the pipeline only leads into is reported for its members.
        if path.contains(&next) {
            return None;
        }
        let Found::Pipeline(found) = find(&next, &directory, pipelines) else { return None };
        path.push(next);
        next = found.loaded.spec.after.as_deref()?.to_owned();
        directory = found.loaded.directory().to_owned();
    }
}

fn arrows(cycle: &[String]) -> String {
    cycle.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" after ")
}

/// Returns the difference between the feeds of two pipelines.
fn other_feed(pipeline: &Definition, leader: &Leader) -> Option<String> {
    let (own, other) = (&pipeline.source, leader.source.as_ref()?);
    let name = &leader.loaded.name;
    if own.key != other.key {
        return Some(format!("the pipeline `{name}` reads a `{other}` source, and this one a `{own}` source"));
    }
    let files = |source: &Chosen<dyn SourceKind>, loaded: &Loaded| -> Vec<_> {
        let files = source.files(&loaded.name).into_iter();
        files.map(|file| FileId::of(&resolved(&loaded.directory().join(&file.path)))).collect()
    };
    let is_same = pipeline.spec().source == leader.loaded.spec.source;
    if is_same && files(own, &pipeline.loaded) == files(other, &leader.loaded) {
        return None;
    }
    let why = match differing(&pipeline.spec().source, &leader.loaded.spec.source, own.key) {
        Some(key) => format!("the pipeline `{name}` reads another feed: `source.{}.{key}` differs", own.key),
        None => format!("the pipeline `{name}` reads another feed: the same path leads to another file"),
    };
    Some(why)
}

/// Returns the first setting of the sources that differs.
fn differing(own: &SourceSpec, other: &SourceSpec, kind: &str) -> Option<String> {
    let table = |spec: &SourceSpec| serde_json::to_value(spec).ok()?.get(kind).cloned();
    let (Value::Object(own), Value::Object(other)) = (table(own)?, table(other)?) else { return None };
    let keys = own.keys().chain(other.keys());
    keys.into_iter().find(|key| own.get(*key) != other.get(*key)).cloned()
}

/// Returns the reason for which the positions of two pipelines over a source cannot be compared.
fn incomparable(source: &Chosen<dyn SourceKind>) -> Option<String> {
    if source.contract().ordinals {
        return source.incomparable().map(|why| format!("`after` needs positions that two pipelines share, and {why}"));
    }
    Some(format!("`after` needs a source that numbers its events for good, and a `{source}` source numbers them anew"))
}
