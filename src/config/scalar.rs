//! The scalars of settings and pipeline files: text with `${NAME}` in it, durations, sizes.
//!
//! References are resolved per scalar, after the file is parsed. The content of a variable can therefore never change
//! the structure of a file (R64). Messages show the reference, never the value (R63).
//!
//! A missing variable is an error, or leaves a hole (R61). A text knows from its parsing whether it is a hole.

mod schema;

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::formats::words::io_error;

pub use schema::{DurationText, IntervalText, SizeText};

/// Text with references: `${NAME}`, `${NAME:-default}` and `${file:/path}`. A relative path starts at the directory that
/// [`relative_to`] sets.
///
/// Two texts are equal if their values are, so that a changed variable is a change. Debug and Serialize show a text as the
/// file writes it.
#[derive(Clone)]
pub struct Text {
    written: Box<str>,
    value: Box<str>,
    is_hole: bool,
}

impl Text {
    /// Returns text without references.
    pub fn literal(value: &str) -> Self {
        Self { written: value.into(), value: value.into(), is_hole: false }
    }

    /// Parses a scalar of a file. A missing variable or file is an error, except within [`allowing_missing`], where it
    /// leaves a hole.
    ///
    /// # Errors
    /// A reference cannot be resolved.
    pub fn parse(written: &str) -> Result<Self, Unresolved> {
        let (value, is_hole) = resolve_with(written, MISSING.get())?;
        Ok(Self { written: written.into(), value: value.into(), is_hole })
    }

    /// Returns the text as the file writes it, references unresolved.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Returns whether the value is unknown: the text refers to a missing variable or file, and holes are allowed (R61).
    pub fn is_hole(&self) -> bool {
        self.is_hole
    }

    /// Returns the part that identifies the text: its value, or its written form if it is a hole.
    pub fn identity(&self) -> &str {
        if self.is_hole { &self.written } else { &self.value }
    }

    /// Returns whether any part of the text is a reference.
    pub fn has_references(&self) -> bool {
        self.written.contains("${")
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        (self.is_hole, self.identity()) == (other.is_hole, other.identity())
    }
}

impl Eq for Text {}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor("a string"))
    }
}

/// Text that is a secret. Only its reference is shown (R63).
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Text);

impl SecretText {
    /// Returns the value, for the request that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the secret is unknown: see [`Text::is_hole`].
    pub fn is_hole(&self) -> bool {
        self.0.is_hole()
    }

    fn shown(&self) -> &str {
        let written = self.0.written();
        let is_one_reference = written.starts_with("${") && written.find('}') == Some(written.len() - 1);
        // The default within a reference is a secret as well.
        if is_one_reference && !written.contains(":-") { written } else { "<secret>" }
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(Self)
    }
}

/// Reads a text. The field describes the expected text in messages.
struct TextVisitor(&'static str);

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, written: &str) -> Result<Text, E> {
        Text::parse(written).map_err(E::custom)
    }
}

/// Parses text of a given form. An error does not show a value that came from a reference (R63). `hole` replaces an
/// unknown value.
fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    hole: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = deserializer.deserialize_str(TextVisitor(expected))?;
    let value = if text.is_hole() { hole } else { &text };
    parse(value).map_err(|message| match text.has_references() {
        true => D::Error::custom(format_args!("the value of `{}` is not {expected}", text.written())),
        false => D::Error::custom(message),
    })
}

/// The error of a reference that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("the variable `{0}` is not set (write `${{{0}:-default}}` to give it a default)")]
    NotSet(String),
    #[error("the variable `{0}` is not UTF-8")]
    NotUtf8(String),
    #[error("cannot read the file `{path}`: {why}")]
    File { path: String, why: String },
    #[error("`{0}` is not a reference: write `${{NAME}}`, `${{NAME:-default}}` or `${{file:/path}}`")]
    Malformed(String),
}

/// Resolves the references in a scalar. References inside their values stay as they are.
///
/// # Errors
/// A reference is malformed, or refers to a missing variable or file.
pub fn resolve(written: &str) -> Result<String, Unresolved> {
    resolve_with(written, Missing::IsError).map(|(value, _)| value)
}

/// Resolves the references in a scalar, and returns whether one of them left a hole.
fn resolve_with(written: &str, missing: Missing) -> Result<(String, bool), Unresolved> {
    let mut value = String::with_capacity(written.len());
    let mut is_hole = false;
    let mut rest = written;
    while let Some(start) = rest.find("${") {
        value.push_str(&rest[..start]);
        let reference = &rest[start..];
        let Some(end) = reference.find('}') else {
            return Err(Unresolved::Malformed(reference.to_owned()));
        };
        match look_up(&reference[2..end]) {
            Ok(found) => value.push_str(&found),
            Err(Unresolved::NotSet(_) | Unresolved::File { .. }) if missing == Missing::LeavesHole => is_hole = true,
            Err(Unresolved::Malformed(_)) => return Err(Unresolved::Malformed(reference[..=end].to_owned())),
            Err(other) => return Err(other),
        }
        rest = &reference[end + 1..];
    }
    value.push_str(rest);
    Ok((value, is_hole))
}

/// The maximum size of a file that a reference names.
const MAX_REFERENCED: u64 = 64 << 10;

fn look_up(reference: &str) -> Result<String, Unresolved> {
    if let Some(path) = reference.strip_prefix("file:") {
        let path = DIRECTORY.with_borrow(|directory| directory.join(path));
        return match read_text(&path, MAX_REFERENCED) {
            // Editors end files with a newline, which is not part of a mounted secret.
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => Err(Unresolved::File { path: path.display().to_string(), why: error.to_string() }),
        };
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !is_name(name) {
        return Err(Unresolved::Malformed(reference.to_owned()));
    }
    match (std::env::var(name), default) {
        (Ok(value), _) if !value.is_empty() || default.is_none() => Ok(value),
        (Err(std::env::VarError::NotUnicode(_)), _) => Err(Unresolved::NotUtf8(name.to_owned())),
        (_, Some(default)) => Ok(default.to_owned()),
        (_, None) => Err(Unresolved::NotSet(name.to_owned())),
    }
}

/// The error of a file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{}", io_error(.0))]
    Io(#[from] std::io::Error),
    #[error("it is a directory")]
    Directory,
    /// Reading a pipe or a device could block, or never end.
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than {}", size::written(*.most))]
    TooLarge { most: u64 },
    #[error("it is not UTF-8")]
    NotUtf8,
}

/// Reads a file of at most `most` bytes.
pub fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>, Unreadable> {
    use std::io::Read as _;
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(if metadata.is_dir() { Unreadable::Directory } else { Unreadable::NotRegular });
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(Unreadable::TooLarge { most }) } else { Ok(bytes) }
}

/// Reads a text of at most `most` bytes.
pub fn read_text(path: &Path, most: u64) -> Result<String, Unreadable> {
    String::from_utf8(read_bytes(path, most)?).map_err(|_| Unreadable::NotUtf8)
}

/// The effect of a missing variable or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    IsError,
    LeavesHole,
}

thread_local! {
    // A derived `Deserialize` passes no context to its fields, so the mode of a parse travels beside it. Only
    // `Text::parse` reads it: from then on the text itself knows whether it is a hole.
    static MISSING: std::cell::Cell<Missing> = const { std::cell::Cell::new(Missing::IsError) };
}

thread_local! {
    // It travels beside a parse for the same reason.
    static DIRECTORY: std::cell::RefCell<PathBuf> = const { std::cell::RefCell::new(PathBuf::new()) };
}

/// Runs the parse `f` so that `${file:PATH}` starts at a directory. Otherwise it starts at the current one.
pub fn relative_to<T>(directory: &Path, f: impl FnOnce() -> T) -> T {
    let before = DIRECTORY.replace(directory.to_owned());
    let result = f();
    DIRECTORY.set(before);
    result
}

/// Runs the parse `f` so that missing variables and files leave holes: `check --allow-missing-env` (R61).
pub fn allowing_missing<T>(f: impl FnOnce() -> T) -> T {
    let before = MISSING.replace(Missing::LeavesHole);
    let result = f();
    MISSING.set(before);
    result
}

/// Durations, for `#[serde(with = "scalar::duration")]`: `"5s"`, `"1h 30m"`.
pub mod duration {
    use std::time::Duration;

    use super::{Deserializer, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parsed(deserializer, "a duration such as \"5s\"", "1s", parse)
    }

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    /// The longest duration that can be added to any time of day.
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

    pub fn parse(text: &str) -> Result<Duration, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|_| format!("`{text}` is not a duration such as \"5s\", \"250ms\" or \"1h 30m\""))?;
        if duration > LONGEST { Err(format!("`{text}` is longer than 100 years")) } else { Ok(duration) }
    }
}

/// Intervals, for `#[serde(with = "scalar::interval")]`: a duration, or `"off"`.
pub mod interval {
    use std::time::Duration;

    use super::{Deserializer, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::parsed(deserializer, "a duration such as \"5s\", or \"off\"", "off", parse)
    }

    pub fn serialize<S: Serializer>(interval: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match interval {
            Some(interval) => super::duration::serialize(interval, serializer),
            None => serializer.serialize_str("off"),
        }
    }

    pub fn parse(text: &str) -> Result<Option<Duration>, String> {
        match text {
            "off" => Ok(None),
            _ => match humantime::parse_duration(text) {
                Ok(interval) if !interval.is_zero() => Ok(Some(interval)),
                _ => Err(format!("`{text}` is not a duration such as \"5s\", nor \"off\"")),
            },
        }
    }
}

/// Sizes, for `#[serde(with = "scalar::size")]`: `"64MiB"`, `"1000"` bytes.
pub mod size {
    use super::{Deserializer, Serializer};

    const UNITS: [(&str, u64); 8] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        super::parsed(deserializer, "a size such as \"64MiB\"", "1B", parse)
    }

    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&written(*bytes))
    }

    /// Returns a size as a file writes it, in the largest unit that divides it.
    pub fn written(bytes: u64) -> String {
        let unit = UNITS[..3].iter().rev().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
        match unit {
            Some((name, size)) => format!("{}{name}", bytes / size),
            None => format!("{bytes}B"),
        }
    }

    pub fn parse(text: &str) -> Result<u64, String> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit.trim() {
            "" => Some(1),
            unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size),
        };
        digits
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .ok_or_else(|| format!("`{text}` is not a size such as \"64MiB\", \"500kB\" or \"1000B\""))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn references_resolve_within_their_scalar_only() {
        // PATH is set wherever cargo runs.
        let path = std::env::var("PATH").unwrap();
        assert_eq!(resolve("a${PATH}b${PROPULSIOND_NOT_SET:-c}").unwrap(), format!("a{path}bc"));
        assert_eq!(resolve("no reference, $PATH").unwrap(), "no reference, $PATH");
        assert_eq!(resolve("${PROPULSIOND_NOT_SET:-${PATH}").unwrap(), "${PATH");
        assert_eq!(resolve("${PROPULSIOND_NOT_SET}").unwrap_err(), Unresolved::NotSet("PROPULSIOND_NOT_SET".into()));
        for malformed in ["${", "${}", "${a b}", "${A${B}}"] {
            assert!(matches!(resolve(malformed), Err(Unresolved::Malformed(_))), "{malformed}");
        }
        for file in ["/no/such/file", "/", "/dev/zero", "/proc/self/mem"] {
            assert!(matches!(resolve(&format!("${{file:{file}}}")), Err(Unresolved::File { .. })), "{file}");
        }
    }

    #[test]
    fn r61_a_text_knows_from_its_parsing_whether_it_is_a_hole() {
        let [hole, set, literal] = allowing_missing(|| {
            ["a${PROPULSIOND_NOT_SET}", "${PATH}", "plain"].map(|written| Text::parse(written).unwrap())
        });
        assert_eq!((hole.is_hole(), hole.identity()), (true, "a${PROPULSIOND_NOT_SET}"));
        assert!(!set.is_hole() && !set.is_empty(), "a variable that is set is no hole");
        assert!(!literal.is_hole());
        assert!(Text::parse("a${PROPULSIOND_NOT_SET}").is_err(), "the mode ends with its parse");
        assert!(allowing_missing(|| Text::parse("${a b}")).is_err(), "a malformed reference is an error in any mode");
    }

    #[test]
    fn texts_compare_by_their_values() {
        let [reference, literal] = ["${PROPULSIOND_NOT_SET:-a}", "a"].map(|written| Text::parse(written).unwrap());
        assert_eq!(reference, literal);
        assert_ne!(reference, Text::parse("${PROPULSIOND_NOT_SET:-b}").unwrap());
        let [hole, empty] =
            allowing_missing(|| ["${PROPULSIOND_NOT_SET}", ""].map(|written| Text::parse(written).unwrap()));
        assert_ne!(hole, empty, "an unknown value is no empty one");
    }

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        assert_eq!(
            ["64MiB", "500kB", "7", "7B", "1 GiB"].map(|text| size::parse(text).unwrap()),
            [67_108_864, 500_000, 7, 7, 1 << 30]
        );
        for bad in ["", "MiB", "1.5MiB", "-1", "1TiB", "99999999999999GiB"] {
            assert!(size::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(duration::parse("1h 30m").unwrap().as_secs(), 5_400);
        for bad in ["5 parsecs", "5", "-5s", "101years", "99999999999999999999h", "", " "] {
            assert!(duration::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(["off", "1m"].map(|text| interval::parse(text).unwrap()), [None, Some(Duration::from_secs(60))]);
        assert!(["", "0s", "on"].iter().all(|text| interval::parse(text).is_err()));
    }
}
