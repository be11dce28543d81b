//! The JSON Schema of what people write: pipeline files and the daemon's settings, for editors.
//!
//! It is made from the types that the files are read into: doc comments are the descriptions, defaults are shown in the
//! form that a file has them in. An editor finds it by a comment in the first line of a file, once it was written to
//! `pipeline.schema.json` beside it:
//!
//! ```toml
//! #:schema ./pipeline.schema.json
//! ```
//! ```yaml
//! # yaml-language-server: $schema=./pipeline.schema.json
//! ```
//!
//! A schema cannot say everything: [`check`](crate::spec::check()) judges what takes two values to judge.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::config::settings::DaemonSettings;
use crate::spec::PipelineSpec;

/// Returns the schema of a pipeline file.
pub fn pipeline() -> Value {
    of::<PipelineSpec>()
}

/// Returns the schema of `config/propulsiond.toml`.
pub fn settings() -> Value {
    of::<DaemonSettings>()
}

fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(Plain);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Makes a schema of what serde reads one of what a file may hold, for people who read it in an editor.
#[derive(Clone, Debug)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        without_null(schema);
        without_empty_default(schema);
        in_one_line(schema);
        describe_only_key(schema);
        // Widths of integers are no formats that a validator knows.
        schema.remove("format");
        transform_subschemas(self, schema);
        // After what is below: a table may be empty, as in `stdout:` of YAML, but a value may not.
        empty_tables(schema);
    }
}

/// What may be left out is left out: no file says `null`.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let is_null = |one: &Value| one.get("type").is_some_and(|one| one == "null");
    let Some(Value::Array(choices)) = schema.get("anyOf") else { return };
    let mut rest = choices.iter().filter(|one| !is_null(one));
    let (Some(Value::Object(only)), None, true) = (rest.next(), rest.next(), choices.iter().any(is_null)) else {
        return;
    };
    let only = only.clone();
    schema.remove("anyOf");
    for (key, value) in only {
        schema.ensure_object().entry(key).or_insert(value);
    }
}

/// A text that is empty stands for one that is missing, and the defaults of a table are those of its keys.
fn without_empty_default(schema: &mut Schema) {
    let says_nothing = |default: &Value| match default {
        Value::Null | Value::Object(_) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    if schema.get("default").is_some_and(says_nothing) {
        schema.remove("default");
    }
}

/// Doc comments are wrapped for the width of source text; a paragraph is one line here.
fn in_one_line(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        let paragraphs: Vec<_> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
}

/// A choice that is a table with one key, such as `{ every = "1s" }`: what is said of the choice is said of the key.
fn describe_only_key(schema: &mut Schema) {
    let Some(description) = schema.get("description").cloned() else { return };
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    if let (1, Some(Value::Object(only))) = (properties.len(), properties.values_mut().next()) {
        only.entry("description").or_insert(description);
    }
}

fn empty_tables(schema: &mut Schema) {
    let is_table = schema.get("type").is_some_and(|one| one == "object");
    let takes_nothing = schema.get("required").is_none() && schema.get("oneOf").is_none();
    if is_table && takes_nothing {
        schema.insert("type".to_owned(), serde_json::json!(["object", "null"]));
    }
}

#[cfg(test)]
mod tests;
