//! From a test file to calls, or to the mistakes that prevent them.

mod records;

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;

use super::file::{Class, EventSpec, Fails, Now, Returns, StreamSpec, TestFile, TestSpec};
use crate::clock::Timestamp;
use crate::config::document::{Document, Format, Kind as NodeKind, Location, Node, Problem};
use crate::config::filter::{Filter, FilterMatch};
use crate::config::scalar;
use crate::connector::SourceKind;
use crate::event::{Assembler, Event, Kind, Text};
use crate::position::Ordinal;
use crate::spec::{Definition, Loaded, Order};
use crate::work::{Work, WorkId, WorkKind};

/// The time of a case that gives none: the beginning of 2026.
const NOW: i64 = 1_767_225_600;

/// A call and its expected result.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) file: std::path::PathBuf,
    /// The location of its name.
    pub(super) location: Location,
    pub(super) now: OffsetDateTime,
    pub(super) streams: Vec<Stream>,
}

/// A stream of a call.
pub(super) struct Stream {
    pub(super) name: String,
    /// `None`: the filter excludes every event.
    pub(super) work: Option<Work>,
    /// The events that the filter excludes, in words.
    pub(super) excluded: Vec<String>,
    pub(super) emits: Emits,
    pub(super) ends: Ends,
}

pub(super) enum Emits {
    Exactly(Vec<Value>),
    /// Some of them, in this order.
    Some(Vec<Value>),
}

pub(super) enum Ends {
    Returns(Returns),
    Fails(Fails),
}

/// Reads the cases of a pipeline.
///
/// # Errors
/// All problems of the file.
pub(super) fn cases(file: &Path, definition: &Definition) -> Result<Vec<Case>, Vec<Problem>> {
    let format = Format::of(file).unwrap_or(Format::Toml);
    let document = Document::read(file, format).map_err(|problem| vec![problem])?;
    let TestFile { test } = document.deserialize()?;
    let root = At { document: &document, node: Some(&document.root), path: String::new() };
    if test.is_empty() {
        let help = "a test is a table `[[test]]` with `name`, `stream`, `events` and `emits`";
        return Err(vec![Problem::new(file, "there are no tests in this file").help(help)]);
    }
    let mut problems = Vec::new();
    let mut cases = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    for (number, spec) in test.into_iter().enumerate() {
        let at = root.key("test").item(number);
        let name = at.key("name");
        if let Some(line) = names.insert(spec.name.clone(), name.location().line) {
            problems.push(name.problem(format!("the test in line {line} has the same name")));
        }
        let planner = Planner { loaded: &definition.loaded, filter: &definition.filter, source: &*definition.source };
        match planner.case(spec, &at) {
            Ok(case) => cases.push(case),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(problems) }
}

fn usual_now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW).expect("it is within the years that there are")
}

/// Returns the problems of parameters that refer to missing variables: the script under test needs them.
pub(super) fn unknown_parameters(loaded: &Loaded) -> Vec<Problem> {
    let path = ["handler", "rhai", "params"];
    let Some(params) = loaded.document.node(&path) else { return Vec::new() };
    let mut texts = Vec::new();
    collect_texts(params, &mut texts);
    let unresolved = texts.into_iter().filter_map(|text| scalar::resolve(text).err());
    unresolved.map(|why| loaded.document.problem(&path, format!("{why}, and the tested script needs it"))).collect()
}

fn collect_texts<'a>(node: &'a Node, texts: &mut Vec<&'a str>) {
    match &node.kind {
        NodeKind::Text(text) => texts.push(text),
        NodeKind::List(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        NodeKind::Table(entries) => entries.iter().for_each(|entry| collect_texts(&entry.value, texts)),
        _ => {}
    }
}

/// A location in a document, for messages.
struct At<'a> {
    document: &'a Document,
    /// `None`: the document lacks it, and messages point at the table above.
    node: Option<&'a Node>,
    path: String,
}

impl<'a> At<'a> {
    fn key(&self, key: &str) -> At<'a> {
        let node = self.node.and_then(|node| node.entry(key)).map(|entry| &entry.value);
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        At { document: self.document, node: node.or(self.node), path }
    }

    fn item(&self, index: usize) -> At<'a> {
        let node = match self.node.map(|node| &node.kind) {
            Some(NodeKind::List(items)) => items.get(index),
            _ => None,
        };
        At { document: self.document, node: node.or(self.node), path: format!("{}[{index}]", self.path) }
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { path: self.path.clone(), ..Problem::new(&self.document.file, message).at(self.location()) }
    }

    fn location(&self) -> Location {
        self.document.location(self.node.map_or(0..0, |node| node.span.clone()))
    }
}

struct Planner<'a> {
    loaded: &'a Loaded,
    filter: &'a Filter,
    source: &'a dyn SourceKind,
}

impl Planner<'_> {
    fn case(&self, mut spec: TestSpec, at: &At<'_>) -> Result<Case, Vec<Problem>> {
        let location = at.key("name").location();
        let name = std::mem::take(&mut spec.name);
        let now = spec.now.map_or_else(usual_now, |Now(now)| now);
        let streams = self.streams(spec, at).map_err(|problem| vec![problem])?;
        let mut problems = Vec::new();
        let mut planned = Vec::new();
        for (stream, at) in streams {
            match self.stream(stream, &at) {
                Ok(stream) => planned.push(stream),
                Err(problem) => problems.push(problem),
            }
        }
        let file = at.document.file.clone();
        if problems.is_empty() { Ok(Case { name, file, location, now, streams: planned }) } else { Err(problems) }
    }

    fn streams<'d>(&self, mut spec: TestSpec, at: &At<'d>) -> Result<Vec<(StreamSpec, At<'d>)>, Problem> {
        let own = At { path: at.path.clone(), ..*at };
        let Some(streams) = spec.streams.take() else {
            let has_records = spec.has_records();
            for (key, is_there) in [("stream", spec.stream.is_some()), ("events", spec.events.is_some())] {
                if !is_there && !has_records {
                    return Err(at.key("name").problem(format!("the key `{key}` is missing in this test")));
                }
            }
            return Ok(vec![(spec.take_own_stream(), own)]);
        };
        let at = at.key("streams");
        let most = self.loaded.spec.schedule.streams_per_call.get();
        if spec.has_own_stream() {
            return Err(at
                .problem("`streams` cannot be combined with `stream` or its keys")
                .help("remove one of the two"));
        }
        if streams.is_empty() || streams.len() > most {
            let found = streams.len();
            let streams = if most == 1 { "one stream".to_owned() } else { format!("1 to {most} streams") };
            let why = format!("a call of this pipeline has {streams} (`schedule.streams_per_call`), not {found}");
            return Err(at.problem(why));
        }
        Ok(streams.into_iter().enumerate().map(|(index, stream)| (stream, at.item(index))).collect())
    }

    fn stream(&self, mut spec: StreamSpec, at: &At<'_>) -> Result<Stream, Problem> {
        let is_failure = spec.fails.is_some() || matches!(spec.returns, Some(Returns::Malformed(_)));
        let emits = emits(&spec.emits, &spec.emits_some, is_failure, at)?;
        let (returns, fails) = (spec.returns.take(), spec.fails.take());
        let ends = match (returns, fails) {
            (Some(_), Some(_)) => {
                return Err(at
                    .key("fails")
                    .problem("`fails` cannot be combined with `returns`")
                    .help("remove one of the two"));
            }
            (_, Some(fails)) => Ends::Fails(fails),
            (Some(Returns::Malformed(why)), None) => {
                Ends::Fails(Fails { class: Some(Class::Malformed), why: Some(why), index: None })
            }
            (returns, None) => Ends::Returns(returns.unwrap_or_default()),
        };
        let (name, events) = self.events(&spec, at)?;
        let next = events.last().map_or(spec.first_index, Event::next_index);
        let has_records = !events.is_empty();
        let (events, mut excluded) = self.excluded(events);
        if !has_records {
            excluded.push("every record (`map.when`)".to_owned());
        }
        let work = (!events.is_empty()).then(|| Work {
            id: WorkId { slot: 0, generation: 0 },
            kind: WorkKind::Handle,
            events,
            next,
            failures: 0,
            read_at: Timestamp::ZERO,
            late: false,
            trace: None,
        });
        Ok(Stream { name, work, excluded, emits, ends })
    }

    /// Returns the name of the stream and its events. Only records can give none.
    fn events(&self, spec: &StreamSpec, at: &At<'_>) -> Result<(String, Vec<Event>), Problem> {
        if let Some((key, text)) = records::text(spec, at)? {
            let at = at.key(key);
            let (name, events) = records::mapped(self.source, &text, spec, &at)?;
            if !events.is_empty() {
                self.fits_a_call(events.len()).map_err(|why| at.problem(why))?;
            }
            return Ok((name, events));
        }
        let (Some(name), Some(specs)) = (&spec.stream, &spec.events) else {
            let key = if spec.stream.is_none() { "stream" } else { "events" };
            return Err(at.problem(format!("the key `{key}` is missing in this stream")));
        };
        let at = at.key("events");
        self.fits_a_call(specs.len()).map_err(|why| at.problem(why))?;
        let mut events: Vec<Event> = Vec::with_capacity(specs.len());
        let mut next = spec.first_index;
        for (number, event) in specs.iter().enumerate() {
            let event = build(name, event, next, &events).map_err(|why| at.item(number).problem(why))?;
            next = event.next_index();
            events.push(event);
        }
        Ok((name.clone(), events))
    }

    /// Refuses events that no pipeline would offer in one call.
    fn fits_a_call(&self, events: usize) -> Result<(), String> {
        let schedule = &self.loaded.spec.schedule;
        let most = if schedule.order == Order::None { 1 } else { schedule.max_events.get() };
        let setting = if schedule.order == Order::None { "schedule.order" } else { "schedule.max_events" };
        match events {
            0 => Err("a call needs at least one event".to_owned()),
            events if events > most => Err(format!(
                "a call of this pipeline has at most {most} of a stream's events (`{setting}`), not {events}"
            )),
            _ => Ok(()),
        }
    }

    fn excluded(&self, events: Vec<Event>) -> (Vec<Event>, Vec<String>) {
        let mut excluded = Vec::new();
        let mut offered = Vec::new();
        for event in events {
            match self.filter.decide(&event) {
                FilterMatch::Keep => offered.push(event),
                FilterMatch::DropStream => {
                    excluded.push(format!("the event at index {} (stream `{}`)", event.index(), event.stream()));
                }
                FilterMatch::DropType => excluded.push(excluded_by_type(event.index(), event.event_type())),
            }
        }
        (offered, excluded)
    }
}

/// Names an event that the filter excludes by its type.
pub(super) fn excluded_by_type(index: i64, event_type: &str) -> String {
    format!("the event at index {index} (type `{event_type}`)")
}

fn emits(exactly: &Option<Vec<Value>>, some: &Option<Vec<Value>>, fails: bool, at: &At<'_>) -> Result<Emits, Problem> {
    let key = if some.is_some() { "emits_some" } else { "emits" };
    let at = at.key(key);
    let values = match (exactly, some) {
        (Some(_), Some(_)) => {
            return Err(at.problem("`emits_some` cannot be combined with `emits`").help("remove one of the two"));
        }
        (Some(values), None) | (None, Some(values)) => &values[..],
        (None, None) => &[],
    };
    if fails && !values.is_empty() {
        return Err(at.problem("the effects of a failed call reach no sink").help("remove it"));
    }
    let parsed = values.iter().enumerate().map(|(index, value)| {
        let text = json_text(value).map_err(|why| at.item(index).problem(why))?;
        serde_json::from_str(&text).map_err(|error| at.item(index).problem(format!("it is not JSON: {error}")))
    });
    let parsed = parsed.collect::<Result<Vec<Value>, _>>()?;
    Ok(if some.is_some() { Emits::Some(parsed) } else { Emits::Exactly(parsed) })
}

/// Makes an event.
///
/// # Errors
/// The event cannot exist. The message names the reason.
fn build(stream: &str, spec: &EventSpec, next: i64, before: &[Event]) -> Result<Event, String> {
    let index = spec.index.unwrap_or(next);
    if before.last().is_some_and(|last| last.is_unfold() && !spec.unfold) {
        return Err("an unfold must come after the events".to_owned());
    }
    if index < next && !before.is_empty() {
        return Err(format!("the index {index} is not greater than that of the event before"));
    }
    let body = match (&spec.data, &spec.raw) {
        (Some(_), Some(_)) => return Err("`raw` cannot be combined with `data`: remove one of the two".to_owned()),
        (Some(data), None) => json_text(data)?,
        (None, raw) => raw.clone().unwrap_or_default(),
    };
    let meta = spec.meta.as_ref().map(json_text).transpose()?.unwrap_or_default();
    let mut assembler = Assembler::new(stream, &spec.event_type).data(body.as_bytes()).meta(meta.as_bytes());
    let texts = [
        (Text::Timestamp, &spec.timestamp),
        (Text::Id, &spec.id),
        (Text::Correlation, &spec.correlation),
        (Text::Causation, &spec.causation),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            assembler = assembler.text(field, text);
        }
    }
    let kind = if spec.unfold { Kind::Unfold } else { Kind::Event };
    assembler.build(kind, Ordinal::new(before.len() as u64 + 1, 0), index).map_err(|error| error.to_string())
}

/// Writes a value as JSON; `{ "$json": "…" }` stands for the value of its text.
fn json_text(value: &Value) -> Result<String, String> {
    let joined = |items: Vec<String>| items.join(",");
    Ok(match value {
        Value::Array(items) => format!("[{}]", joined(items.iter().map(json_text).collect::<Result<_, _>>()?)),
        Value::Object(entries) => match (entries.len(), entries.get("$json")) {
            (1, Some(Value::String(text))) => {
                let _: serde::de::IgnoredAny =
                    serde_json::from_str(text).map_err(|error| format!("the value of `$json` is not JSON: {error}"))?;
                text.clone()
            }
            _ => {
                let entries = entries.iter().map(|(key, value)| {
                    Ok::<_, String>(format!("{}:{}", Value::String(key.clone()), json_text(value)?))
                });
                format!("{{{}}}", joined(entries.collect::<Result<_, _>>()?))
            }
        },
        scalar => scalar.to_string(),
    })
}
