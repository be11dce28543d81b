//! The settings of one connector, from its JSON Schema.

use serde_json::{Value, json};

use crate::connector::prose::lines;

/// The width of a rendered line.
const WIDTH: usize = 100;

/// The settings of a connector.
#[derive(Debug)]
pub(super) struct Settings {
    description: String,
    settings: Vec<Setting>,
}

/// One setting. The key of a setting in a table below has dots, as in `limits.call_depth`.
#[derive(Debug)]
struct Setting {
    key: String,
    /// The type of the value, in words.
    value: String,
    /// The words that the value may be, each with its meaning.
    choices: Vec<(String, String)>,
    default: Option<Value>,
    example: Option<Value>,
    required: bool,
    description: String,
}

impl Settings {
    /// Reads the settings from the schema of a connector's table. `root` holds the definitions that it refers to.
    pub(super) fn new(root: &Value, table: &Value) -> Self {
        let table = definition(root, table);
        let mut settings = Vec::new();
        collect(root, table, "", &mut settings);
        // The required ones come first: without them, nothing works.
        settings.sort_by_key(|setting| !setting.required);
        let description = text(table, "description");
        // The description begins with the table's name, which stands above it here.
        let description = description.split_once("]`: ").map_or(description.as_str(), |(_, rest)| rest).to_owned();
        Self { description, settings }
    }

    /// Returns the shortest table that works, in TOML.
    pub(super) fn example(&self, role: &str, name: &str) -> String {
        let mut example = format!("[{role}.{name}]\n");
        for setting in self.settings.iter().filter(|setting| setting.required) {
            let value = setting.example.clone().unwrap_or_else(|| json!("…"));
            example.push_str(&format!("{} = {value}\n", setting.key));
        }
        example
    }

    pub(super) fn render(&self, role: &str, name: &str) -> String {
        let mut out = wrapped(&format!("{role}.{name}: {}", self.description), "");
        out.push('\n');
        for line in self.example(role, name).lines() {
            out.push_str(&format!("    {line}\n"));
        }
        for setting in &self.settings {
            out.push('\n');
            out.push_str(&setting.render());
        }
        if self.settings.is_empty() {
            out.push_str("\nIt has no settings.\n");
        }
        out
    }

    pub(super) fn to_json(&self) -> Value {
        self.settings.iter().map(Setting::to_json).collect()
    }
}

impl Setting {
    fn render(&self) -> String {
        let state = match (&self.default, self.required) {
            (Some(default), _) => format!(", default {default}"),
            (None, true) => ", required".to_owned(),
            (None, false) => String::new(),
        };
        let mut out = format!("{} ({}{state})\n", self.key, self.value);
        for paragraph in self.description.split("\n\n") {
            out.push_str(&wrapped(paragraph, "    "));
        }
        for (word, meaning) in &self.choices {
            out.push_str(&wrapped(&format!("{word}: {meaning}"), "      "));
        }
        out
    }

    fn to_json(&self) -> Value {
        let choices: Vec<_> =
            self.choices.iter().map(|(word, meaning)| json!({ "value": word, "description": meaning })).collect();
        json!({
            "key": self.key,
            "type": self.value,
            "default": self.default,
            "required": self.required,
            "description": self.description,
            "choices": choices,
        })
    }
}

/// Collects the settings of a table, and of the tables in it.
fn collect(root: &Value, table: &Value, prefix: &str, settings: &mut Vec<Setting>) {
    let required: Vec<_> = table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, schema) in table["properties"].as_object().into_iter().flatten() {
        let full = format!("{prefix}{key}");
        let referred = definition(root, schema);
        if referred["properties"].is_object() {
            collect(root, referred, &format!("{full}."), settings);
            continue;
        }
        let example = [schema, referred].into_iter().find_map(|schema| schema["examples"].get(0)).cloned();
        settings.push(Setting {
            value: type_of(root, schema),
            choices: choices_of(referred),
            default: schema.get("default").cloned(),
            example,
            // A table that may be left out requires nothing.
            required: prefix.is_empty() && required.contains(&key.as_str()),
            description: text(schema, "description"),
            key: full,
        });
    }
}

/// Returns the schema that another one refers to, or that one itself.
fn definition<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    name.map_or(schema, |name| &root["$defs"][name])
}

fn text(schema: &Value, key: &str) -> String {
    schema[key].as_str().unwrap_or_default().to_owned()
}

/// Returns the type of a value, in words.
fn type_of(root: &Value, schema: &Value) -> String {
    let referred = definition(root, schema);
    if let Some(title) = referred["title"].as_str() {
        return title.to_owned();
    }
    if let Some(choices) = referred["oneOf"].as_array() {
        let words: Vec<_> = choices.iter().filter_map(word).collect();
        return words.join(" or ");
    }
    let is = |name: &str| {
        let of = &referred["type"];
        of == name || of.as_array().is_some_and(|types| types.iter().any(|one| one == name))
    };
    if is("array") {
        return format!("list of {} values", type_of(root, &referred["items"]));
    }
    if is("object") {
        return format!("table of {} values", type_of(root, &referred["additionalProperties"]));
    }
    let words = [("string", "text"), ("integer", "whole number"), ("number", "number"), ("boolean", "true or false")];
    let words = words.into_iter().find(|(name, _)| is(name)).map_or("value", |(_, words)| words);
    let bound = |key: &str| referred[key].as_number().filter(|number| number.as_f64() != Some(0.0));
    match (bound("minimum"), bound("maximum")) {
        (Some(least), None) => format!("{words} from {least}"),
        (_, Some(most)) => format!("{words} up to {most}"),
        (None, None) => words.to_owned(),
    }
}

/// Returns the written form of one choice: a word, or the table with its only key.
fn word(choice: &Value) -> Option<String> {
    if let Some(word) = choice.get("const") {
        return Some(word.to_string());
    }
    let key = choice["properties"].as_object()?.keys().next()?;
    Some(format!("{{ {key} = … }}"))
}

fn choices_of(schema: &Value) -> Vec<(String, String)> {
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    choices.filter_map(|choice| Some((word(choice)?, text(choice, "description")))).collect()
}

/// Returns a text as indented lines of at most [`WIDTH`] characters.
fn wrapped(text: &str, indent: &str) -> String {
    lines(text, WIDTH - indent.len()).iter().map(|line| format!("{indent}{line}\n")).collect()
}
