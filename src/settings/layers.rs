//! How the layers come together.

use std::ffi::OsString;
use std::path::Path;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::{DEFAULT_FILE, LogFormat, PREFIX, Settings};
use crate::document::{Document, Format, Problem, closest};

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
) -> Result<Settings, Vec<Problem>> {
    let mut figment = Figment::from(Serialized::defaults(Settings::default()));
    if let Some(document) = read(file)? {
        // figment names no line: what is wrong in the file is told from its own tree, before the layers mix.
        document.deserialize::<Settings>()?;
        figment = figment.merge(Layer::new(FILE, &document.root).map_err(|problem| vec![problem])?);
    }
    let environment = Environment::read(variables).map_err(|problem| vec![problem])?;
    let flags = Layer::new(FLAGS, &flags.nested()).map_err(|problem| vec![problem])?;
    figment
        .merge(environment)
        .merge(flags)
        // Variables are text; a number or a bool is read from it where one is expected.
        .extract_lossy()
        .map_err(|errors| errors.into_iter().map(|error| explain(&error)).collect())
}

fn read(file: Option<&Path>) -> Result<Option<Document>, Vec<Problem>> {
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

/// A layer that is there already.
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

/// `PROPULSIOND__SECTION__KEY`. Every value is text, so that a token of digits stays one.
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
                return Err(of_variable(&path, "its value is not UTF-8", None));
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
            help = closest(field, expected).map(str::to_owned);
            "no setting has this name".to_owned()
        }
        Kind::UnknownVariant(_, expected) => format!("expected one of `{}`", expected.join("`, `")),
        other => other.to_string(),
    };
    match error.metadata.as_ref().map(|metadata| &*metadata.name) {
        Some(FLAGS) => Problem::new(Path::new(&flag_of(&path)), message),
        Some(FILE) => Problem { path: path.join("."), ..Problem::new(Path::new(FILE), message) },
        _ => of_variable(&path, &message, help.map(|name| renamed(&path, &name))),
    }
}

/// Returns the expectation in words; figment's lossy reading has said what it found.
fn in_words(expected: &str) -> &str {
    if expected.starts_with("struct ") { "keys of its own: the name of a section takes no value" } else { expected }
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

fn variable_of(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join("__").to_ascii_uppercase())
}

fn flag_of(path: &[String]) -> String {
    format!("--{}", path.join("-").replace('_', "-"))
}
