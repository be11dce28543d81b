//! The result of a comparison.

use serde::Serialize;
use similar::ChangeTag;

use super::super::apart::Sample;
use super::stream::{Line, Outcome};
use crate::connector::prose::counted;
use crate::formats::diff;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::position::TrancheId;

/// The most characters of a line in an example.
const MAX_EXAMPLE_CHARS: usize = 200;

/// The differences between two handlers over the same events.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    /// The number of compared events.
    pub events: usize,
    /// The number of events that were read to find them.
    pub read: u64,
    /// The read reached its time limit before the tail of the source.
    pub is_partial: bool,
    pub streams: usize,
    pub differences: Vec<Difference>,
}

/// The differences of one stream.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tranche: Option<String>,
    pub stream: String,
    /// The lines that only the old handler emits, and those that only the new one emits.
    pub removed: Vec<String>,
    pub added: Vec<String>,
    pub new_errors: Vec<Failure>,
    pub gone_errors: Vec<Failure>,
    /// Both sides' lines, as a difference shows them.
    #[serde(skip)]
    shown: String,
}

/// An event that a handler fails on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    pub index: i64,
    pub class: &'static str,
    pub message: String,
}

impl Failure {
    pub(super) fn new(index: i64, error: &HandlerError) -> Self {
        let class = match error.kind() {
            HandlerErrorKind::Unavailable => "unavailable",
            HandlerErrorKind::Throttled => "throttled",
            HandlerErrorKind::Transient => "transient",
            HandlerErrorKind::TimedOut => "timed out",
            HandlerErrorKind::Permanent => "permanent",
            HandlerErrorKind::Malformed => "malformed",
            HandlerErrorKind::Unusable => "unusable",
        };
        Self { index, class, message: error.message().to_owned() }
    }
}

impl Comparison {
    /// Compares the outcomes of streams. `by_event`: each value belongs to an event, in both handlers.
    pub(super) fn new<'a>(
        sample: &Sample,
        names: impl Iterator<Item = (Option<&'a TrancheId>, &'a str)>,
        old: Vec<Outcome>,
        new: Vec<Outcome>,
        by_event: bool,
    ) -> Self {
        let streams = old.len();
        let outcomes = old.into_iter().zip(new);
        let differences = names.zip(outcomes).filter_map(|((tranche, stream), (old, new))| {
            let difference = Difference::between(&old, &new, by_event)?;
            let tranche = tranche.map(|tranche| tranche.as_str().to_owned());
            Some(Difference { tranche, stream: stream.to_owned(), ..difference })
        });
        let Sample { read, is_partial, .. } = *sample;
        Self { events: sample.events.len(), read, is_partial, streams, differences: differences.collect() }
    }

    pub(crate) fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    /// Returns the number of new errors.
    pub(crate) fn new_errors(&self) -> usize {
        self.differences.iter().map(|difference| difference.new_errors.len()).sum()
    }

    /// Describes the events that were compared.
    pub(crate) fn extent(&self) -> String {
        let of = match self.read > self.events as u64 {
            true => format!(" of {} read", counted(self.read, "event")),
            false => String::new(),
        };
        let (events, streams) = (counted(self.events as u64, "event"), counted(self.streams as u64, "stream"));
        let partial = if self.is_partial { "; the time limit ended the read before the tail" } else { "" };
        format!("{events} of {streams}{of}{partial}")
    }

    /// Counts the differences.
    pub(crate) fn totals(&self) -> String {
        let sum = |part: fn(&Difference) -> usize| self.differences.iter().map(part).sum::<usize>() as u64;
        format!(
            "differences in {}: {} removed, {} added, {}, {} gone",
            counted(self.differences.len() as u64, "stream"),
            counted(sum(|difference| difference.removed.len()), "line"),
            sum(|difference| difference.added.len()),
            counted(sum(|difference| difference.new_errors.len()), "new error"),
            sum(|difference| difference.gone_errors.len()),
        )
    }
}

impl Difference {
    /// Returns the difference between two outcomes of a stream, without its name. `None` if they are equal.
    fn between(old: &Outcome, new: &Outcome, by_event: bool) -> Option<Self> {
        let (before, after) = (texts(&old.lines, by_event), texts(&new.lines, by_event));
        let only_in = |these: &Outcome, others: &Outcome| -> Vec<Failure> {
            let is_other = |failure: &&Failure| {
                others.failures.get(&failure.index).is_none_or(|other| other.class != failure.class)
            };
            these.failures.values().filter(is_other).cloned().collect()
        };
        let (new_errors, gone_errors) = (only_in(new, old), only_in(old, new));
        if before == after && new_errors.is_empty() && gone_errors.is_empty() {
            return None;
        }
        let aligned = diff::align(&before, &after);
        let tagged = |wanted: ChangeTag| -> Vec<String> {
            aligned.iter().filter(|(tag, _)| *tag == wanted).map(|(_, line)| line.clone()).collect()
        };
        let (removed, added) = (tagged(ChangeTag::Delete), tagged(ChangeTag::Insert));
        let shown = if removed.is_empty() && added.is_empty() { String::new() } else { diff::of(&before, &after) };
        Some(Self { tranche: None, stream: String::new(), removed, added, new_errors, gone_errors, shown })
    }

    /// Describes one of the differences in a line: a new error if there is one.
    pub(crate) fn example(&self) -> String {
        let stream = &self.stream;
        let line = |verb: &str, lines: &[String]| {
            let line = lines.first()?;
            let shown: String = line.chars().take(MAX_EXAMPLE_CHARS).collect();
            let cut = if shown.len() < line.len() { "…" } else { "" };
            Some(format!("stream `{stream}` {verb} `{shown}{cut}`"))
        };
        let failure = |verb: &str, failures: &[Failure]| {
            let Failure { index, class, message } = failures.first()?;
            Some(format!("stream `{stream}` {verb} at index {index} ({class}): {message}"))
        };
        failure("fails", &self.new_errors)
            .or_else(|| line("no longer emits", &self.removed))
            .or_else(|| line("also emits", &self.added))
            .or_else(|| failure("no longer fails", &self.gone_errors))
            .unwrap_or_default()
    }

    /// Renders the stream, and its differences below it.
    pub(crate) fn render(&self) -> String {
        let of = self.tranche.as_ref().map_or_else(String::new, |tranche| format!(" (tranche {tranche})"));
        let mut text = format!("{}{of}\n", self.stream);
        for line in self.shown.lines() {
            text.push_str(&format!("  {line}\n"));
        }
        for (word, failures) in [("new", &self.new_errors), ("gone", &self.gone_errors)] {
            for Failure { index, class, message } in failures {
                text.push_str(&format!("  {word} error at index {index} ({class}): {message}\n"));
            }
        }
        text
    }
}

fn texts(lines: &[Line], by_event: bool) -> Vec<String> {
    let text = |line: &Line| match line.index {
        Some(index) if by_event => format!("{index}: {}", line.text),
        _ => line.text.clone(),
    };
    lines.iter().map(text).collect()
}
