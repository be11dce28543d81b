//! Events from raw records, by the mapping of the pipeline's source.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::file::StreamSpec;
use super::At;
use crate::config::document::Problem;
use crate::connector::SourceKind;
use crate::connector::prose::names;
use crate::event::Event;
use crate::formats::map::EventPlace;
use crate::position::Ordinal;

/// Returns the text of the records of a stream, and its key; `None` if the test gives events.
pub(super) fn text(spec: &StreamSpec, at: &At<'_>) -> Result<Option<(&'static str, String)>, Problem> {
    let (key, text) = match (&spec.record, &spec.records) {
        (None, None) => return Ok(None),
        (Some(record), None) => ("record", record.clone()),
        (None, Some(records)) => ("records", records.join("\n")),
        (Some(_), Some(_)) => {
            let problem = at.key("records").problem("`records` cannot be combined with `record`");
            return Err(problem.help("remove one of the two"));
        }
    };
    if spec.events.is_some() {
        let problem = at.key(key).problem(format!("`{key}` cannot be combined with `events`"));
        return Err(problem.help("remove one of the two"));
    }
    Ok(Some((key, text)))
}

/// Maps records to the events of one stream. There are none if `map.when` leaves out every record.
pub(super) fn mapped(
    source: &dyn SourceKind,
    text: &str,
    spec: &StreamSpec,
    at: &At<'_>,
) -> Result<(String, Vec<Event>), Problem> {
    let map = match source.record_map() {
        None => return Err(at.problem("the source of this pipeline has no `map` that could read records")),
        Some(map) => map.map_err(|bad| at.problem(format!("the mapping of the source cannot be used: {bad}")))?,
    };
    let mut indexes = spec.first_index..;
    let mut ordinals = 1..;
    let place = |_| {
        let at = Ordinal::new(ordinals.next().unwrap_or(u64::MAX), 0);
        Ok(EventPlace { at, index: indexes.next().unwrap_or(i64::MAX) })
    };
    let mut events = Vec::new();
    let mut misfit = None;
    map.each_event(&Bytes::copy_from_slice(text.as_bytes()), place, |line, result| match result {
        Ok(event) => events.push(event),
        Err(bad) => drop(misfit.get_or_insert_with(|| format!("line {line}: {}", bad.why))),
    });
    if let Some(why) = misfit {
        return Err(at.problem(why));
    }
    let found: BTreeSet<String> = events.iter().map(|event| event.stream().to_owned()).collect();
    let listed = || names(found.iter().map(String::as_str), "and");
    match (&spec.stream, found.len()) {
        (Some(stream), 1..) if !found.contains(stream) => {
            Err(at.problem(format!("no record is of the stream `{stream}`: they are of {}", listed())))
        }
        (None, 2..) => {
            let problem = at.problem(format!("the records are of several streams: {}", listed()));
            Err(problem.help("choose one by `stream`"))
        }
        (Some(stream), _) => {
            events.retain(|event| event.stream() == stream);
            Ok((stream.clone(), events))
        }
        (None, _) => Ok((found.into_iter().next().unwrap_or_default(), events)),
    }
}
