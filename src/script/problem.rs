//! Problems of a script, with their locations.

use std::fmt;

/// A problem of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as its import or its pipeline names it.
    pub file: String,
    /// The line, counted from 1. 0 if the problem concerns the whole file.
    pub line: usize,
    /// The column in characters, counted from 1. 0 if the problem concerns the whole line.
    pub column: usize,
    pub message: String,
    /// The suggested correction.
    pub help: Option<String>,
    /// The text of the line.
    pub source: String,
}

impl Problem {
    /// Returns a problem at a position of the file with this text.
    pub(super) fn at(file: &str, text: &str, position: rhai::Position, message: impl Into<String>) -> Self {
        let line = position.line().unwrap_or(0);
        Self {
            file: file.to_owned(),
            line,
            column: position.position().unwrap_or(0),
            message: message.into(),
            help: None,
            source: line.checked_sub(1).and_then(|before| text.lines().nth(before)).unwrap_or_default().to_owned(),
        }
    }

    /// Returns a problem of a whole file.
    pub(super) fn of(file: &str, message: impl Into<String>) -> Self {
        let (message, source) = (message.into(), String::new());
        Self { file: file.to_owned(), line: 0, column: 0, message, help: None, source }
    }

    pub(super) fn help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }
}

/// Formats `file:line:column: message (help)`, followed by the line with a caret.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, help, source } = self;
        let help = help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        if *line == 0 {
            return write!(f, "{file}: {message}{help}");
        }
        write!(f, "{file}:{line}:{column}: {message}{help}\n{line:>4} | {source}")?;
        if *column > 0 {
            write!(f, "\n     | {:>column$}", '^')?;
        }
        Ok(())
    }
}

/// The problems that make a script unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ScriptError {
    /// The problems in the order of their discovery. Never empty.
    pub problems: Vec<Problem>,
}

impl From<Problem> for ScriptError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}
