//! The settings of sink `http`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::scalar;
use crate::config::template::Template;

/// `[sink.http]`: a request for each event, each span, or each emitted effect, with an idempotency key.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HttpSink", extend("required" = ["url"]))]
pub struct Settings {
    /// The url, `http://` or `https://`. It may have a path and a query, but no user and password: `auth` has those.
    #[schemars(extend("examples" = ["https://api.example.com/orders"]))]
    pub url: scalar::Text,
    /// The path behind the url's own, such as `"/orders/{id}"`. An emitted `path` replaces it. Default: none.
    pub path: Option<Template>,
    /// The contents of a request of a pipeline without a handler.
    pub per: Per,
    /// The request's method.
    pub method: scalar::Text,
    /// The headers of every request, such as `{ X-Api-Key = "${API_KEY}" }`. Values are never shown.
    pub headers: BTreeMap<String, Hidden>,
    /// The credentials of the sink: `{ bearer = "${TOKEN}" }`, or
    /// `{ basic = { user = "u", password = "${PASSWORD}" } }`. Default: none.
    pub auth: Option<Auth>,
    /// The limit of a whole request, from its connection to the last byte of the answer.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub timeout: Duration,
    /// The limit of making a connection.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub connect_timeout: Duration,
    /// The statuses of a success, such as `["2xx", 409]`.
    pub success: Statuses,
    /// The statuses of a permanent error. `4xx` excludes 401, 407, 408, 425 and 429, which can be named.
    pub permanent: Statuses,
    /// The largest body of a request. A larger one is a permanent error.
    #[serde(with = "scalar::size")]
    #[schemars(with = "scalar::SizeText")]
    pub max_body: u64,
    /// Pass the trace of the events on in the headers of their request.
    pub trace_context: bool,
    /// The url of a proxy. Default: none; variables of the environment have no effect.
    pub proxy: Option<Hidden>,
}

/// The contents of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One event, as a line that a JSON source reads.
    Event,
    /// A run of events of one stream, as a RenderedSpan.
    Span,
}

/// The credentials of the sink.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// The token of `Authorization: Bearer`.
    Bearer(Hidden),
    /// The user and password of `Authorization: Basic`.
    Basic(Basic),
}

/// User and password, for `Authorization: Basic`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BasicAuth")]
pub struct Basic {
    /// The user's name.
    pub user: scalar::Text,
    /// The password, preferably as a reference. It is never shown.
    pub password: Hidden,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: scalar::Text::literal(""),
            path: None,
            per: Per::Event,
            method: scalar::Text::literal("POST"),
            headers: BTreeMap::new(),
            auth: None,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            success: Statuses(vec![Status::Class(2)]),
            permanent: Statuses(vec![Status::Class(4)]),
            max_body: 10 << 20,
            trace_context: true,
            proxy: None,
        }
    }
}

/// A secret. It is shown as the reference that it came from, and never if it was written out.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(scalar::Text);

impl Hidden {
    /// Returns the secret itself, for the request that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether a reference is missing, and that is allowed.
    pub(super) fn is_hole(&self) -> bool {
        self.0.is_hole()
    }

    fn shown(&self) -> &str {
        if self.0.has_references() { self.0.written() } else { "<secret>" }
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar::Text::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Hidden {
    fn schema_name() -> Cow<'static, str> {
        scalar::SecretText::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        scalar::SecretText::json_schema(generator)
    }
}

/// A list of statuses, such as `[200, "4xx"]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Statuses(pub Vec<Status>);

impl Statuses {
    /// Returns whether the status itself is listed.
    pub fn name(&self, status: StatusCode) -> bool {
        self.0.contains(&Status::Code(status.as_u16()))
    }

    /// Returns whether the class of the status is listed.
    pub fn include(&self, status: StatusCode) -> bool {
        self.0.contains(&Status::Class(status.as_u16() / 100))
    }
}

/// A status, or a class of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Code(u16),
    /// All statuses that begin with this digit.
    Class(u16),
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Code(code) => serializer.serialize_u16(*code),
            Self::Class(digit) => serializer.collect_str(&format_args!("{digit}xx")),
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusVisitor)
    }
}

impl JsonSchema for Status {
    fn schema_name() -> Cow<'static, str> {
        "Status".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "status",
            "description": "The status of an answer, such as 404, or a class of them, such as \"4xx\".",
            "oneOf": [
                { "type": "integer", "minimum": 200, "maximum": 599 },
                { "type": "string", "enum": ["2xx", "3xx", "4xx", "5xx"] },
            ],
        })
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status such as 404 or a class of them such as \"4xx\"")
    }

    fn visit_u64<E: de::Error>(self, code: u64) -> Result<Status, E> {
        match u16::try_from(code) {
            Ok(code @ 200..=599) => Ok(Status::Code(code)),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(code), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, code: i64) -> Result<Status, E> {
        match u64::try_from(code) {
            Ok(code) => self.visit_u64(code),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(code), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Status, E> {
        match text {
            "2xx" => Ok(Status::Class(2)),
            "3xx" => Ok(Status::Class(3)),
            "4xx" => Ok(Status::Class(4)),
            "5xx" => Ok(Status::Class(5)),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_codes_and_classes() {
        let settings: Settings = toml::from_str("success = [\"2xx\", 409]\npermanent = []").unwrap();
        let is_success = |code| {
            let status = StatusCode::from_u16(code).unwrap();
            settings.success.name(status) || settings.success.include(status)
        };
        assert_eq!([200, 299, 300, 409].map(is_success), [true, true, false, true]);
        for bad in ["[99]", "[600]", "[-1]", "[\"6xx\"]", "[\"404\"]", "[true]", "404"] {
            assert!(toml::from_str::<Settings>(&format!("success = {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn r63_secrets_are_shown_as_references_or_not_at_all() {
        let settings: Settings = toml::from_str(
            "headers = { a = \"literal-secret\", b = \"${PROPULSIOND_NOT_SET:-x}\" }\n\
             auth = { basic = { user = \"u\", password = \"literal-secret\" } }\n\
             proxy = \"http://u:literal-secret@h\"",
        )
        .unwrap();
        let shown = format!("{settings:?} {}", toml::to_string(&settings).unwrap());
        assert!(!shown.contains("literal-secret"), "{shown}");
        assert!(shown.contains("${PROPULSIOND_NOT_SET:-x}"), "{shown}");
        assert_eq!(settings.headers["a"].expose(), "literal-secret");
    }
}
