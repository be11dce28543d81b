//! Reads files that users write: parses them into a tree with positions, and explains their errors.
//!
//! TOML and YAML become the same tree of [`Node`]s, and each type is deserialized from that tree. Both formats
//! therefore have the same messages, and each message points at a line and column. A file's errors are all reported:
//! the reader notes an error, removes its value from the tree, and deserializes the rest again.

mod de;
mod node;
mod problem;
mod read_toml;
mod read_yaml;
mod secrets;
mod suggest;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use node::{Entry, Kind, Node, Span};
pub use problem::{Location, Problem, Severity, Style};
pub use secrets::{clear_secrets, without_secrets};
pub use suggest::closest;

use crate::config::scalar::{self, Unreadable};
use de::{DeError, NodeDeserializer, Segment};

/// The maximum size of a file. No file written by hand reaches it.
const MAX_BYTES: u64 = 1 << 20;

/// The maximum number of reported problems per file.
const MAX_PROBLEMS: usize = 50;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Toml,
    Yaml,
}

impl Format {
    /// The extensions of files that users write.
    pub const EXTENSIONS: [&str; 3] = ["toml", "yaml", "yml"];

    /// Returns the format for a file's extension.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// Returns the existing file of this name, whatever its format.
    pub fn find(directory: &Path, name: &str) -> Option<PathBuf> {
        let files = Self::EXTENSIONS.map(|extension| directory.join(format!("{name}.{extension}")));
        files.into_iter().find(|file| file.is_file())
    }
}

/// A file, its text and its tree.
#[derive(Clone, Debug)]
pub struct Document {
    pub file: PathBuf,
    pub text: String,
    pub root: Node,
}

impl Document {
    /// Reads and parses a file.
    pub fn read(file: &Path, format: Format) -> Result<Self, Problem> {
        Self::from_bytes(file, read(file)?, format)
    }

    /// Parses the content of a file. Problems name it `file`.
    pub fn from_bytes(file: &Path, bytes: Vec<u8>, format: Format) -> Result<Self, Problem> {
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(file, text, format),
            Err(error) => Err(not_utf8(file, &error)),
        }
    }

    /// Parses a text. Problems name it `file`.
    pub fn parse(file: &Path, mut text: String, format: Format) -> Result<Self, Problem> {
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        let root = match format {
            Format::Toml => read_toml::parse(&text),
            Format::Yaml => read_yaml::parse(&text),
        };
        let error = match root {
            Ok(root) => return Ok(Self { file: file.to_owned(), text, root }),
            Err(error) => error,
        };
        let before = error.span.as_ref().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let is_colon = format == Format::Toml && before.trim_end().ends_with(':');
        let colon = || is_colon.then(|| "TOML writes `key = value`".to_owned());
        let help = error.help.or_else(|| is_the_other_format(&text, format)).or_else(colon);
        let location = error.span.map(|span| Box::new(Location::new(&text, span)));
        Err(Problem { location, help, ..Problem::new(file, error.message) })
    }

    /// Deserializes the document.
    ///
    /// # Errors
    /// All independent errors, in the order of the file.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        self.deserialize_with_hints(|_| None)
    }

    /// Deserializes like [`deserialize`](Self::deserialize). `hint` supplies the help for an unknown key that resembles
    /// no known one.
    pub fn deserialize_with_hints<T: DeserializeOwned>(
        &self,
        hint: impl Fn(&str) -> Option<String>,
    ) -> Result<T, Vec<Problem>> {
        let mut tree = self.root.clone();
        let mut problems = Vec::new();
        let mut removed: Vec<Vec<Segment>> = Vec::new();
        while problems.len() < MAX_PROBLEMS {
            let error = match T::deserialize(NodeDeserializer::new(&tree)) {
                Ok(value) if problems.is_empty() => return Ok(value),
                Ok(_) => break,
                Err(error) => error.rooted(),
            };
            let gone = error.removable().to_vec();
            // A removed value is not missing: its own error has been reported.
            let mut is_known = error.missing_path().is_some_and(|path| removed.contains(&path));
            // The cross-checks of a table do not hold after the removal of an entry.
            let path = error.path();
            is_known |= removed.iter().any(|gone| gone.len() > path.len() && gone.starts_with(path));
            removed.extend(error.suggested_path());
            if !is_known {
                problems.push(self.explain(error, &hint));
            }
            if gone.is_empty() || !tree.remove(&gone) {
                break;
            }
            removed.push(gone);
        }
        problems.sort_by_key(|problem| problem.location.as_ref().map(|location| (location.line, location.column)));
        Err(problems)
    }

    fn explain(&self, error: DeError, hint: &impl Fn(&str) -> Option<String>) -> Problem {
        let span = error.span().map(|span| self.narrow_to_reference(span));
        let help = match error.unknown_key() {
            Some(key) if error.suggested_path().is_none() => hint(key).or_else(|| error.help().map(str::to_owned)),
            _ => error.help().map(str::to_owned),
        };
        Problem {
            location: span.map(|span| Box::new(Location::new(&self.text, span))),
            path: de::render(error.path()),
            help,
            ..Problem::new(&self.file, error.message().to_owned())
        }
    }

    /// Returns the span of the first unresolvable reference within a scalar; else the whole span.
    fn narrow_to_reference(&self, span: Span) -> Span {
        let Some(written) = self.text.get(span.clone()) else { return span };
        let mut from = 0;
        while let Some(start) = written[from..].find("${").map(|at| at + from) {
            let end = written[start..].find('}').map_or(written.len(), |at| start + at + 1);
            if scalar::resolve(&written[start..end]).is_err() {
                return span.start + start..span.start + end;
            }
            from = end;
        }
        span
    }

    /// Returns the node at a path of keys.
    pub fn node(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(&self.root, |node, key| node.entry(key).map(|entry| &entry.value))
    }

    /// Returns the line of the key at the end of a path.
    pub fn line_of(&self, path: &[&str]) -> Option<usize> {
        self.key_span(path).map(|span| Location::new(&self.text, span).line)
    }

    fn key_span(&self, path: &[&str]) -> Option<Span> {
        let (key, parents) = path.split_last()?;
        self.node(parents)?.entry(key).map(|entry| entry.key_span.clone())
    }

    /// Creates a problem at the value of a path, or at its nearest ancestor in the file.
    pub fn problem(&self, path: &[&str], message: impl Into<String>) -> Problem {
        let span = self.node(path).map(|node| node.span.clone());
        self.problem_in(path, span, message)
    }

    /// Creates a problem at the key of a path, or at its nearest ancestor in the file.
    pub fn problem_of_key(&self, path: &[&str], message: impl Into<String>) -> Problem {
        self.problem_in(path, self.key_span(path), message)
    }

    /// Creates a problem at an item of the list at a path.
    pub fn problem_of_item(&self, path: &[&str], index: usize, message: impl Into<String>) -> Problem {
        let span = match self.node(path).map(|node| &node.kind) {
            Some(Kind::List(items)) => items.get(index).map(|item| item.span.clone()),
            _ => None,
        };
        self.problem_in(path, span, message)
    }

    /// Returns the location of a span.
    pub fn location(&self, span: Span) -> Location {
        Location::new(&self.text, span)
    }

    fn problem_in(&self, path: &[&str], span: Option<Span>, message: impl Into<String>) -> Problem {
        let above = || (1..=path.len()).rev().find_map(|len| self.key_span(&path[..len]));
        let span = span.filter(|span| !span.is_empty()).or_else(above);
        Problem {
            location: span.map(|span| Box::new(Location::new(&self.text, span))),
            path: path.join("."),
            ..Problem::new(&self.file, message)
        }
    }
}

/// Returns help for a text in the other format than its file name says.
fn is_the_other_format(text: &str, format: Format) -> Option<String> {
    let (parsed, name, ending) = match format {
        Format::Toml => (read_yaml::parse(text), "YAML", "yaml"),
        Format::Yaml => (read_toml::parse(text), "TOML", "toml"),
    };
    let is_document = parsed.is_ok_and(|node| matches!(node.kind, Kind::Table(entries) if !entries.is_empty()));
    is_document.then(|| format!("this is {name}: rename the file to end in `.{ending}`"))
}

fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    scalar::read_bytes(file, MAX_BYTES).map_err(|error| {
        let why = match error {
            Unreadable::Directory => "expected a file, but this is a directory".to_owned(),
            Unreadable::NotRegular => "expected a file, but this is not a regular file".to_owned(),
            Unreadable::TooLarge { .. } => "the file is larger than 1 MiB".to_owned(),
            error => format!("cannot read the file: {error}"),
        };
        Problem::new(file, why)
    })
}

fn not_utf8(file: &Path, error: &std::string::FromUtf8Error) -> Problem {
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = error.as_bytes() {
        return Problem::new(file, "the file is UTF-16, not UTF-8").help("save the file as UTF-8");
    }
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let byte = error.as_bytes()[at];
    Problem::new(file, format!("invalid UTF-8 byte 0x{byte:02x}"))
        .at(Location::new(&text, at..at + 1))
        .help("save the file as UTF-8")
}

#[cfg(test)]
mod tests;
