//! The JSON Schema of pipeline files, of handler tests and of the daemon's settings, for editors.
//!
//! It is made from the types of the files: doc comments are the descriptions, and defaults have the form that a file gives
//! them. An editor finds the schema, as `pipeline.schema.json` beside a file, by a comment in the file's first line:
//!
//! ```toml
//! #:schema ./pipeline.schema.json
//! ```
//! ```yaml
//! # yaml-language-server: $schema=./pipeline.schema.json
//! ```
//!
//! A schema cannot express every rule: [`check`](crate::spec::check()) judges those of two values.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::config::settings::DaemonSettings;
use crate::spec::PipelineSpec;

/// Returns the schema of a pipeline file.
pub(crate) fn pipeline() -> Value {
    of::<PipelineSpec>()
}

/// Returns the schema of `config/propulsiond.toml`.
pub(crate) fn settings() -> Value {
    of::<DaemonSettings>()
}

/// Returns the schema of any other kind of file.
pub(crate) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(Plain);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Turns the schema of serde's types into one of files, for readers in an editor.
#[derive(Clone, Debug)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        without_null(schema);
        without_empty_default(schema);
        in_one_line(schema);
        describe_only_key(schema);
        // Validators know no formats for the widths of integers.
        schema.remove("format");
        transform_subschemas(self, schema);
        // After the subschemas: a table may be empty, as in `stdout:` of YAML, but a value may not.
        empty_tables(schema);
    }
}

/// Removes `null`: a file leaves an optional value out.
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

/// Removes defaults without information: an empty text stands for a missing one, and a table has the defaults of its keys.
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

/// Joins the lines of each paragraph of a doc comment.
fn in_one_line(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        let paragraphs: Vec<_> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
}

/// Gives the only key of a choice, such as `{ every = "1s" }`, the description of the choice.
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
