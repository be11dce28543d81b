//! The settings of `[handler.rhai]`.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Limits, Options};
use crate::config::scalar;

/// `[handler.rhai]`: a script decides about the events. It defines `fn handle_event(stream, event)`, `fn handle(stream,
/// events)`, or `fn handle_batch(spans)` if `schedule.streams_per_call` is more than 1.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RhaiHandler")]
pub struct Settings {
    /// The script's file, relative to the directory of the pipeline's file, such as `"orders.rhai"`.
    #[schemars(extend("examples" = ["orders.rhai"]))]
    pub script: scalar::Text,
    /// The table that the script finds as `params`, such as `{ vat = 0.2 }`. References in its texts are resolved.
    #[serde(default)]
    pub params: Params,
    /// The time limit of one call. A call that exceeds it has failed and is retried.
    #[serde(default = "default_timeout", with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub timeout: Duration,
    /// The number of threads that run the script. Default: the number of cores. `schedule.concurrency` is the maximum.
    #[serde(default)]
    pub threads: Option<NonZeroUsize>,
    /// The limits of one call.
    #[serde(default)]
    pub limits: Limits,
}

fn default_timeout() -> Duration {
    Options::default().timeout
}

/// A tree of values with resolved references. Debug and Serialize show the references unresolved.
#[derive(Clone, Default)]
pub struct Params {
    written: Map<String, Value>,
    resolved: Map<String, Value>,
}

/// Compares resolved values, so that a changed variable counts as a change.
impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.resolved == other.resolved
    }
}

/// Gives access to the resolved values.
impl Deref for Params {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Map<String, Value> {
        &self.resolved
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

impl Serialize for Params {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Map::deserialize(deserializer)?;
        let mut resolved = written.clone();
        resolved.values_mut().try_for_each(resolve).map_err(D::Error::custom)?;
        Ok(Self { written, resolved })
    }
}

impl JsonSchema for Params {
    fn schema_name() -> Cow<'static, str> {
        "Params".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "parameters",
            "description": "A table of values for a script. References in its texts are resolved.",
            "type": "object",
            "additionalProperties": true,
        })
    }
}

/// Resolves the references in texts. The mode of the parse decides whether a missing variable is an error.
fn resolve(value: &mut Value) -> Result<(), scalar::Unresolved> {
    match value {
        Value::String(text) => *text = scalar::Text::parse(text)?.to_string(),
        Value::Array(items) => items.iter_mut().try_for_each(resolve)?,
        Value::Object(entries) => entries.values_mut().try_for_each(resolve)?,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_no_unknown_keys() {
        let text = "script = \"a.rhai\"\nparams = { vat = 0.2 }\ntimeout = \"5s\"\n[limits]\noperations = 5";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!((settings.timeout, settings.limits.operations), (Duration::from_secs(5), 5));
        assert_eq!((&*settings.script, &settings.params["vat"]), ("a.rhai", &Value::from(0.2)));
        assert_eq!(settings.limits.call_depth, Limits::default().call_depth);

        let plain: Settings = toml::from_str("script = \"a.rhai\"").unwrap();
        assert_eq!((plain.timeout, plain.threads), (Options::default().timeout, None));
        assert_eq!((plain.limits, plain.params.len()), (Limits::default(), 0));
        let error = toml::from_str::<Settings>("script = \"a\"\ntime = 1").unwrap_err().to_string();
        assert!(error.contains("unknown field `time`"), "{error}");
    }

    #[test]
    fn parameters_resolve_references_and_show_them_unresolved() {
        // PATH is set wherever cargo runs.
        let text = "script = \"a\"\nparams = { list = [\"${PATH}\"], deep = { x = \"${PROPULSIOND_NOT_SET:-d}\" } }";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!(settings.params["list"][0], std::env::var("PATH").unwrap());
        assert_eq!(settings.params["deep"]["x"], "d");
        let shown = format!("{:?} {}", settings.params, serde_json::to_string(&settings.params).unwrap());
        assert!(shown.contains("${PATH}") && !shown.contains(&std::env::var("PATH").unwrap()), "{shown}");
        let error = toml::from_str::<Settings>("script = \"a\"\nparams = { x = \"${PROPULSIOND_NOT_SET}\" }");
        assert!(error.unwrap_err().to_string().contains("`PROPULSIOND_NOT_SET` is not set"));
    }
}
