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
            source: line.checked_sub(1).and_then(|before| text.lines().nth(before)).unwrap_or_default().to_owned(),
        }
    }

    /// Makes a problem of a file as a whole.
    pub(super) fn of(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into(), source: String::new() }
    }
}

/// `file:line:column: message`, and below it the line with a caret.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, source } = self;
        if *line == 0 {
            return write!(f, "{file}: {message}");
        }
        write!(f, "{file}:{line}:{column}: {message}\n{line:>4} | {source}")?;
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
