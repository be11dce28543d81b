//! The wording of values in explanations: durations and sizes in words, references as the file writes them.

use std::path::Path;
use std::time::Duration;

use crate::config::document::{Document, Kind};
use crate::config::scalar::size;
use crate::formats::encode::Format;

/// A pipeline file, as the phrases of its parts quote it. Paths begin at one table, such as `sink.http`.
#[derive(Clone, Copy, Debug)]
pub struct Prose<'a> {
    pub document: &'a Document,
    /// The keys of the table that is explained.
    pub table: &'a [&'a str],
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The directory of the pipeline's file.
    pub directory: &'a Path,
    /// A script decides about the events.
    pub has_script: bool,
    /// Each effect of the script belongs to one event.
    pub by_event: bool,
}

impl<'a> Prose<'a> {
    /// Returns the same pipeline with paths that begin at another table.
    pub fn within(self, table: &'a [&'a str]) -> Self {
        Self { table, ..self }
    }

    /// Returns the text at a path if it holds a reference, which is then all that may be shown (R63).
    pub fn reference(&self, path: &[&str]) -> Option<&'a str> {
        let path: Vec<_> = self.table.iter().chain(path).copied().collect();
        match &self.document.node(&path)?.kind {
            Kind::Text(text) if text.contains("${") => Some(text),
            _ => None,
        }
    }

    /// Returns a duration that a file may set: `5 seconds`.
    pub fn duration(&self, path: &[&str], value: Duration) -> String {
        self.reference(path).map_or_else(|| duration(value), |written| format!("`{written}`"))
    }

    /// Returns a duration to follow "every": `5 seconds`, but `minute`.
    pub fn interval(&self, path: &[&str], value: Duration) -> String {
        let said = self.duration(path, value);
        match said.strip_prefix("1 ") {
            Some(unit) if !unit.contains(' ') => unit.to_owned(),
            _ => said,
        }
    }

    /// Returns a size that a file may set: `64 MiB`.
    pub fn size(&self, path: &[&str], value: u64) -> String {
        self.reference(path).map_or_else(|| bytes(value), |written| format!("`{written}`"))
    }

    /// Returns the subject that goes to the sink.
    pub fn effects(&self) -> &'static str {
        if self.has_script { "the effects of the script" } else { "the events" }
    }

    /// Returns a sentence about the lines that a sink writes.
    pub fn lines(&self, to: &str, format: Format) -> String {
        match (self.has_script, format) {
            (true, Format::Text) => {
                format!(
                    "It writes a line {to} for each effect of the script: strings as they are, other values as JSON."
                )
            }
            (true, Format::Json) => format!("It writes a line of JSON {to} for each effect of the script."),
            (false, _) => format!("It writes a line of JSON {to} for each event."),
        }
    }
}

/// Returns a sentence on acknowledged writes that a setting lets a power failure lose.
pub fn lost_with_power(setting: &str, writes: &str) -> String {
    format!(
        "A power failure may lose {writes} ({setting}). They are lost for good if progress was committed meanwhile."
    )
}

/// Returns a duration in words: `1 hour and 30 minutes`.
pub fn duration(value: Duration) -> String {
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

/// Returns a size in words: `64 MiB`.
pub fn bytes(value: u64) -> String {
    let written = size::written(value);
    let (number, unit) = written.split_at(written.find(|c: char| !c.is_ascii_digit()).unwrap_or(written.len()));
    let unit = if unit == "B" { "bytes" } else { unit };
    format!("{} {unit}", thousands(number.parse().unwrap_or_default()))
}

/// Returns a number with its noun: `1 event`, `1,000 events`.
pub fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", thousands(number))
}

/// Returns a number with separators: `1,000`.
pub fn thousands(number: u64) -> String {
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

/// Returns a list: `a, b and c`.
pub fn listed(items: &[String], word: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

/// Returns a list of names in backticks: `a`, `b` or `c`.
pub fn names<'n>(names: impl IntoIterator<Item = &'n str>, word: &str) -> String {
    listed(&names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>(), word)
}

/// Joins sentences and leaves out empty ones.
pub fn sentences<'s>(parts: impl IntoIterator<Item = &'s str>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Breaks a text into lines of at most `width` characters, or of one longer word.
pub fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_the_width_allows() {
        assert_eq!(lines("a bc  d\nefgh ijk", 4), ["a bc", "d", "efgh", "ijk"]);
        assert_eq!(lines("longer than", 4), ["longer", "than"]);
        assert_eq!(lines("", 4), Vec::<String>::new());
    }

    #[test]
    fn numbers_durations_and_sizes_are_written_in_words() {
        let written = [
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
            written,
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
