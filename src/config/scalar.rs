//! The values that settings and pipeline files are written in: text with `${NAME}` in it, durations, sizes.
//!
//! References are resolved here, one scalar at a time, after the file was parsed: what a variable holds can never
//! change the structure of a file (R64), and messages show the reference, never the value (R63).

mod schema;

use std::fmt;
use std::ops::Deref;
use std::path::Path;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::formats::words::io_error;

pub use schema::{DurationText, IntervalText, SizeText};

/// Text in which `${NAME}`, `${NAME:-default}` and `${file:/path}` stand for what they refer to.
///
/// Shows itself as it was written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text {
    written: Box<str>,
    value: Box<str>,
}

impl Text {
    /// Returns text without references.
    pub fn literal(value: &str) -> Self {
        Self { written: value.into(), value: value.into() }
    }

    /// Returns the text as it was written, references unresolved.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Returns whether the text is not known: it refers to something, and what is missing is taken as empty (R61).
    pub fn is_hole(&self) -> bool {
        self.has_references() && allows_missing()
    }

    /// Returns what tells the text from others: its value, or how it was written if that is not known.
    pub fn identity(&self) -> &str {
        if self.is_hole() { &self.written } else { &self.value }
    }

    /// Returns whether any part of the text comes from elsewhere.
    pub fn has_references(&self) -> bool {
        self.written.contains("${")
    }
}

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

/// Text that is a secret: shown only where it is a reference, as that (R63).
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Text);

impl SecretText {
    /// Returns the value, to be handed to whom it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether what it refers to is missing, and that is allowed.
    pub fn is_hole(&self) -> bool {
        self.0.is_hole()
    }

    fn shown(&self) -> &str {
        let written = self.0.written();
        let is_one_reference = written.starts_with("${") && written.find('}') == Some(written.len() - 1);
        // A default that stands in the reference is a secret as well.
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

/// Takes text, and says what it is expected to be.
struct TextVisitor(&'static str);

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, written: &str) -> Result<Text, E> {
        let value = resolve(written).map_err(E::custom)?;
        Ok(Text { written: written.into(), value: value.into() })
    }
}

/// Reads text that stands for something. What came from elsewhere is not shown if it does not (R63). `hole` stands in
/// where what is missing is taken as empty.
fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    hole: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = deserializer.deserialize_str(TextVisitor(expected))?;
    let value = if text.is_hole() { hole } else { &text };
    parse(value).map_err(|message| match text.has_references() {
        true => D::Error::custom(format_args!("what `{}` stands for is not {expected}", text.written())),
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

/// Resolves the references in a scalar. What they resolve to is not looked at again.
pub fn resolve(written: &str) -> Result<String, Unresolved> {
    let mut value = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(start) = rest.find("${") {
        value.push_str(&rest[..start]);
        let reference = &rest[start..];
        let Some(end) = reference.find('}') else {
            return Err(Unresolved::Malformed(reference.to_owned()));
        };
        value.push_str(&look_up(&reference[2..end]).map_err(|error| match error {
            Unresolved::Malformed(_) => Unresolved::Malformed(reference[..=end].to_owned()),
            other => other,
        })?);
        rest = &reference[end + 1..];
    }
    value.push_str(rest);
    Ok(value)
}

/// The most that a file may hold which a reference stands for.
const MAX_REFERENCED: u64 = 64 << 10;

fn look_up(reference: &str) -> Result<String, Unresolved> {
    if let Some(path) = reference.strip_prefix("file:") {
        return match read_text(Path::new(path), MAX_REFERENCED) {
            // Secrets are mounted as files, and editors end files with a newline that is no part of them.
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => missing(Unresolved::File { path: path.to_owned(), why: error.to_string() }),
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
        (_, None) => missing(Unresolved::NotSet(name.to_owned())),
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{}", io_error(.0))]
    Io(#[from] std::io::Error),
    #[error("it is a folder")]
    Folder,
    /// A pipe or a device would be waited for, or never end.
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than {}", size::written(*.most))]
    TooLarge { most: u64 },
    #[error("it is not UTF-8")]
    NotUtf8,
}

/// Reads a file of at most so many bytes.
pub fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>, Unreadable> {
    use std::io::Read as _;
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(if metadata.is_dir() { Unreadable::Folder } else { Unreadable::NotRegular });
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(Unreadable::TooLarge { most }) } else { Ok(bytes) }
}

/// Reads a text of at most so many bytes.
pub fn read_text(path: &Path, most: u64) -> Result<String, Unreadable> {
    String::from_utf8(read_bytes(path, most)?).map_err(|_| Unreadable::NotUtf8)
}

thread_local! {
    static ALLOW_MISSING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn missing(error: Unresolved) -> Result<String, Unresolved> {
    if ALLOW_MISSING.get() { Ok(String::new()) } else { Err(error) }
}

/// Runs `f` with every missing variable and file taken as empty: `check --allow-missing-env` (R61).
pub fn allowing_missing<T>(f: impl FnOnce() -> T) -> T {
    let before = ALLOW_MISSING.replace(true);
    let result = f();
    ALLOW_MISSING.set(before);
    result
}

/// Returns whether missing variables and files are taken as empty.
pub fn allows_missing() -> bool {
    ALLOW_MISSING.get()
}

/// For `#[serde(with = "setting::duration")]`: `"5s"`, `"1h 30m"`.
pub mod duration {
    use std::time::Duration;

    use super::{Deserializer, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parsed(deserializer, "a duration such as \"5s\"", "1s", parse)
    }

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    /// A longer duration is a typing error, and added to a time it could overflow.
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

    pub fn parse(text: &str) -> Result<Duration, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|_| format!("`{text}` is not a duration such as \"5s\", \"250ms\" or \"1h 30m\""))?;
        if duration > LONGEST { Err(format!("`{text}` is longer than 100 years")) } else { Ok(duration) }
    }
}

/// For `#[serde(with = "setting::interval")]`: a duration, or `"off"`.
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

/// For `#[serde(with = "setting::size")]`: `"64MiB"`, `"1000"` bytes.
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

    /// Returns a size as a file has it, in the largest unit of which it is a multiple.
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
        assert_eq!(allowing_missing(|| resolve("a${PROPULSIOND_NOT_SET}")).unwrap(), "a");
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
