//! The daemon's own settings: defaults, then a file, then the environment, then flags.

mod levels;
mod layers;
mod otlp;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::document::{Problem, clear_secrets};
use crate::config::scalar::{DurationText, IntervalText, SecretText, Text, duration, interval};

pub use layers::Flags;
pub use levels::{BadLevel, LogLevels};
pub use otlp::{Endpoint, OtlpSettings, Share};

/// The default path of the file, which need not exist.
pub const DEFAULT_FILE: &str = "config/propulsiond.toml";

/// The prefix of the variables. It ends in two underscores because Kubernetes sets `PROPULSIOND_SERVICE_HOST` in pods
/// beside a Service named `propulsiond`.
pub const PREFIX: &str = "PROPULSIOND__";

/// The daemon's own settings, apart from those of the pipelines. Variables (`PROPULSIOND__LOG__LEVEL=debug`) override this
/// file, and flags override both.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "propulsiond settings")]
pub struct DaemonSettings {
    /// The address for metrics, health and the admin API, such as `"0.0.0.0:9464"`, or `"off"`.
    pub listen: Listen,
    /// The directory for checkpoints and results. One daemon at a time can use it.
    pub data_dir: Text,
    /// The longest time for calls in flight when the daemon stops.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub drain: Duration,
    /// The interval of the looks for changed pipeline files, or `"off"`. A change is reloaded after two equal looks.
    #[serde(with = "interval")]
    #[schemars(with = "IntervalText")]
    pub watch: Option<Duration>,
    /// The conditions of reloads.
    pub reload: ReloadSettings,
    /// Access to the admin API.
    pub http: HttpSettings,
    /// The log on standard error.
    pub log: LogSettings,
    /// The export of traces.
    pub otlp: OtlpSettings,
}

/// `[reload]`: the conditions of reloads.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadSettings {
    /// The comparison that a changed handler must pass before it takes the place of the running one. The gate runs both over
    /// the last events of the source.
    pub gate: Gate,
    /// The number of events that the gate compares the handlers over.
    pub gate_events: NonZeroUsize,
}

/// The comparison that a changed handler must pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Every handler passes.
    #[default]
    None,
    /// The changed handler fails on no event that the running one handles.
    NoNewErrors,
    /// The changed handler has the same effects and errors.
    EffectsEqual,
}

impl Gate {
    /// Returns the name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoNewErrors => "no-new-errors",
            Self::EffectsEqual => "effects-equal",
        }
    }
}

impl Default for ReloadSettings {
    fn default() -> Self {
        Self { gate: Gate::None, gate_events: const { NonZeroUsize::new(1_000).expect("it is not zero") } }
    }
}

/// `[http]`: access to the admin API.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// The bearer token for requests from other hosts. Without it, only this host has access.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "token")]
    pub token: Option<SecretText>,
}

/// Reads a token. An empty one, from an empty variable for example, would open the API to every client.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretText>, D::Error> {
    let token = SecretText::deserialize(deserializer)?;
    if token.expose().trim().is_empty() && !token.is_hole() {
        return Err(de::Error::custom("the token is empty: leave it out, or set a value that cannot be guessed"));
    }
    Ok(Some(token))
}

/// `[log]`: the log on standard error.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// The form of a line.
    pub format: LogFormat,
    /// The least level of a line: `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`, also by target: `"info,propulsiond::pipeline=debug"`.
    pub level: Text,
    /// The interval of the statistics of each pipeline that did anything, or `"off"`.
    #[serde(with = "interval")]
    #[schemars(with = "IntervalText")]
    pub stats_interval: Option<Duration>,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text, one line for each event
    #[default]
    Text,
    /// JSON, one object for each event
    Json,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 9464))),
            data_dir: Text::literal("data"),
            drain: Duration::from_secs(25),
            watch: Some(Duration::from_secs(1)),
            reload: ReloadSettings::default(),
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

impl LogSettings {
    /// Returns the parsed levels.
    ///
    /// # Panics
    /// The settings were not loaded by [`DaemonSettings::load`], which refuses bad levels.
    pub fn levels(&self) -> LogLevels {
        LogLevels::parse(&self.level).expect("`load` parsed the levels")
    }
}

impl DaemonSettings {
    /// Loads the layers of the settings. `file` is the value of `--settings`; without one, [`DEFAULT_FILE`] is read if it exists.
    /// `variables` are the environment.
    ///
    /// # Errors
    /// Every error of the file, with its place; or the first error of the environment or the flags, with its name.
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

/// Returns advice about the environment and about the file, which is found as in [`DaemonSettings::load`].
pub fn advice(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Vec<Problem> {
    let document = layers::read(file).ok().flatten();
    let mut found = document.map_or_else(Vec::new, |document| clear_secrets(&document));
    found.extend(layers::unread(variables));
    found
}

/// The address of the listener.
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
