//! The connectors of this binary and their settings, read from the JSON Schema of pipeline files.

mod settings;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::config::document::closest;
use crate::connector::prose::names;
use crate::connector::{CheckpointSpec, SinkSpec, SourceSpec};
use crate::spec::HandlerSpec;
use settings::Settings;

/// The tables of a pipeline file that choose a connector, each with the type of its schema.
const ROLES: [(&str, &str); 4] =
    [("source", "SourceSpec"), ("checkpoint", "CheckpointSpec"), ("handler", "HandlerSpec"), ("sink", "SinkSpec")];

/// A connector in one role.
#[derive(Clone, Debug)]
struct Entry {
    role: &'static str,
    name: &'static str,
    summary: String,
    /// The Cargo feature that this binary lacks.
    missing: Option<&'static str>,
}

impl Entry {
    fn key(&self) -> String {
        format!("{}.{}", self.role, self.name)
    }
}

/// The connectors that an argument names, or all.
#[derive(Debug)]
pub(crate) struct List<'a> {
    schema: &'a Value,
    entries: Vec<Entry>,
    /// The argument names connectors, whose settings are wanted.
    has_settings: bool,
}

/// Returns the list of connectors. `named` selects a role (`sink`), a name (`sqlite`) or one of both (`sink.sqlite`).
///
/// # Errors
/// No connector has that name. The error is a message, and help.
pub(crate) fn list<'a>(schema: &'a Value, named: Option<&str>) -> Result<List<'a>, (String, String)> {
    let all = entries(schema);
    let Some(named) = named else { return Ok(List { schema, entries: all, has_settings: false }) };
    let is_role = ROLES.iter().any(|(role, _)| *role == named);
    let is_named = |entry: &Entry| entry.role == named || entry.name == named || entry.key() == named;
    let entries: Vec<_> = all.iter().filter(|entry| is_named(entry)).cloned().collect();
    if !entries.is_empty() {
        return Ok(List { schema, entries, has_settings: !is_role });
    }
    let keys: Vec<_> = all.iter().map(Entry::key).collect();
    let known: Vec<_> = keys.iter().map(String::as_str).chain(all.iter().map(|entry| entry.name)).collect();
    let help = match closest(named, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let distinct: BTreeSet<_> = all.iter().map(|entry| entry.name).collect();
            format!("there are {}", names(distinct, "and"))
        }
    };
    Err((format!("there is no connector `{named}`"), help))
}

fn entries(schema: &Value) -> Vec<Entry> {
    let sources = SourceSpec::defaults().into_iter().map(|kind| (kind.key, kind.missing_feature()));
    let stores = CheckpointSpec::defaults().into_iter().map(|kind| (kind.key, kind.missing_feature()));
    let sinks = SinkSpec::defaults().into_iter().map(|kind| (kind.key, kind.missing_feature()));
    let handlers = HandlerSpec::KINDS.iter().map(|key| (*key, None));
    let of_roles: [Vec<_>; 4] = [sources.collect(), stores.collect(), handlers.collect(), sinks.collect()];
    let entry = |(role, spec), (name, missing)| {
        let summary = schema["$defs"][spec]["properties"][name]["description"].as_str().unwrap_or_default();
        Entry { role, name, summary: summary.to_owned(), missing }
    };
    ROLES
        .into_iter()
        .zip(of_roles)
        .flat_map(|(role, kinds)| kinds.into_iter().map(move |kind| entry(role, kind)))
        .collect()
}

impl List<'_> {
    fn settings(&self, entry: &Entry) -> Settings {
        let (_, spec) = ROLES.into_iter().find(|(role, _)| *role == entry.role).expect("an entry has one of the roles");
        Settings::new(self.schema, &self.schema["$defs"][spec]["properties"][entry.name])
    }

    pub(crate) fn render(&self) -> String {
        if !self.has_settings {
            return self.render_lines();
        }
        let parts = self.entries.iter().map(|entry| self.settings(entry).render(entry.role, entry.name));
        parts.collect::<Vec<_>>().join("\n")
    }

    /// Renders a line for each name, with its roles.
    fn render_lines(&self) -> String {
        let mut by_name: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for entry in &self.entries {
            by_name.entry(entry.name).or_default().push(entry);
        }
        let width = by_name.keys().map(|name| name.len()).chain(["CONNECTOR".len()]).max().unwrap_or_default();
        let mut text = format!("{:width$}  SOURCE  CHECKPOINT  HANDLER  SINK\n", "CONNECTOR");
        for (name, entries) in by_name {
            text.push_str(&format!("{name:width$}"));
            for (role, _) in ROLES {
                let mark = if entries.iter().any(|entry| entry.role == role) { "✓" } else { "" };
                text.push_str(&format!("  {mark:^cell$}", cell = role.len()));
            }
            let summary = |entry: &&Entry| match entries.len() {
                1 => entry.summary.clone(),
                _ => format!("{}: {}", entry.role, entry.summary),
            };
            let summaries: Vec<_> = entries.iter().map(summary).collect();
            let lacks = entries.iter().find_map(|entry| entry.missing);
            let lacks = lacks.map(|feature| format!(" (not in this binary: feature `{feature}`)"));
            text.push_str(&format!("  {}{}\n", summaries.join(" "), lacks.unwrap_or_default()));
        }
        let example = self.entries.last().map(Entry::key).unwrap_or_default();
        text.push_str(&format!("\n`propulsiond list {example}` prints the settings of that connector.\n"));
        text
    }

    pub(crate) fn to_json(&self) -> Value {
        let described = |entry: &Entry| {
            let mut described = json!({
                "connector": entry.name,
                "role": entry.role,
                "summary": entry.summary,
                "missing_feature": entry.missing,
            });
            if self.has_settings {
                let settings = self.settings(entry);
                described["settings"] = settings.to_json();
                described["example"] = json!(settings.example(entry.role, entry.name));
            }
            described
        };
        self.entries.iter().map(described).collect()
    }
}
