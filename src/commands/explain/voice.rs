//! How values are said: durations and sizes in words, references as they were written.

use std::time::Duration;

use crate::config::document::Kind;
use crate::config::scalar::size;
use crate::spec::{Checkpoint, Loaded, Order, PipelineSpec};

/// A pipeline, and how its values are said.
pub(super) struct Voice<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) spec: &'a PipelineSpec,
}

impl<'a> Voice<'a> {
    pub(super) fn new(loaded: &'a Loaded) -> Self {
        Self { loaded, spec: &loaded.spec }
    }

    /// Returns the text at a path of the file, if it holds a reference: then that is all that may be shown.
    pub(super) fn reference(&self, path: &[&str]) -> Option<&'a str> {
        match &self.loaded.document.node(path)?.kind {
            Kind::Text(text) if text.contains("${") => Some(text),
            _ => None,
        }
    }

    /// Says a duration that a file may set.
    pub(super) fn duration(&self, path: &[&str], value: Duration) -> String {
        self.reference(path).map_or_else(|| duration(value), |written| format!("`{written}`"))
    }

    /// Says how often: `5 seconds`, but `minute`, to follow "every".
    pub(super) fn interval(&self, path: &[&str], value: Duration) -> String {
        let said = self.duration(path, value);
        match said.strip_prefix("1 ") {
            Some(unit) if !unit.contains(' ') => unit.to_owned(),
            _ => said,
        }
    }

    /// Says a size that a file may set.
    pub(super) fn size(&self, path: &[&str], value: u64) -> String {
        self.reference(path).map_or_else(|| bytes(value), |written| format!("`{written}`"))
    }

    pub(super) fn has_script(&self) -> bool {
        self.spec.handler.rhai.is_some()
    }

    /// Returns whether effects and progress are one transaction.
    pub(super) fn sink_holds_progress(&self) -> bool {
        self.spec.checkpoint == Checkpoint::Sink
    }

    pub(super) fn progress_is_in_memory(&self) -> bool {
        matches!(&self.spec.checkpoint, Checkpoint::Store(store) if store.memory.is_some())
    }

    /// Returns whether what was taken from the source is gone with the process.
    pub(super) fn source_is_in_memory(&self) -> bool {
        self.spec.source.memory.is_some()
    }

    /// Says what a failing event holds up.
    pub(super) fn held_up(&self) -> &'static str {
        match self.spec.schedule.order {
            Order::Stream => "its stream",
            Order::Tranche => "its tranche",
            Order::None => "nothing but the event itself",
        }
    }

    /// Says what goes to the sink.
    pub(super) fn effects(&self) -> &'static str {
        if self.has_script() { "what the script emits" } else { "the events" }
    }
}

/// Says a duration: `1 hour and 30 minutes`.
pub(super) fn duration(value: Duration) -> String {
    let written = humantime::format_duration(value).to_string();
    let parts = written.split(' ').map(|part| {
        let (number, unit) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()));
        let unit = match unit {
            "ns" => "nanosecond",
            "us" => "microsecond",
            "ms" => "millisecond",
            "s" => "second",
            "m" => "minute",
            "h" => "hour",
            other => other.trim_end_matches('s'),
        };
        counted(number.parse().unwrap_or_default(), unit)
    });
    listed(&parts.collect::<Vec<_>>(), "and")
}

/// Says a size: `64 MiB`.
pub(super) fn bytes(value: u64) -> String {
    let written = size::written(value);
    let (number, unit) = written.split_at(written.find(|c: char| !c.is_ascii_digit()).unwrap_or(written.len()));
    let unit = if unit == "B" { "bytes" } else { unit };
    format!("{} {unit}", thousands(number.parse().unwrap_or_default()))
}

/// Says a number with its noun: `1 event`, `1,000 events`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", thousands(number))
}

pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Says a list: `a, b and c`.
pub(super) fn listed(items: &[String], word: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

/// Says names: `a`, `b` or `c`, in backticks.
pub(super) fn names<'n>(names: impl IntoIterator<Item = &'n str>, word: &str) -> String {
    listed(&names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>(), word)
}

/// Puts sentences together; those that say nothing are left out.
pub(super) fn sentences<'s>(parts: impl IntoIterator<Item = &'s str>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_durations_and_sizes_are_said_in_words() {
        let said = [
            duration(Duration::from_secs(5)),
            duration(Duration::from_millis(90 * 60_000 + 100)),
            duration(Duration::from_secs(86_400 * 2)),
            duration(Duration::from_millis(1)),
            bytes(64 << 20),
            bytes(1_234_567),
            counted(1, "stream"),
            counted(1_000_000, "event"),
            names(["a", "b", "c"], "or"),
        ];
        assert_eq!(
            said,
            [
                "5 seconds",
                "1 hour, 30 minutes and 100 milliseconds",
                "2 days",
                "1 millisecond",
                "64 MiB",
                "1,234,567 bytes",
                "1 stream",
                "1,000,000 events",
                "`a`, `b` or `c`"
            ]
        );
    }
}
