//! The parked streams of a pipeline, as operators see and change them: by HTTP and by command, with one meaning.
//!
//! An operator reads the parked store, edits it, and leaves requests in it. The owner of a tranche acts on the requests, now
//! or when it next runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::checkpoint::{
    CheckpointKey, NewBody, ParkedAction, ParkedJob, ParkedOrder, ParkedPage, ParkedQuery, ParkedRequest,
    ParkedSelection, ParkedState, ParkedStore, ParkedStream, QueueOrder, QueuePage, QueueRead, QueuedEvent, QueuedId,
};
use crate::clock;
use crate::config::scalar::duration;
use crate::position::{Ordinal, TrancheId};

/// The number of streams in a list, and of events in a page, unless the operator says otherwise.
pub(crate) const DEFAULT_PAGE: usize = 50;
/// The largest page.
pub(crate) const MAX_PAGE: usize = 1_000;
/// The most bytes of a page of events.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// The parked store of one pipeline.
pub(crate) struct ParkedDesk {
    store: Arc<dyn ParkedStore>,
    group: String,
    source: String,
}

/// The selection of streams, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Selected {
    /// `parked` or `deferred`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tranche: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The type of the event at fault.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// A part of the error, or its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Parked for at least this duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
}

/// A list of parked streams, as an operator asks for it. As the fields are parameters of a URL, those of [`Selected`] stand
/// beside the others.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListWanted {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tranche: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
    /// The last entry of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_tranche: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The body of a request for retries or discards.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RequestWanted {
    pub select: Selected,
    /// The person or program that asks; it goes into the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Discard all events of the streams, and not the event at fault alone.
    pub whole_stream: bool,
    /// Change nothing, and say how many streams are selected.
    pub dry_run: bool,
}

/// The events of a parked stream, as an operator asks for them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShowWanted {
    pub stream: String,
    /// Needed only if several tranches have parked streams of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tranche: Option<String>,
    /// The last event of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The body of an edit.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EditWanted {
    pub stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tranche: Option<String>,
    /// The event, as `show` names it. Left out: the event at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The new data and meta, each a JSON value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A page of parked streams.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ParkedList {
    pub streams: Vec<ParkedEntry>,
    /// There are more streams: the next page begins after the last one.
    pub more: bool,
    pub total_streams: u64,
    pub total_events: u64,
    pub total_bytes: u64,
}

/// A parked stream.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ParkedEntry {
    pub tranche: String,
    pub stream: String,
    pub state: String,
    /// The class of the error, and the error.
    pub class: String,
    pub error: String,
    /// The event at fault.
    pub index: i64,
    #[serde(rename = "type")]
    pub event_type: String,
    pub since: String,
    /// The time at which its events are offered again.
    pub due: Option<String>,
    pub attempts: u32,
    /// The version of the handler that failed.
    pub handler: String,
    pub job: Option<String>,
    pub events: u64,
    pub bytes: u64,
}

/// A page of a stream's queue.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct QueueList {
    pub parked: ParkedEntry,
    pub events: Vec<QueueEntry>,
    pub more: bool,
}

/// A parked event.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct QueueEntry {
    /// Its name in `edit` and in the next page's `after`: ordinal and index.
    pub event: String,
    pub index: i64,
    #[serde(rename = "type")]
    pub event_type: String,
    pub id: String,
    pub time: String,
    pub data: Value,
    pub meta: Value,
    pub discarded: bool,
    pub is_unfold: bool,
}

/// The answer to a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Requested {
    /// `None`: nothing was selected, or nothing was to be changed.
    pub job: Option<String>,
    pub action: String,
    pub streams: u64,
    pub events: u64,
}

/// The kept jobs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct JobList {
    pub jobs: Vec<Job>,
}

/// A request and how far its owner is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Job {
    pub job: String,
    pub action: String,
    pub by: String,
    pub at: String,
    /// `running` while streams of the job are due, then `done`.
    pub state: String,
    pub streams: u64,
    /// Streams that flow again, that are still due, and that failed again.
    pub done: u64,
    pub left: u64,
    pub failed: u64,
}

impl ListWanted {
    /// Asks for the first page of a selection.
    pub(crate) fn of(selected: Selected) -> Self {
        let Selected { state, tranche, stream, category, event_type, error, older_than } = selected;
        Self { state, tranche, stream, category, event_type, error, older_than, ..Self::default() }
    }

    fn selected(&self) -> Selected {
        let Self { state, tranche, stream, category, event_type, error, older_than, .. } = self.clone();
        Selected { state, tranche, stream, category, event_type, error, older_than }
    }
}

impl Selected {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn selection(&self, now: OffsetDateTime) -> anyhow::Result<ParkedSelection<'_>> {
        let state = self.state.as_deref().map(|state| {
            ParkedState::parse(state)
                .with_context(|| format!("unknown state `{state}`, expected `parked` or `deferred`"))
        });
        let until = self.older_than.as_deref().map(|age| {
            let age: Duration = duration::parse(age).map_err(|error| anyhow::anyhow!("`older_than`: {error}"))?;
            anyhow::Ok(now.saturating_sub(age.try_into().unwrap_or(time::Duration::MAX)))
        });
        Ok(ParkedSelection {
            state: state.transpose()?,
            tranche: self.tranche.as_deref(),
            stream: self.stream.as_deref(),
            category: self.category.as_deref(),
            event_type: self.event_type.as_deref(),
            error: self.error.as_deref(),
            until: until.transpose()?,
            other_version_than: None,
        })
    }
}

impl ParkedDesk {
    pub(crate) fn new(store: Arc<dyn ParkedStore>, group: &str, source: &str) -> Self {
        Self { store, group: group.to_owned(), source: source.to_owned() }
    }

    /// Returns a page of the parked streams. Deferred streams, if only they are wanted, come by their due time.
    ///
    /// # Errors
    /// The selection is wrong, or the store fails.
    pub(crate) async fn list(&self, wanted: &ListWanted) -> anyhow::Result<ParkedList> {
        let selected = wanted.selected();
        let selection = selected.selection(clock::wall())?;
        let after = match (&wanted.after_tranche, &wanted.after_stream) {
            (Some(tranche), Some(stream)) => Some((tranche.as_str(), stream.as_str())),
            (None, None) => None,
            _ => bail!("`after_tranche` and `after_stream` go together"),
        };
        let by_due = selection.state == Some(ParkedState::Deferred) && after.is_none();
        let order = if by_due { ParkedOrder::Due } else { ParkedOrder::Name };
        let most = wanted.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let query = ParkedQuery { selection, after, order, most };
        let ParkedPage { streams, more, total_streams, total_events, total_bytes } =
            self.store.list(&self.group, &self.source, &query).await?;
        let streams = streams.iter().map(|(tranche, stream)| ParkedEntry::new(tranche, stream)).collect();
        Ok(ParkedList { streams, more, total_streams, total_events, total_bytes })
    }

    /// Finds the parked stream of a name.
    async fn find(&self, stream: &str, tranche: Option<&str>) -> anyhow::Result<(CheckpointKey, ParkedStream)> {
        let selection = ParkedSelection { stream: Some(stream), tranche, ..ParkedSelection::default() };
        let query = ParkedQuery { selection, after: None, order: ParkedOrder::Name, most: 10 };
        let page = self.store.list(&self.group, &self.source, &query).await?;
        let tranches: Vec<_> = page.streams.iter().map(|(tranche, _)| format!("`{tranche}`")).collect();
        let mut found = page.streams.into_iter();
        match (found.next(), found.next()) {
            (Some((tranche, parked)), None) => {
                let key = CheckpointKey { group: (*self.group).into(), source: (*self.source).into(), tranche };
                Ok((key, parked))
            }
            (None, _) => bail!("the stream `{stream}` is not parked"),
            (Some(_), Some(_)) => {
                bail!("streams named `{stream}` of several tranches are parked: name one of {}", tranches.join(", "))
            }
        }
    }

    /// Returns a page of the events of a parked stream.
    ///
    /// # Errors
    /// The stream is not parked, or the store fails.
    pub(crate) async fn show(&self, wanted: &ShowWanted) -> anyhow::Result<QueueList> {
        let (key, parked) = self.find(&wanted.stream, wanted.tranche.as_deref()).await?;
        let after = wanted.after.as_deref().map(parse_event).transpose()?;
        let most = wanted.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let page = QueuePage { order: QueueOrder::Index, after, max_events: most, max_bytes: MAX_PAGE_BYTES };
        let QueueRead { events, more } = self.store.read(&key, &wanted.stream, &page).await?;
        let events = events.iter().map(QueueEntry::new).collect();
        Ok(QueueList { parked: ParkedEntry::new(&key.tranche, &parked), events, more })
    }

    /// Leaves a request for retries or discards.
    ///
    /// # Errors
    /// The selection is wrong, or the store fails.
    pub(crate) async fn request(&self, action: ParkedAction, wanted: &RequestWanted) -> anyhow::Result<Requested> {
        let now = clock::wall();
        let selection = wanted.select.selection(now)?.for_request();
        let query = ParkedQuery { selection, after: None, order: ParkedOrder::Name, most: 1 };
        let page = self.store.list(&self.group, &self.source, &query).await?;
        let name = action.as_str().to_owned();
        if wanted.dry_run || page.total_streams == 0 {
            return Ok(Requested { job: None, action: name, streams: page.total_streams, events: page.total_events });
        }
        let job = format!("{name}-{}-{:04x}", now.unix_timestamp(), fastrand::u16(..));
        let by = wanted.by.as_deref().unwrap_or("unknown");
        let request = ParkedRequest { action, job: &job, by, at: now };
        let streams = self.store.request(&self.group, &self.source, &selection, &request).await?;
        tracing::info!(
            target: crate::telemetry::logging::AUDIT, group = self.group, source = self.source, action = name, job, by, streams,
            selection = ?wanted.select, "parked streams requested"
        );
        Ok(Requested { job: Some(job), action: name, streams, events: page.total_events })
    }

    /// Replaces the body of a parked event. Returns its name.
    ///
    /// # Errors
    /// The event is not parked, its stream is being retried, or the store fails.
    pub(crate) async fn edit(&self, wanted: &EditWanted) -> anyhow::Result<String> {
        ensure!(wanted.data.is_some() || wanted.meta.is_some(), "give new `data` or `meta`");
        let (key, parked) = self.find(&wanted.stream, wanted.tranche.as_deref()).await?;
        let is_due = parked.mark.due.is_some_and(|due| due <= clock::wall());
        ensure!(!is_due, "the stream `{}` is being retried: its events may be handled already", wanted.stream);
        let id = match &wanted.event {
            Some(name) => parse_event(name)?,
            None => self.first(&key, &wanted.stream).await?,
        };
        let bytes = |value: &Option<Value>| value.as_ref().map(|value| value.to_string().into_bytes());
        let (data, meta) = (bytes(&wanted.data), bytes(&wanted.meta));
        let body = NewBody { data: data.as_deref(), meta: meta.as_deref() };
        let is_edited = self.store.edit(&key, &wanted.stream, &id, body).await?;
        ensure!(is_edited, "the stream `{}` has no parked event `{}`", wanted.stream, event_name(&id));
        let by = wanted.by.as_deref().unwrap_or("unknown");
        tracing::info!(
            target: crate::telemetry::logging::AUDIT, %key, stream = wanted.stream, index = id.index, by, "parked event edited"
        );
        Ok(event_name(&id))
    }

    async fn first(&self, key: &CheckpointKey, stream: &str) -> anyhow::Result<QueuedId> {
        let page = QueuePage { order: QueueOrder::Index, after: None, max_events: 1, max_bytes: MAX_PAGE_BYTES };
        let events = self.store.read(key, stream, &page).await?.events;
        let first = events.first().with_context(|| format!("the stream `{stream}` has no parked event"))?;
        Ok(QueuedId::of(&first.event))
    }

    /// Returns the kept jobs, the newest first.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn jobs(&self) -> anyhow::Result<JobList> {
        let jobs = self.store.jobs(&self.group, &self.source).await?;
        Ok(JobList { jobs: jobs.iter().map(Job::new).collect() })
    }
}

impl ParkedEntry {
    fn new(tranche: &TrancheId, parked: &ParkedStream) -> Self {
        let ParkedStream { stream, first: _, events, bytes, mark } = parked;
        Self {
            tranche: tranche.to_string(),
            stream: stream.to_string(),
            state: mark.state.as_str().to_owned(),
            class: mark.class.to_string(),
            error: mark.why.to_string(),
            index: mark.index,
            event_type: mark.event_type.to_string(),
            since: shown(mark.since),
            due: mark.due.map(shown),
            attempts: mark.attempts,
            handler: mark.version.to_string(),
            job: mark.job.as_deref().map(str::to_owned),
            events: *events,
            bytes: *bytes,
        }
    }
}

impl QueueEntry {
    fn new(queued: &QueuedEvent) -> Self {
        let event = &queued.event;
        Self {
            event: event_name(&QueuedId::of(event)),
            index: event.index(),
            event_type: event.event_type().to_owned(),
            id: event.text(crate::event::Text::Id).to_owned(),
            time: event.time_text().into_owned(),
            data: body(event.data()),
            meta: body(event.meta()),
            discarded: queued.discarded,
            is_unfold: event.is_unfold(),
        }
    }
}

impl Job {
    fn new(job: &ParkedJob) -> Self {
        let ParkedJob { id, action, by, at, streams, left, failed } = job;
        Self {
            job: id.to_string(),
            action: action.as_str().to_owned(),
            by: by.to_string(),
            at: shown(*at),
            state: if *left > 0 { "running" } else { "done" }.to_owned(),
            streams: *streams,
            done: streams.saturating_sub(left + failed),
            left: *left,
            failed: *failed,
        }
    }
}

/// Returns a body as JSON: its value, else its text, else its bytes in base64.
fn body(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => serde_json::json!({ "base64": BASE64.encode(bytes) }),
    }
}

/// Returns the name of an event in its queue: `major.minor/index`, and `/unfold` if it is one.
fn event_name(id: &QueuedId) -> String {
    let unfold = if id.is_unfold { "/unfold" } else { "" };
    format!("{}.{}/{}{unfold}", id.at.major, id.at.minor, id.index)
}

fn parse_event(name: &str) -> anyhow::Result<QueuedId> {
    let parse = || {
        let (rest, is_unfold) = name.strip_suffix("/unfold").map_or((name, false), |rest| (rest, true));
        let (at, index) = rest.split_once('/')?;
        let (major, minor) = at.split_once('.')?;
        let at = Ordinal::new(major.parse().ok()?, minor.parse().ok()?);
        Some(QueuedId { at, index: index.parse().ok()?, is_unfold })
    };
    parse().with_context(|| format!("`{name}` is no event as `parked show` names it (`12.0/5`)"))
}

fn shown(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_event_is_read_back() {
        for (name, major, index, is_unfold) in [("12.3/5", 12, 5, false), ("12.3/-1/unfold", 12, -1, true)] {
            let id = QueuedId { at: Ordinal::new(major, 3), index, is_unfold };
            assert_eq!((event_name(&id).as_str(), parse_event(name).unwrap()), (name, id));
        }
        for wrong in ["", "12", "12/5", "a.0/5", "12.0/x", "12.0"] {
            assert!(parse_event(wrong).unwrap_err().to_string().contains("as `parked show` names it"), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_shown_as_json_text_or_base64() {
        assert_eq!(body(br#"{"a":1}"#), serde_json::json!({ "a": 1 }));
        assert_eq!(body(b"plain"), serde_json::json!("plain"));
        assert_eq!(body(b"\xff"), serde_json::json!({ "base64": "/w==" }));
        assert_eq!(body(b""), Value::Null);
    }

    #[test]
    fn a_wrong_selection_names_its_field() {
        let selected = Selected { state: Some("broken".to_owned()), ..Selected::default() };
        let error = selected.selection(OffsetDateTime::UNIX_EPOCH).unwrap_err().to_string();
        assert_eq!(error, "unknown state `broken`, expected `parked` or `deferred`");
        let selected = Selected { older_than: Some("soon".to_owned()), ..Selected::default() };
        let error = selected.selection(OffsetDateTime::UNIX_EPOCH).unwrap_err().to_string();
        assert!(error.starts_with("`older_than`: "), "{error}");
    }
}
