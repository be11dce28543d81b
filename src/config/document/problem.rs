//! A mistake in a file, and how it is shown.

use std::fmt;
use std::path::{Path, PathBuf};

use super::node::Span;
use super::secrets::masked;

/// A mistake: what is wrong, where, and what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub file: PathBuf,
    /// `None`: the file as a whole.
    pub place: Option<Box<Place>>,
    /// Lowercase, no full stop, names in backticks.
    pub message: String,
    pub help: Option<String>,
    /// The keys that lead there, as in `sink.http.url`; empty for the file as a whole.
    pub path: String,
}

/// What follows from a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing runs before it is mended.
    Error,
    /// It runs, but probably not as it was meant to. No exit code depends on it.
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Where in a file something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters of that line, at least 1.
    pub span_len: usize,
    /// The line as it is written, without secrets.
    pub text: String,
}

/// How problems are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// With colours, for terminals.
    Colour,
}

impl Problem {
    pub fn new(file: &Path, message: impl Into<String>) -> Self {
        let (place, help, path) = (None, None, String::new());
        Self { severity: Severity::Error, file: file.to_owned(), place, message: message.into(), help, path }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Makes advice of it.
    pub fn as_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Says where in the file it is.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the problem for people: message, place, line, caret and help, each line ended.
    pub fn render(&self, style: Style) -> String {
        let paint = |code: &str, text: &str| match style {
            Style::Plain => text.to_owned(),
            Style::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        };
        let (bold, red, yellow, blue, green) = ("1", "1;31", "1;33", "1;34", "1;32");
        let tone = if self.is_error() { red } else { yellow };
        let width = self.place.as_ref().map_or(1, |place| place.line.to_string().len());
        let mut lines =
            vec![format!("{}: {}", paint(tone, self.severity.as_str()), paint(bold, &printable(&self.message)))];
        let mut at = printable(&self.file.display().to_string());
        if let Some(place) = &self.place {
            at.push_str(&format!(":{}:{}", place.line, place.column));
        }
        if !self.path.is_empty() {
            at.push_str(&format!(" ({})", printable(&self.path)));
        }
        lines.push(format!("{:width$}{} {at}", "", paint(blue, "-->")));
        if let Some(place) = &self.place {
            let (text, before, length) = place.shown();
            lines.push(format!("{} {text}", paint(blue, &format!("{} |", place.line))));
            lines.push(format!(
                "{} {before}{}",
                paint(blue, &format!("{:width$} |", "")),
                paint(tone, &"^".repeat(length))
            ));
        }
        if let Some(help) = &self.help {
            lines.push(format!("{:width$} {} {}: {}", "", paint(blue, "="), paint(green, "help"), printable(help)));
        }
        lines.iter().fold(String::new(), |out, line| out + line.trim_end() + "\n")
    }

    /// Returns the problem for machines.
    pub fn to_json(&self) -> serde_json::Value {
        let place = self.place.as_ref();
        serde_json::json!({
            "severity": self.severity.as_str(),
            "file": self.file.display().to_string(),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "span_len": place.map(|place| place.span_len),
            "path": (!self.path.is_empty()).then_some(&self.path),
            "message": self.message,
            "help": self.help,
        })
    }
}

/// One line: where, and what.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", printable(&self.message))
    }
}

impl std::error::Error for Problem {}

impl Place {
    /// How much of a long line is shown, and how much of that before the place.
    const WINDOW: usize = 140;
    const BEFORE: usize = 60;

    /// Returns the place of a line and column, from 1, of a text.
    pub fn at(text: &str, line: usize, column: usize) -> Self {
        let line_start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let before = text[line_start..].chars().take_while(|c| *c != '\n').take(column.saturating_sub(1));
        let start = line_start + before.map(char::len_utf8).sum::<usize>();
        Self::new(text, start..start)
    }

    /// Returns the place of a range of bytes of a text.
    pub fn new(text: &str, span: Span) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line_text = text[line_start..line_end].trim_end_matches('\r');
        let end = span.end.clamp(start, (line_start + line_text.len()).max(start));
        let marked = text.get(start..end).unwrap_or_default().trim_end();
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            span_len: marked.chars().count().max(1),
            text: masked(text, line_start, line_text),
        }
    }

    /// Returns the line or a window of it, what to put before the caret, and the caret's length.
    fn shown(&self) -> (String, String, usize) {
        let chars: Vec<char> = self.text.chars().collect();
        let before = self.column - 1;
        let from = if chars.len() > Self::WINDOW { before.saturating_sub(Self::BEFORE) } else { 0 };
        let to = chars.len().min(from + Self::WINDOW);
        let mut text: String = chars[from.min(to)..to].iter().map(|c| visible(*c)).collect();
        let mut skipped: String = chars[from.min(to)..before.clamp(from.min(to), to)]
            .iter()
            .map(|c| if *c == '\t' { '\t' } else { ' ' })
            .collect();
        if before > to {
            skipped.push_str(&" ".repeat(before - to));
        }
        if from > 0 {
            text.insert_str(0, "… ");
            skipped.insert_str(0, "  ");
        }
        if to < chars.len() {
            text.push_str(" …");
        }
        (text, skipped, self.span_len.min(to.saturating_sub(before).max(1)))
    }
}

/// Files may hold anything, also what a terminal would obey.
fn visible(c: char) -> char {
    let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if (c.is_control() && c != '\t') || reorders { '\u{fffd}' } else { c }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { ' ' } else { visible(c) }).collect()
}
