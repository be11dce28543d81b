//! The effective values of a pipeline, and their origins.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::subject::Subject;
use crate::config::document::{Document, Format, Kind, Node, without_secrets};
use crate::config::scalar::Text;
use crate::connector::kind::Unset;
use crate::connector::{self, CheckpointSpec};
use crate::spec::{Checkpoint, Definition, Order, PipelineSpec, Progress};

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Setting {
    /// The keys that lead there, as in `sink.http.url`.
    pub path: String,
    /// The value as a file writes it, references unresolved. `null`: none; [`because`](Self::because) gives its meaning.
    pub value: Value,
    pub from: Origin,
    /// The reason for the value, or its meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<&'static str>,
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { file: String, line: usize },
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_str("default"),
            Self::File { file, line } => serde_json::json!({ "file": file, "line": line }).serialize(serializer),
        }
    }
}

/// The settings that have no value if a file leaves them out: path, the setting before it, meaning.
const ABSENT: [(&str, &str, &str); 8] = [
    ("filter.categories", "", "any"),
    ("filter.exclude_categories", "filter.categories", "none"),
    ("filter.streams", "filter.exclude_categories", "any"),
    ("filter.exclude_streams", "filter.streams", "none"),
    ("filter.events", "filter.exclude_streams", "any"),
    ("filter.exclude_events", "filter.events", "none"),
    ("schedule.max_bytes", "schedule.max_events", "no limit"),
    ("schedule.purge", "schedule.write_positions", "never"),
];

/// Returns every value of a pipeline, in the order of the declarations.
pub(super) fn values(subject: &Subject<'_>) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut path = Vec::new();
    let unset = unset(subject);
    each_leaf(&effective(subject), &mut path, &mut |path, value| settings.push(setting(subject, &unset, path, value)));
    for (path, behind, means) in ABSENT {
        if settings.iter().any(|setting| setting.path == path) {
            continue;
        }
        let table = path.split('.').next().unwrap_or_default();
        let at = match settings.iter().position(|setting| setting.path == behind) {
            Some(at) => at + 1,
            None => settings.iter().position(|setting| setting.path.starts_with(table)).unwrap_or(settings.len()),
        };
        let value = if table == "filter" { Value::Array(Vec::new()) } else { Value::Null };
        settings.insert(at, Setting { path: path.to_owned(), value, from: Origin::Default, because: Some(means) });
    }
    settings
}

/// Returns the spec with the values that other parts give it. A `Node` keeps the order of keys; JSON is YAML.
fn effective(subject: &Subject<'_>) -> Node {
    let mut spec = subject.spec().clone();
    spec.group.get_or_insert_with(|| Text::literal(subject.pipeline));
    spec.source_id.get_or_insert_with(|| Text::literal(&subject.definition.source_id()));
    spec.schedule.write_positions.get_or_insert(subject.keeps_write_positions());
    spec.errors.then.get_or_insert(subject.definition.then());
    if spec.checkpoint == Checkpoint::default() {
        spec.checkpoint = Checkpoint::Store(connector::default_store());
    }
    tree(&spec)
}

/// Returns the connectors' settings that the file leaves out, by their paths.
fn unset(subject: &Subject<'_>) -> BTreeMap<String, Unset> {
    let Definition { source, sink, progress, .. } = subject.definition;
    let mut unset = BTreeMap::new();
    let mut add = |role: &str, key: &str, settings: Vec<Unset>| {
        unset.extend(settings.into_iter().map(|setting| (format!("{role}.{key}.{}", setting.key), setting)));
    };
    add("source", source.key, source.unset(subject.pipeline));
    add("sink", sink.key, sink.unset(subject.pipeline));
    if let Progress::Store(store) = progress {
        add("checkpoint", store.key, store.unset(subject.pipeline));
    }
    unset
}

fn tree(spec: &PipelineSpec) -> Node {
    let text = serde_json::to_string(spec).expect("a spec is a tree of plain values");
    Document::parse(Path::new("spec"), text, Format::Yaml).expect("JSON is YAML").root
}

fn each_leaf(node: &Node, path: &mut Vec<String>, f: &mut impl FnMut(&[String], Value)) {
    match &node.kind {
        // An empty table is a leaf: parameters, or a kind without settings.
        Kind::Table(entries) if !entries.is_empty() => {
            for entry in entries {
                path.push(entry.key.to_string());
                each_leaf(&entry.value, path, f);
                path.pop();
            }
        }
        _ => f(path, serde_json::to_value(node).unwrap_or_default()),
    }
}

fn setting(subject: &Subject<'_>, unset: &BTreeMap<String, Unset>, path: &[String], value: Value) -> Setting {
    let keys: Vec<_> = path.iter().map(String::as_str).collect();
    let document = &subject.definition.loaded.document;
    let from = match document.line_of(&keys) {
        Some(line) => Origin::File { file: document.file.display().to_string(), line },
        None => Origin::Default,
    };
    let value = match subject.reference(&keys) {
        // The value of a reference may be a secret, and a masked value stays masked.
        Some(written) if value != "<secret>" => Value::from(written),
        _ => value,
    };
    let shown = shown_path(path);
    let unset = unset.get(&shown).filter(|_| from == Origin::Default);
    let value = unset.and_then(|unset| unset.value.clone()).unwrap_or(value);
    let because = unset.map(|unset| unset.because).or_else(|| because(subject, &shown, &from));
    Setting { value: concealed(keys.last().copied().unwrap_or_default(), value), path: shown, from, because }
}

/// Masks a suspected secret that the file writes in clear.
fn concealed(key: &str, value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| concealed(key, item)).collect(),
        Value::String(text) if text != "<secret>" => {
            let quoted = Value::from(text);
            let line = format!("{key} = {quoted}");
            let hidden = without_secrets(&line);
            if hidden != line {
                let rest = hidden.strip_prefix(&format!("{key} = ")).unwrap_or_default();
                return serde_json::from_str(rest).unwrap_or_else(|_| Value::from("<secret>"));
            }
            match quoted.as_str().and_then(|text| text.split_once('?')) {
                // The query of a url may hold a key.
                Some((url, query)) if url.contains("://") && !query.contains("${") => Value::from(format!("{url}?…")),
                _ => quoted,
            }
        }
        value => value,
    }
}

fn shown_path(path: &[String]) -> String {
    let is_plain = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    let keys = path.iter().map(|key| if is_plain(key) { key.clone() } else { Value::from(key.as_str()).to_string() });
    keys.collect::<Vec<_>>().join(".")
}

fn because(subject: &Subject<'_>, path: &str, from: &Origin) -> Option<&'static str> {
    let is_default = *from == Origin::Default;
    let default_store = format!("checkpoint.{}.path", CheckpointSpec::KINDS[0]);
    Some(match path {
        "schedule.write_positions" => return write_positions(subject, is_default),
        _ if !is_default => return None,
        "group" => "the pipeline's name",
        "source_id" => "the source's kind",
        _ if path == default_store && subject.document.node(&["checkpoint"]).is_none() => "no store is named",
        "errors.then" => "`park` if the store keeps parked events durably",
        "handler" => "the events themselves go to the sink",
        "sink" => "nothing is written",
        "handler.rhai.threads" => "as many as there are cores, at most `schedule.concurrency`",
        _ => return None,
    })
}

fn write_positions(subject: &Subject<'_>, is_default: bool) -> Option<&'static str> {
    let schedule = &subject.spec().schedule;
    let keeps = subject.keeps_write_positions();
    Some(match (subject.sink_holds_progress(), schedule.order) {
        _ if keeps && is_default && subject.spec().waits_for_all() => "`require_all` needs the position of each stream",
        (false, _) if is_default => "kept only where the sink holds the progress",
        (true, Order::Tranche | Order::None) if is_default => "kept only with `order = \"stream\"`",
        (true, Order::Stream) if is_default && subject.repeats() => {
            "the sink holds the progress, and the feed may repeat events"
        }
        (true, Order::Stream) if is_default => "the feed repeats no events",
        _ if schedule.write_positions == Some(true) && !keeps => {
            "without effect: kept only where the sink holds the progress, with `order = \"stream\"`"
        }
        _ => return None,
    })
}

/// The longest shown part of a value, in characters.
const MAX_SHOWN: usize = 60;
/// The rightmost column of comments.
const MAX_COLUMN: usize = 60;

/// Returns the values as lines of text.
pub(super) fn table(settings: &[Setting]) -> String {
    let lines: Vec<_> =
        settings.iter().map(|setting| format!("{} = {}", setting.path, shown(&setting.value))).collect();
    let widths = lines.iter().map(|line| line.chars().count()).filter(|width| *width <= MAX_COLUMN);
    let column = widths.max().unwrap_or_default();
    let mut out = String::new();
    for (line, setting) in lines.iter().zip(settings) {
        let from = match &setting.from {
            Origin::Default => "default".to_owned(),
            Origin::File { file, line } => format!("{file}:{line}"),
        };
        let because = setting.because.map(|because| format!(": {because}")).unwrap_or_default();
        out.push_str(&format!("  {line:column$}  # {from}{because}\n"));
    }
    out
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        value => value.to_string(),
    };
    // The table has one line for each value: line breaks of statements become spaces.
    let text = text.replace("\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
