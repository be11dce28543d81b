//! The JSON Schema of the types of pipeline files that have a hand-written `Deserialize`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::{Attempts, Checkpoint, CheckpointSpec, SinkSpec, Stop};
use crate::config::scalar::DurationText;
use crate::connector::prose::listed;

/// Completes the schema of a whole file with the rules that take more than one key.
pub(super) fn pipeline(schema: &mut Schema) {
    for (key, value) in [
        ("title", json!("propulsiond pipeline")),
        (
            "description",
            json!(
                "A pipeline: the source of events, the handler that decides about them, and the sink of its effects. The file \
                 gives it its name."
            ),
        ),
        ("required", json!(["source"])),
        ("anyOf", json!([{ "required": ["sink"] }, { "required": ["handler"] }])),
    ] {
        schema.insert(key.to_owned(), value);
    }
}

impl JsonSchema for Stop {
    fn schema_name() -> Cow<'static, str> {
        "Stop".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "stop",
            "description": "The time at which the pipeline ends by itself.",
            "oneOf": [
                { "const": "never", "description": "Never: it follows new events." },
                { "const": "tail", "description": "At the tail of each tranche: a finite job." },
                {
                    "type": "object",
                    "description": "After a time, as in `{ after = \"10m\" }`.",
                    "properties": { "after": with_description(generator, "The running time.") },
                    "required": ["after"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

fn with_description(generator: &mut SchemaGenerator, description: &str) -> Schema {
    let mut schema = generator.subschema_for::<DurationText>();
    schema.insert("description".to_owned(), description.into());
    schema
}

impl JsonSchema for Checkpoint {
    fn schema_name() -> Cow<'static, str> {
        "Checkpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let able = SinkSpec::defaults().into_iter().filter(|sink| sink.transactional().is_some());
        let able = listed(&able.map(|sink| format!("`sink.{sink}`")).collect::<Vec<_>>(), "or");
        json_schema!({
            "title": "checkpoint",
            "description": "The store of the progress.",
            "oneOf": [
                {
                    "const": "sink",
                    "description": format!("In the sink's own transactions: exactly once. It goes with {able}."),
                },
                generator.subschema_for::<CheckpointSpec>(),
            ],
        })
    }
}

impl JsonSchema for Attempts {
    fn schema_name() -> Cow<'static, str> {
        "Attempts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "attempts",
            "description": "The attempts of an event.",
            "oneOf": [
                { "type": "integer", "minimum": 1, "maximum": u32::MAX, "description": "The number of attempts, the first included." },
                { "const": "unlimited", "description": "Without end." },
            ],
        })
    }
}
