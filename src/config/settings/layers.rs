//! Merges the layers of the settings: defaults, file, environment, flags.

use std::ffi::OsString;
use std::path::Path;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::{BadLevel, DEFAULT_FILE, DaemonSettings, LogFormat, LogLevels, PREFIX};
use crate::config::document::{Document, Format, Problem, closest};

/// The settings that flags override.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub listen: Option<String>,
    pub data_dir: Option<String>,
    pub drain: Option<String>,
    pub log_format: Option<LogFormat>,
    pub log_level: Option<String>,
}

const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "flags";

pub(super) fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &Flags,
) -> Result<DaemonSettings, Vec<Problem>> {
    let mut figment = Figment::from(Serialized::defaults(DaemonSettings::default()));
    let document = read(file)?;
    if let Some(document) = &document {
        // figment names no line. The errors of the file come from its own tree, before the layers are merged.
        document.deserialize_with_hints::<DaemonSettings>(hint)?;
        figment = figment.merge(Layer::new(FILE, &document.root).map_err(|problem| vec![problem])?);
    }
    let environment = Environment::read(variables).map_err(|problem| vec![problem])?;
    let flags = Layer::new(FLAGS, &flags.nested()).map_err(|problem| vec![problem])?;
    let figment = figment.merge(environment).merge(flags);
    let settings: DaemonSettings = figment
        // Variables are text; a number or a bool is read from it where one is expected.
        .extract_lossy()
        .map_err(|errors| errors.into_iter().map(|error| explain(&error)).collect::<Vec<_>>())?;
    let mistakes: Vec<_> =
        mistakes(&settings).into_iter().map(|mistake| mistake.locate(&figment, document.as_ref())).collect();
    if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
}

/// Returns help for an unknown key that exists in a pipeline's file or in another section.
fn hint(key: &str) -> Option<String> {
    const OF_PIPELINES: [&str; 10] =
        ["source", "sink", "handler", "checkpoint", "filter", "schedule", "errors", "group", "source_id", "stop"];
    if OF_PIPELINES.contains(&key) {
        return Some(format!("`{key}` belongs in a pipeline's file, such as `pipelines/NAME.toml`"));
    }
    paths().into_iter().find(|path| path.len() > 1 && path.last().is_some_and(|last| last == key)).map(|path| {
        let table = path[..path.len() - 1].join(".");
        format!("`{key}` belongs in `{table}`")
    })
}

/// Returns the paths of all settings.
fn paths() -> Vec<Vec<String>> {
    fn walk(value: &serde_json::Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        match value.as_object() {
            Some(entries) => {
                for (key, value) in entries {
                    path.push(key.clone());
                    walk(value, path, found);
                    path.pop();
                }
            }
            None => found.push(path.clone()),
        }
    }
    let mut found = vec![vec!["http".to_owned(), "token".to_owned()]];
    let defaults = serde_json::to_value(DaemonSettings::default()).expect("settings are a tree of plain values");
    walk(&defaults, &mut Vec::new(), &mut found);
    found
}

/// Returns advice about variables that have one underscore in place of two.
pub(super) fn unread(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Problem> {
    let known: Vec<_> = paths().iter().map(|path| variable_of(path)).collect();
    let single = |variable: &str| variable.replace("__", "_");
    variables
        .into_iter()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| !name.starts_with(PREFIX))
        .filter_map(|name| {
            let meant = known.iter().find(|known| single(known) == name)?;
            let problem = Problem::new(Path::new(&name), "this variable is not read");
            Some(problem.help(format!("did you mean `{meant}`, with two underscores?")).as_warning())
        })
        .collect()
}

/// A value that its type allows, and a cross-check refuses.
struct Mistake {
    path: &'static [&'static str],
    why: String,
    help: Option<String>,
}

impl Mistake {
    /// Returns the problem with the origin of the value: a flag, a line of the file, or a variable.
    fn locate(self, figment: &Figment, document: Option<&Document>) -> Problem {
        let origin = figment.find_metadata(&self.path.join("."));
        let path: Vec<_> = self.path.iter().map(|key| (*key).to_owned()).collect();
        let problem = match (origin.map(|metadata| &*metadata.name), document) {
            (Some(FLAGS), _) => Problem::new(Path::new(&flag_of(&path)), self.why),
            (Some(FILE), Some(document)) => document.problem(self.path, self.why),
            _ => of_variable(&path, &self.why, None),
        };
        Problem { help: self.help, ..problem }
    }
}

fn mistakes(settings: &DaemonSettings) -> Vec<Mistake> {
    let mut found = Vec::new();
    if settings.data_dir.is_empty() && !settings.data_dir.is_hole() {
        found.push(Mistake { path: &["data_dir"], why: "`data_dir` must not be empty".to_owned(), help: None });
    }
    if !settings.log.level.is_hole() {
        let level = &settings.log.level;
        if let Err(BadLevel { message, help }) = LogLevels::parse(level) {
            // The value of a reference may be a secret.
            let (why, help) = match level.has_references() {
                true => (format!("the value of `{}` is not a log level", level.written()), None),
                false => (message, help),
            };
            found.push(Mistake { path: &["log", "level"], why, help });
        }
    }
    found
}

pub(super) fn read(file: Option<&Path>) -> Result<Option<Document>, Vec<Problem>> {
    let path = match file {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).exists() => Path::new(DEFAULT_FILE),
        None => return Ok(None),
    };
    Document::read(path, Format::Toml).map(Some).map_err(|problem| vec![problem])
}

impl Flags {
    fn nested(&self) -> serde_json::Value {
        let mut layer = serde_json::json!({
            "listen": self.listen,
            "data_dir": self.data_dir,
            "drain": self.drain,
            "log": { "format": self.log_format, "level": self.log_level },
        });
        remove_absent(&mut layer);
        layer
    }
}

fn remove_absent(value: &mut serde_json::Value) {
    if let serde_json::Value::Object(entries) = value {
        entries.values_mut().for_each(remove_absent);
        // A section without keys would hide that a variable gave the section itself a value.
        entries.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|section| !section.is_empty()));
    }
}

/// A layer of values in memory.
struct Layer {
    name: &'static str,
    values: Dict,
}

impl Layer {
    fn new(name: &'static str, values: &impl Serialize) -> Result<Self, Problem> {
        match Value::serialize(values).map_err(|error| explain(&error))? {
            Value::Dict(_, values) => Ok(Self { name, values }),
            _ => Ok(Self { name, values: Dict::new() }),
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// The variables `PROPULSIOND__SECTION__KEY`. Every value stays text, because a token can consist of digits.
struct Environment {
    values: Dict,
}

impl Environment {
    fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Problem> {
        let mut values = Dict::new();
        for (name, value) in variables {
            let Some(key) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let path: Vec<_> = key.split("__").map(str::to_ascii_lowercase).collect();
            let Some(value) = value.to_str() else {
                return Err(of_variable(&path, "the value of this variable is not UTF-8", None));
            };
            insert(&mut values, &path, value);
        }
        Ok(Self { values })
    }
}

fn insert(values: &mut Dict, path: &[String], value: &str) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        values.insert(key.clone(), Value::from(value));
        return;
    }
    let inner = values.entry(key.clone()).or_insert_with(|| Value::from(Dict::new()));
    if !matches!(inner, Value::Dict(..)) {
        *inner = Value::from(Dict::new());
    }
    if let Value::Dict(_, inner) = inner {
        insert(inner, rest, value);
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn explain(error: &Error) -> Problem {
    use figment::error::Kind;
    let mut path = error.path.clone();
    let mut help = None;
    let message = match &error.kind {
        Kind::Message(message) => message.clone(),
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => format!("expected {}", in_words(expected)),
        Kind::UnknownField(field, expected) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            help = closest(field, expected).map(|near| renamed(&path, near)).or_else(|| near_variable(&path));
            "no setting has this name".to_owned()
        }
        Kind::UnknownVariant(_, expected) => format!("expected one of `{}`", expected.join("` or `")),
        other => other.to_string(),
    };
    match error.metadata.as_ref().map(|metadata| &*metadata.name) {
        Some(FLAGS) => Problem::new(Path::new(&flag_of(&path)), message),
        Some(FILE) => Problem { path: path.join("."), ..Problem::new(Path::new(FILE), message) },
        _ => of_variable(&path, &message, help),
    }
}

/// Returns the expectation in words. The lossy reading of figment has lost the found type.
fn in_words(expected: &str) -> &str {
    if expected.starts_with("struct ") { "a section with keys, not a value" } else { expected }
}

fn of_variable(path: &[String], message: &str, help: Option<String>) -> Problem {
    let problem = Problem::new(Path::new(&variable_of(path)), message);
    match help {
        Some(help) => problem.help(help),
        None => problem,
    }
}

fn renamed(path: &[String], name: &str) -> String {
    let mut path = path.to_vec();
    if let Some(last) = path.last_mut() {
        *last = name.to_owned();
    }
    format!("did you mean `{}`?", variable_of(&path))
}

/// Returns the variable that resembles one with misplaced underscores.
fn near_variable(path: &[String]) -> Option<String> {
    let known: Vec<_> = paths().iter().map(|path| variable_of(path)).collect();
    let near = closest(&variable_of(path), &known.iter().map(String::as_str).collect::<Vec<_>>())?;
    Some(format!("did you mean `{near}`?"))
}

fn variable_of(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join("__").to_ascii_uppercase())
}

fn flag_of(path: &[String]) -> String {
    format!("--{}", path.join("-").replace('_', "-"))
}
