//! The JSON Schema of the scalars: a reference may replace any text.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{SecretText, Text};

/// The pattern of a reference, whose value a schema cannot check.
const REFERENCE: &str = r"\$\{";

/// The schema of [`duration`](super::duration), for `#[schemars(with = "scalar::DurationText")]`.
#[derive(Debug)]
pub struct DurationText;

/// The schema of [`size`](super::size), for `#[schemars(with = "scalar::SizeText")]`.
#[derive(Debug)]
pub struct SizeText;

/// The schema of [`interval`](super::interval), for `#[schemars(with = "scalar::IntervalText")]`.
#[derive(Debug)]
pub struct IntervalText;

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let unit = "(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|min|mins|m\
                    |hours|hour|hr|hrs|h|days|day|d|weeks|week|wk|wks|w|months|month|M|years|year|yr|yrs|y)";
        let span = format!(r"[0-9][0-9\s]*(\.[0-9\s]+)?{unit}");
        json_schema!({
            "title": "duration",
            "description": "A duration: numbers with their units.",
            "type": "string",
            "pattern": format!(r"^\s*{span}(\s*{span})*\s*$|{REFERENCE}"),
            "examples": ["250ms", "5s", "1h 30m"],
        })
    }
}

impl JsonSchema for IntervalText {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "interval",
            "description": "A duration, or `\"off\"`.",
            "anyOf": [{ "const": "off" }, generator.subschema_for::<DurationText>()],
        })
    }
}

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "size",
            "description": "A size in bytes: a whole number, with a unit or without.",
            "type": "string",
            "pattern": format!(r"^[0-9]+\s*(KiB|MiB|GiB|kB|KB|MB|GB|B)?\s*$|{REFERENCE}"),
            "examples": ["64MiB", "500kB", "1000B"],
        })
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "text",
            "description": "Text. `${NAME}`, `${NAME:-default}` and `${file:/path}` in it are replaced by their values. A relative path starts at the directory of the pipeline's file.",
            "type": "string",
        })
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "secret",
            "description": "Text that is never shown. Prefer a reference: `${NAME}`, or `${file:/run/secrets/name}`.",
            "type": "string",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scalar::{duration, size};

    /// Asserts that the pattern of a type accepts the same texts as its parser.
    fn check<T: JsonSchema>(parse: impl Fn(&str) -> bool, texts: &[&str]) {
        let schema = schemars::schema_for!(T);
        let pattern = regex::Regex::new(schema.get("pattern").unwrap().as_str().unwrap()).unwrap();
        for text in texts {
            assert_eq!(pattern.is_match(text), parse(text), "{text:?}");
        }
    }

    #[test]
    fn the_patterns_accept_the_same_texts_as_the_parsers() {
        let durations = [
            "5s",
            "250ms",
            "1h 30m",
            "1h30m",
            "1m 5 s",
            " 5s",
            "5s ",
            "1.5s",
            "0s",
            "",
            "5",
            "s",
            "-5s",
            "5 parsecs",
            "1h,2m",
            "5S",
            "1month",
            "2M",
            "1e3s",
        ];
        check::<DurationText>(|text| duration::parse(text).is_ok(), &durations);
        let sizes = ["64MiB", "500kB", "7", "7B", "1 GiB", "", "MiB", "1.5MiB", "-1", "1TiB", "64mib", " 7"];
        check::<SizeText>(|text| size::parse(text).is_ok(), &sizes);
    }

    #[test]
    fn a_reference_may_stand_for_a_duration_or_a_size() {
        check::<DurationText>(|_| true, &["${PAUSE}", "${PAUSE:-5s}", "${SECONDS}s"]);
        check::<SizeText>(|_| true, &["${SIZE}", "${SIZE:-1MiB}"]);
    }
}
