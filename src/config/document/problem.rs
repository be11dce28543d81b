//! An error or warning at a location in a file, with its text and JSON forms.

use std::fmt;
use std::path::{Path, PathBuf};

use annotate_snippets::{Annotation, AnnotationKind, Level, Origin, Renderer, Snippet};

use super::node::Span;
use super::secrets::masked;

/// An error or a warning: the message, the location, and a suggestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub file: PathBuf,
    /// `None`: the file as a whole.
    pub location: Option<Box<Location>>,
    /// Lowercase, no full stop, names in backticks.
    pub message: String,
    pub help: Option<String>,
    /// The keys that lead to the location, as in `sink.http.url`; empty for the file as a whole.
    pub path: String,
}

/// The consequence of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The pipelines do not start until the file is corrected.
    Error,
    /// The pipeline runs, but probably not as intended. A warning does not change the exit code.
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

/// A location in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters of that line, at least 1.
    pub span_len: usize,
    /// The line as written, with secrets masked.
    pub text: String,
}

/// The style of rendered problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// With colours, for terminals.
    Colour,
}

impl Problem {
    pub fn new(file: &Path, message: impl Into<String>) -> Self {
        let (location, help, path) = (None, None, String::new());
        Self { severity: Severity::Error, file: file.to_owned(), location, message: message.into(), help, path }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Returns the problem as a warning.
    pub fn as_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Sets the location.
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(Box::new(location));
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Renders the problem as text: message, location, line, caret and help, each line ended.
    pub fn render(&self, style: Style) -> String {
        let (message, file) = (one_line(&self.message), self.file.display().to_string());
        let level = if self.is_error() { Level::ERROR } else { Level::WARNING };
        let title = level.primary_title(&message);
        let group = match &self.location {
            Some(location) => title.element(location.snippet(&file, &self.path)),
            None if self.path.is_empty() => title.element(Origin::path(&file)),
            None => title.element(Origin::path(format!("{file} ({})", self.path))),
        };
        let help = self.help.as_deref().map(one_line);
        let group = match &help {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        };
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Colour => Renderer::styled(),
        };
        renderer.term_width(WIDTH).render(&[group]) + "\n"
    }

    /// Returns the problem on one line, with its help.
    pub fn with_help(&self) -> String {
        match &self.help {
            Some(help) => format!("{self}; {}", one_line(help)),
            None => self.to_string(),
        }
    }

    /// Returns the problem as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let location = self.location.as_ref();
        serde_json::json!({
            "severity": self.severity.as_str(),
            "file": self.file.display().to_string(),
            "line": location.map(|location| location.line),
            "column": location.map(|location| location.column),
            "span_len": location.map(|location| location.span_len),
            "path": (!self.path.is_empty()).then_some(&self.path),
            "message": self.message,
            "help": self.help,
        })
    }
}

/// Writes the location and the message on one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(location) = &self.location {
            write!(f, ":{}:{}", location.line, location.column)?;
        }
        write!(f, ": {}", one_line(&self.message))
    }
}

impl std::error::Error for Problem {}

impl Location {
    /// Returns the location of a line and column of a text, both from 1.
    pub fn at(text: &str, line: usize, column: usize) -> Self {
        let line_start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let before = text[line_start..].chars().take_while(|c| *c != '\n').take(column.saturating_sub(1));
        let start = line_start + before.map(char::len_utf8).sum::<usize>();
        Self::new(text, start..start)
    }

    /// Returns the location of a byte range of a text.
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

    /// Returns the line with a caret at the location, and the path of keys beside the caret.
    fn snippet<'a>(&'a self, file: &str, path: &'a str) -> Snippet<'a, Annotation<'a>> {
        let byte = |column: usize| self.text.char_indices().nth(column).map_or(self.text.len(), |(at, _)| at);
        let span = byte(self.column - 1)..byte(self.column - 1 + self.span_len);
        let caret = AnnotationKind::Primary.span(span).label((!path.is_empty()).then_some(path));
        Snippet::source(&self.text).path(file.to_owned()).line_start(self.line).annotation(caret)
    }
}

/// The width of a rendered line. Longer lines are cut around the caret.
const WIDTH: usize = 140;

/// Joins a text into one line. The renderer replaces other control characters.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}
