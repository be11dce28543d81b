//! `[otlp]`: export of traces.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::config::scalar::{DurationText, SecretText, Text, duration};

/// `[otlp]`: the export of traces, to no collector by default.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpSettings {
    /// The URL of a collector that takes OTLP over HTTP, without `/v1/traces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub endpoint: Option<Endpoint>,
    /// The sampling ratio (0 to 1) for calls whose events carry no trace. A call whose events carry one follows the
    /// sender's decision.
    pub sample: Share,
    /// The name of the daemon in traces.
    pub service_name: Text,
    /// The longest time of a request to the collector.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
    /// Headers of every request.
    pub headers: BTreeMap<String, SecretText>,
    /// More resource attributes, such as `deployment.environment.name`.
    pub attributes: BTreeMap<String, Text>,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample: Share(0.01),
            service_name: Text::literal("propulsiond"),
            timeout: Duration::from_secs(10),
            headers: BTreeMap::new(),
            attributes: BTreeMap::new(),
        }
    }
}

/// The URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Endpoint(Text);

impl Endpoint {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        if cfg!(not(feature = "otlp")) {
            return Err(de::Error::custom(
                "this build exports no traces: build it with `--features otlp`, or remove `[otlp]`",
            ));
        }
        if text.trim_end_matches('/').ends_with("/v1/traces") {
            let written = text.written();
            return Err(de::Error::custom(format_args!(
                "`{written}` ends in `/v1/traces`, which is appended: remove it"
            )));
        }
        let is_url =
            reqwest::Url::parse(&text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        if is_url || text.is_hole() {
            return Ok(Self(text));
        }
        Err(de::Error::custom(format_args!("`{}` is not a URL such as \"http://127.0.0.1:4318\"", text.written())))
    }
}

/// A ratio, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Share(f64);

impl Share {
    pub fn get(self) -> f64 {
        self.0
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "share",
            "description": "A share of a whole.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
        })
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_f64(ShareVisitor)
    }
}

struct ShareVisitor;

impl Visitor<'_> for ShareVisitor {
    type Value = Share;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a ratio between 0 and 1, such as 0.01")
    }

    fn visit_f64<E: de::Error>(self, share: f64) -> Result<Share, E> {
        if (0.0..=1.0).contains(&share) {
            return Ok(Share(share));
        }
        Err(E::custom(format_args!("{share} is not a ratio between 0 and 1, such as 0.01")))
    }

    fn visit_i64<E: de::Error>(self, share: i64) -> Result<Share, E> {
        self.visit_f64(share as f64)
    }

    fn visit_u64<E: de::Error>(self, share: u64) -> Result<Share, E> {
        self.visit_f64(share as f64)
    }
}
