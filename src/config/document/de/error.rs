//! The errors of deserializing a tree.
//!
//! A message never shows a value that is text, because it can be a secret. The line below the message shows it masked.

use std::fmt::Display;

use serde::de::{Error, Expected, Unexpected};

use super::super::node::Span;
use super::super::suggest::closest;
use super::Segment;

#[derive(Debug)]
pub(in crate::config::document) struct DeError(Box<Details>);

#[derive(Debug, Default)]
struct Details {
    message: String,
    help: Option<String>,
    span: Option<Span>,
    /// From the innermost segment outwards.
    path: Vec<Segment>,
    unknown_key: Option<String>,
    suggestion: Option<&'static str>,
    missing: Option<&'static str>,
    rooted: bool,
}

impl DeError {
    fn new(message: String, help: Option<String>) -> Self {
        Self(Box::new(Details { message, help, ..Details::default() }))
    }

    /// Creates the error of a value that is not one of the names.
    pub(super) fn not_a_name(found: Unexpected<'_>, names: &[&str]) -> Self {
        Self::new(format!("expected {}, found {}", list(names), describe(&found)), None)
    }

    /// Sets the location, unless a more exact one is set.
    pub(super) fn located(mut self, span: &Span) -> Self {
        self.0.span.get_or_insert_with(|| span.clone());
        self
    }

    /// Replaces a location without text by one that has some.
    pub(super) fn located_instead(mut self, empty: &Span, span: &Span) -> Self {
        if self.0.span.as_ref() == Some(empty) {
            self.0.span = Some(span.clone());
        }
        self
    }

    /// Adds an enclosing segment to the path.
    pub(super) fn under(mut self, segment: Segment) -> Self {
        self.0.path.push(segment);
        self
    }

    pub(in crate::config::document) fn message(&self) -> &str {
        &self.0.message
    }

    pub(in crate::config::document) fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    pub(in crate::config::document) fn span(&self) -> Option<Span> {
        self.0.span.clone()
    }

    /// Returns the unknown key, if that is the error.
    pub(in crate::config::document) fn unknown_key(&self) -> Option<&str> {
        self.0.unknown_key.as_deref()
    }

    /// Returns the path of the similar known key, if the error is an unknown key that resembles one.
    pub(in crate::config::document) fn suggested_path(&self) -> Option<Vec<Segment>> {
        let (_, parents) = self.0.path.split_last()?;
        Some([parents, &[Segment::Key(self.0.suggestion?.into())]].concat())
    }

    /// Orders the path from the root. The caller calls it once the error has left the tree.
    pub(in crate::config::document) fn rooted(mut self) -> Self {
        if !self.0.rooted {
            self.0.path.reverse();
            self.0.rooted = true;
        }
        self
    }

    pub(in crate::config::document) fn path(&self) -> &[Segment] {
        &self.0.path
    }

    /// Returns the path of the nearest entry whose removal lets the rest be checked.
    pub(in crate::config::document) fn removable(&self) -> &[Segment] {
        let list = self.0.path.iter().position(|segment| matches!(segment, Segment::Index(_)));
        &self.0.path[..list.unwrap_or(self.0.path.len())]
    }

    /// Returns the path of the missing key, if that is the error.
    pub(in crate::config::document) fn missing_path(&self) -> Option<Vec<Segment>> {
        let mut path = self.0.path.clone();
        path.push(Segment::Key(self.0.missing?.into()));
        Some(path)
    }
}

impl Display for DeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for DeError {}

impl Error for DeError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expectation(expected);
        let help = help_for(&found, &expected);
        let found = match found {
            // A number in location of text can be a secret as well.
            Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_) if expected == "a string" => {
                "a number".to_owned()
            }
            found => describe(&found),
        };
        Self::new(format!("expected {expected}, found {found}"), help)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(len: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {len} items", expectation(expected)), None)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = closest(variant, expected).map(|name| format!("did you mean `{name}`?"));
        // A name without resemblance can be a secret.
        let message = match help {
            Some(_) => format!("unknown value `{variant}`, expected {}", list(expected)),
            None => format!("expected {}", list(expected)),
        };
        Self::new(message, help)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let suggestion = closest(field, expected);
        let help = match (suggestion, expected) {
            (Some(name), _) => Some(format!("did you mean `{name}`?")),
            (None, []) => Some("this table has no keys".to_owned()),
            (None, [name]) => Some(format!("the only key here is `{name}`")),
            (None, names) => Some(format!("the keys here are {}", names_of(names, "and"))),
        };
        let mut error = Self::new(format!("unknown key `{field}`"), help);
        error.0.unknown_key = Some(field.to_owned());
        error.0.suggestion = suggestion;
        error
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new(format!("missing key `{field}`"), None);
        error.0.missing = Some(field);
        error
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("duplicate key `{field}`"), None)
    }
}

/// Returns the expectation in terms of the file instead of the Rust type.
fn expectation(expected: &dyn Expected) -> String {
    let words = expected.to_string();
    let number = |max: u64| format!("a whole number from 0 to {max}");
    match words.as_str() {
        "a boolean" => "`true` or `false`".to_owned(),
        "u8" => number(u8::MAX.into()),
        "u16" => number(u16::MAX.into()),
        "u32" => number(u32::MAX.into()),
        "u64" | "usize" => "a whole number that is not negative".to_owned(),
        "i64" | "i32" | "isize" => "a whole number".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "newtype variant" | "struct variant" => "a table with this name and its value".to_owned(),
        words if words.starts_with("a nonzero") => "a whole number from 1 up".to_owned(),
        words if words.starts_with("struct ") => "a table".to_owned(),
        words => words.to_owned(),
    }
}

fn describe(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number:?}"),
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "text".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map | Unexpected::NewtypeStruct => "a table".to_owned(),
        Unexpected::Other(what) if what.contains("integer") => "a number out of range".to_owned(),
        Unexpected::Other(what) => (*what).to_owned(),
        _ => "a name alone".to_owned(),
    }
}

fn help_for(found: &Unexpected<'_>, expected: &str) -> Option<String> {
    let wants_number = expected.contains("number");
    match found {
        Unexpected::Str(text) if wants_number && text.contains("${") => {
            Some("`${…}` yields text only; write the number itself".to_owned())
        }
        Unexpected::Str(text) if wants_number && text.trim().parse::<f64>().is_ok() => {
            Some(format!("write `{}`, without quotes", text.trim()))
        }
        Unexpected::Str(text) if expected == "a table" && is_key_without_space(text) => {
            Some("write a space after the `:`".to_owned())
        }
        Unexpected::Str("true" | "false") if expected.starts_with("`true`") => {
            Some("write it without quotes".to_owned())
        }
        Unexpected::Str("yes" | "on") if expected.starts_with("`true`") => Some("write `true`".to_owned()),
        Unexpected::Str("no" | "off") if expected.starts_with("`true`") => Some("write `false`".to_owned()),
        Unexpected::Float(number) if expected.contains("whole number") && number.fract() == 0.0 => {
            Some(format!("write `{number:.0}`"))
        }
        Unexpected::Bool(_)
        | Unexpected::Signed(_)
        | Unexpected::Unsigned(_)
        | Unexpected::Float(_)
        | Unexpected::Other("a date")
            if expected == "a string" =>
        {
            Some("put it in quotes".to_owned())
        }
        _ => None,
    }
}

/// Distinguishes `key:value` from text with a colon, such as a URL.
fn is_key_without_space(text: &str) -> bool {
    let key = text.split(':').next().unwrap_or_default();
    key.len() < text.len() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !text.contains("://")
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [name] => format!("`{name}`"),
        names => format!("one of {}", names_of(names, "or")),
    }
}

fn names_of(names: &[&str], join: &str) -> String {
    let Some((last, rest)) = names.split_last() else { return String::new() };
    let rest: Vec<_> = rest.iter().map(|name| format!("`{name}`")).collect();
    format!("{} {join} `{last}`", rest.join(", "))
}
