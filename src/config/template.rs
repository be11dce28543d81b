//! Paths with parts of the stream's name, confined to their directory (R65).
//!
//! A template with placeholders begins with a literal directory. The value of a placeholder is percent-encoded, except
//! letters, digits and `-_.~`. It can therefore add neither a directory nor a query. A name that would make a directory
//! of `.` or `..` is an error.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::scalar;
use crate::event::{category, stream_id};

/// A path such as `orders/{category}/{id}.json`. The placeholders are `{stream}`, `{category}` and `{id}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: scalar::Text,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Stream,
    Category,
    Id,
}

/// The error of an invalid template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    #[error("the path is empty")]
    Empty,
    #[error("unknown placeholder `{{{0}}}`, expected `{{stream}}`, `{{category}}` or `{{id}}`")]
    Unknown(String),
    #[error("`{0}` has an unmatched brace")]
    Unbalanced(String),
    #[error("`{0}` must begin with a literal directory, such as `orders/`, so that a stream's name cannot leave it")]
    NoDirectory(String),
    #[error("`{0}` must not contain the directory `.` or `..`")]
    Dots(String),
}

/// The error of a stream without a valid path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPath {
    #[error("stream `{stream}` has no value for `{placeholder}` in `{template}`")]
    Nothing { stream: String, placeholder: &'static str, template: String },
    #[error("the name of stream `{stream}` would leave the directory of `{template}`")]
    Dots { stream: String, template: String },
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        Self::of(scalar::Text::literal(text))
    }

    fn of(text: scalar::Text) -> Result<Self, BadTemplate> {
        if text.is_empty() {
            return Err(BadTemplate::Empty);
        }
        let template = Self { parts: parts(&text)?, text };
        if !template.is_literal() {
            template.check_confined()?;
        }
        Ok(template)
    }

    fn check_confined(&self) -> Result<(), BadTemplate> {
        let directory = match &self.parts[0] {
            Part::Literal(start) => start.rsplit_once('/').map(|(directory, _)| directory.trim_matches('/')),
            _ => None,
        };
        if directory.is_none_or(str::is_empty) {
            return Err(BadTemplate::NoDirectory(self.text.written().to_owned()));
        }
        // An ordinary name reveals an invalid literal part.
        self.render("c-i").map(drop).map_err(|_| BadTemplate::Dots(self.text.written().to_owned()))
    }

    /// Returns the text of the template.
    pub fn text(&self) -> &scalar::Text {
        &self.text
    }

    /// Returns the template as it was written.
    pub fn written(&self) -> &str {
        self.text.written()
    }

    /// Returns whether the text has references.
    pub fn has_references(&self) -> bool {
        self.text.has_references()
    }

    /// Returns whether the path is the same for every stream.
    pub fn is_literal(&self) -> bool {
        matches!(&self.parts[..], [Part::Literal(_)])
    }

    /// Returns the literal directory of all its paths; empty if there is none.
    pub fn directory(&self) -> &str {
        match &self.parts[0] {
            Part::Literal(start) => start.rsplit_once('/').map_or("", |(directory, _)| directory),
            _ => "",
        }
    }

    /// Returns whether some stream has this path.
    pub fn matches(&self, path: &str) -> bool {
        matches_parts(&self.parts, path)
    }

    /// Returns the path for a stream.
    pub fn render(&self, stream: &str) -> Result<String, NoPath> {
        let mut path = String::with_capacity(self.text.len() + stream.len());
        for part in &self.parts {
            let (placeholder, value) = match part {
                Part::Literal(text) => {
                    path.push_str(text);
                    continue;
                }
                Part::Stream => ("{stream}", stream),
                Part::Category => ("{category}", category(stream)),
                Part::Id => ("{id}", stream_id(stream)),
            };
            if value.is_empty() {
                let (stream, template) = (stream.to_owned(), self.text.written().to_owned());
                return Err(NoPath::Nothing { stream, placeholder, template });
            }
            encode(value, &mut path);
        }
        if !self.is_literal() && path.split('/').any(|directory| matches!(directory, "." | "..")) {
            return Err(NoPath::Dots { stream: stream.to_owned(), template: self.text.written().to_owned() });
        }
        Ok(path)
    }
}

fn parts(text: &str) -> Result<Vec<Part>, BadTemplate> {
    let unbalanced = || BadTemplate::Unbalanced(text.to_owned());
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['{', '}']) {
        if start > 0 {
            parts.push(Part::Literal(rest[..start].into()));
        }
        let (name, after) =
            rest[start..].strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or_else(unbalanced)?;
        parts.push(match name {
            "stream" => Part::Stream,
            "category" => Part::Category,
            "id" => Part::Id,
            other => return Err(BadTemplate::Unknown(other.to_owned())),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.into()));
    }
    Ok(parts)
}

/// The escaped bytes of a value. They keep the value within one directory name.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn encode(value: &str, path: &mut String) {
    path.extend(utf8_percent_encode(value, ESCAPED));
}

/// Shows the template as written.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = scalar::Text::deserialize(deserializer)?;
        if text.is_hole() {
            return Ok(Self { parts: vec![Part::Literal("missing".into())], text });
        }
        Self::of(text.clone()).map_err(|bad| match text.has_references() {
            // The value of a reference can be a secret.
            true => D::Error::custom(format_args!("the value of `{}` is not a valid path", text.written())),
            false => D::Error::custom(bad),
        })
    }
}

/// Matches a path against the parts. The value of a placeholder is not empty and has no `/`.
fn matches_parts(parts: &[Part], path: &str) -> bool {
    match parts {
        [] => path.is_empty(),
        [Part::Literal(text), rest @ ..] => path.strip_prefix(&**text).is_some_and(|path| matches_parts(rest, path)),
        [_, rest @ ..] => {
            let longest = path.find('/').unwrap_or(path.len());
            (1..=longest).filter(|end| path.is_char_boundary(*end)).any(|end| matches_parts(rest, &path[end..]))
        }
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "path template",
            "description": "A path. `{stream}`, `{category}` and `{id}` may follow a literal directory.",
            "type": "string",
            "minLength": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn check(template: &str, stream: &str, expected: &str) {
        assert_eq!(Template::parse(template).unwrap().render(stream).unwrap(), expected);
    }

    #[test]
    fn placeholders_take_parts_of_the_streams_name() {
        check("out/all.jsonl", "order-1", "out/all.jsonl");
        check("../out.jsonl", "order-1", "../out.jsonl");
        check("out/{category}.jsonl", "order-1-2", "out/order.jsonl");
        check("/o/{stream}/{id}", "order-1-2", "/o/order-1-2/1-2");
        check("o/{category}{category}x", "order", "o/orderorderx");
    }

    #[test]
    fn a_template_matches_exactly_the_paths_that_it_makes() {
        let matches = |template: &str, path: &str| Template::parse(template).unwrap().matches(path);
        assert!(matches("out/{category}/{id}.jsonl", "out/order/1.jsonl"));
        assert!(matches("out/{id}x{id}", "out/axxa") && matches("out.jsonl", "out.jsonl"));
        for other in
            ["out/order/.jsonl", "out/a/b/1.jsonl", "out/order/1.jsonl.gz", "other/order/1.jsonl", "out/1.jsonl"]
        {
            assert!(!matches("out/{category}/{id}.jsonl", other), "{other}");
        }
        assert_eq!(Template::parse("/a/b/c{id}").unwrap().directory(), "/a/b");
    }

    #[test]
    fn r65_a_template_begins_with_a_literal_directory() {
        for bad in ["{stream}", "/{stream}", "out{category}", "//{id}"] {
            assert_eq!(Template::parse(bad), Err(BadTemplate::NoDirectory(bad.into())));
        }
        for bad in ["../{id}", "a/../{id}", "./{id}", "a/{id}/.."] {
            assert_eq!(Template::parse(bad), Err(BadTemplate::Dots(bad.into())));
        }
        assert_eq!(Template::parse("a/{type}"), Err(BadTemplate::Unknown("type".into())));
        assert_eq!(Template::parse(""), Err(BadTemplate::Empty));
        for bad in ["a/{id", "a/id}", "a/{{id}}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn r65_values_cannot_leave_their_directory() {
        check("o/{id}", "a-../../etc/passwd", "o/..%2F..%2Fetc%2Fpasswd");
        check("o/{id}", "a-x?y#z %2e\\é", "o/x%3Fy%23z%20%252e%5C%C3%A9");
        let template = Template::parse("o/{id}").unwrap();
        for stream in ["a-.", "a-.."] {
            assert!(matches!(template.render(stream), Err(NoPath::Dots { .. })), "{stream}");
        }
        assert!(matches!(Template::parse("o/.{id}").unwrap().render("a-."), Err(NoPath::Dots { .. })));
        for stream in ["a", "a-"] {
            assert!(matches!(template.render(stream), Err(NoPath::Nothing { placeholder: "{id}", .. })), "{stream}");
        }
    }

    proptest! {
        #[test]
        fn no_name_changes_the_number_of_directories_of_a_path(stream in "\\PC{1,8}|[./\\\\-]{1,8}") {
            if let Ok(path) = Template::parse("o/x{stream}y/.{id}").unwrap().render(&stream) {
                let components: Vec<_> = Path::new(&path).components().collect();
                prop_assert_eq!(components.len(), 3);
                prop_assert!(components.iter().all(|component| matches!(component, Component::Normal(_))));
            }
        }
    }
}
