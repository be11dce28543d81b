//! What is wrong with a script, and where.

use std::fmt;

/// One thing that is wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as its import or its pipeline names it.
    pub file: String,
    /// Counted from 1; 0 if it is about the file as a whole.
    pub line: usize,
    /// In characters, counted from 1; 0 if it is about the line as a whole.
    pub column: usize,
    pub message: String,
    /// What was probably meant.
    pub help: Option<String>,
    /// The line of the file, for showing.
    pub source: String,
}

impl Problem {
    /// Makes a problem at a place of a file whose text this is.
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

    /// Makes a problem of a file as a whole.
    pub(super) fn of(file: &str, message: impl Into<String>) -> Self {
        let (message, source) = (message.into(), String::new());
        Self { file: file.to_owned(), line: 0, column: 0, message, help: None, source }
    }

    pub(super) fn help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }
}

/// `file:line:column: message (help)`, and below it the line with a caret.
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

/// Why a script cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ScriptError {
    /// In the order in which they were found; never empty.
    pub problems: Vec<Problem>,
}

impl From<Problem> for ScriptError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}
