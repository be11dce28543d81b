//! The daemon's own settings: defaults, then a file, then the environment, then flags.

mod layers;
mod otlp;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::document::{Problem, clear_secrets};
use crate::config::scalar::{DurationText, IntervalText, SecretText, Text, duration, interval};

pub use layers::Flags;
pub use otlp::{Endpoint, OtlpSettings, Share};

/// Where the file is looked for if no flag names one; it need not exist.
pub const DEFAULT_FILE: &str = "config/propulsiond.toml";

/// What the name of every variable begins with. The underscores are two: Kubernetes puts `PROPULSIOND_SERVICE_HOST`
/// into pods beside a Service of that name.
pub const PREFIX: &str = "PROPULSIOND__";

/// The daemon's own settings: everything it can be told that is not about one pipeline. The environment comes after this
/// file (`PROPULSIOND__LOG__LEVEL=debug`), flags come after that.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "propulsiond settings")]
pub struct Settings {
    /// Where metrics, health and the admin API are served, such as `"0.0.0.0:9464"`; `"off"`: nowhere.
    pub listen: Listen,
    /// Where checkpoints and results are kept. One daemon at a time.
    pub data_dir: Text,
    /// How long handlers may take to finish when the daemon stops.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub drain: Duration,
    /// Who may use the admin API.
    pub http: HttpSettings,
    /// What is logged to standard error, and how.
    pub log: LogSettings,
    /// Where traces are exported to.
    pub otlp: OtlpSettings,
}

/// `[http]`: who may use the admin API.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Opens the admin API to who is not on this machine, if they send it as a bearer token. Left out: to nobody else.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "token")]
    pub token: Option<SecretText>,
}

/// Reads a token; one without a character in it is a mistake that would be noticed late.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretText>, D::Error> {
    let token = SecretText::deserialize(deserializer)?;
    if token.expose().trim().is_empty() && !token.is_hole() {
        return Err(de::Error::custom("the token is empty: leave it out, or give it a value that nobody can guess"));
    }
    Ok(Some(token))
}

/// `[log]`: what is logged to standard error, and how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// How lines are written.
    pub format: LogFormat,
    /// What is logged: `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`, also by target: `"info,propulsiond::pipeline=debug"`.
    pub level: Text,
    /// How often the stats of each pipeline are logged, if it did anything; or `"off"`.
    #[serde(with = "interval")]
    #[schemars(with = "IntervalText")]
    pub stats_interval: Option<Duration>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 9464))),
            data_dir: Text::literal("data"),
            drain: Duration::from_secs(25),
            http: HttpSettings::default(),
            log: LogSettings::default(),
            otlp: OtlpSettings::default(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        let stats_interval = Some(Duration::from_secs(60));
        Self { format: LogFormat::Text, level: Text::literal("info"), stats_interval }
    }
}

impl Settings {
    /// Layers the settings. `file` is what a flag named; without one, [`DEFAULT_FILE`] is read if it exists.
    /// `variables` are those of the environment.
    ///
    /// # Errors
    /// Every mistake of the file, each with its place; or the first one of the environment or the flags, by name.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
        flags: &Flags,
    ) -> Result<Self, Vec<Problem>> {
        layers::load(file, variables, flags)
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(&*self.data_dir)
    }
}

/// Returns advice about the settings' file, which is named or looked for as in [`Settings::load`], and the environment.
pub fn advice(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Vec<Problem> {
    let document = layers::read(file).ok().flatten();
    let mut found = document.map_or_else(Vec::new, |document| clear_secrets(&document));
    found.extend(layers::unread(variables));
    found
}

/// Where the daemon listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    Off,
    At(SocketAddr),
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::At(address) => serializer.collect_str(address),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ListenVisitor)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "address",
            "description": "An address and a port, or `off`.",
            "type": "string",
            "pattern": r"^off$|^.+:[0-9]{1,5}$|\$\{",
            "examples": ["127.0.0.1:9464", "0.0.0.0:9464", "[::]:9464", "off"],
        })
    }
}

struct ListenVisitor;

impl Visitor<'_> for ListenVisitor {
    type Value = Listen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as \"127.0.0.1:9464\", or \"off\"")
    }

    fn visit_str<E: de::Error>(self, written: &str) -> Result<Listen, E> {
        let value = Text::parse(written).map_err(E::custom)?;
        if &*value == "off" || value.is_hole() {
            return Ok(Listen::Off);
        }
        let address = match value.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse(),
            None => value.parse(),
        };
        address.map(Listen::At).map_err(|_| {
            E::custom(format_args!("`{written}` is not an address such as \"127.0.0.1:9464\", nor \"off\""))
        })
    }
}

#[cfg(test)]
mod tests;
