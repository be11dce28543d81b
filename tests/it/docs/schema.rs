//! The settings of a JSON schema as tables in Markdown.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Tables that several connectors have.
const SHARED: [&str; 1] = ["#/$defs/Map"];

/// A JSON schema as the program prints it.
pub(super) struct Schema(Value);

impl Schema {
    /// Asks the program for the schema of a kind of file.
    pub(super) fn of(kind: &str) -> Self {
        let output = crate::daemon::run(crate::daemon::program().args(["schema", kind]));
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Returns the table of the keys at the top.
    pub(super) fn top(&self) -> String {
        table(self.rows(&self.0, "", false))
    }

    /// Returns the table of the keys at the top, and of the keys in their tables.
    pub(super) fn all(&self) -> String {
        table(self.rows(&self.0, "", true))
    }

    /// Returns the table of a part, such as `errors`.
    pub(super) fn part(&self, name: &str) -> String {
        table(self.rows(self.resolve(&self.0["properties"][name]), "", true))
    }

    /// Returns the table of a definition, such as `Map`.
    pub(super) fn definition(&self, name: &str) -> String {
        table(self.rows(&self.0["$defs"][name], "", true))
    }

    /// Returns a section for each kind of a part, such as `source`.
    pub(super) fn kinds(&self, part: &str) -> String {
        let mut part_of = self.resolve(&self.0["properties"][part]);
        // The checkpoint may also be the word `sink`.
        if let Some(choices) = part_of["oneOf"].as_array().filter(|_| !part_of["properties"].is_object()) {
            part_of = choices
                .iter()
                .map(|choice| self.resolve(choice))
                .find(|choice| choice["properties"].is_object())
                .unwrap();
        }
        let mut out = String::new();
        for (name, kind) in part_of["properties"].as_object().unwrap() {
            let settings = self.resolve(kind);
            let description = text(settings);
            let description = description.split_once("`: ").map_or(description.as_str(), |(_, rest)| rest);
            write!(out, "## {part}.{name}\n\n{}\n\n", capitalized(description)).unwrap();
            let example = example(&format!("{part}.{name}"));
            write!(out, "<!-- part of a pipeline -->\n```toml\n{example}```\n\n").unwrap();
            let rows = self.rows(settings, "", true);
            if !rows.is_empty() {
                writeln!(out, "{}", table(rows)).unwrap();
            }
        }
        out.trim_end().to_owned()
    }

    /// Returns the definition that a node refers to, or the node.
    fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node["$ref"].as_str() {
            Some(reference) => &self.0["$defs"][reference.rsplit('/').next().unwrap()],
            None => node,
        }
    }

    /// Returns the rows of a table's keys, with those of the tables in it.
    fn rows(&self, node: &Value, prefix: &str, is_deep: bool) -> Vec<[String; 4]> {
        let none = Map::new();
        let required: Vec<_> = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut rows = Vec::new();
        for (name, property) in node["properties"].as_object().unwrap_or(&none) {
            let definition = self.resolve(property);
            let default = match &property["default"] {
                _ if required.contains(&name.as_str()) => "required".to_owned(),
                Value::Null => String::new(),
                value => format!("`{value}`"),
            };
            let mut description = text(property);
            for value in definition["oneOf"].as_array().into_iter().flatten() {
                // A choice is a word, or a table with one key.
                let key = value["properties"].as_object().and_then(|keys| keys.keys().next());
                let form = match (&value["const"], key) {
                    (Value::String(word), _) => format!("\"{word}\""),
                    (_, Some(key)) => format!("{{ {key} = … }}"),
                    _ => continue,
                };
                if !text(value).is_empty() {
                    write!(description, "<br>`{form}`: {}", text(value)).unwrap();
                }
            }
            rows.push([format!("`{prefix}{name}`"), self.kind_of(property), default, description]);
            let items = self.resolve(&definition["items"]);
            if is_deep && property["$ref"].as_str().is_some_and(|name| SHARED.contains(&name)) {
                // The page shows that table once.
            } else if is_deep && definition["properties"].is_object() {
                rows.extend(self.rows(definition, &format!("{prefix}{name}."), true));
            } else if is_deep && items["properties"].is_object() {
                rows.extend(self.rows(items, &format!("{prefix}{name}[]."), true));
            }
        }
        rows
    }

    /// Returns the type of a value in words.
    fn kind_of(&self, node: &Value) -> String {
        let definition = self.resolve(node);
        if let Some(choices) = definition["oneOf"].as_array().or(definition["anyOf"].as_array()) {
            if definition["properties"].is_object() {
                return "table".to_owned();
            }
            let mut words: Vec<_> = choices.iter().map(|choice| self.kind_of(choice)).collect();
            words.dedup();
            return words.join(" or ");
        }
        if let Some(value) = definition.get("const") {
            return format!("`{value}`");
        }
        if let Some(values) = definition["enum"].as_array() {
            return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ");
        }
        if let Some(title) = definition["title"].as_str() {
            return if title == "parameters" { "table".to_owned() } else { title.to_owned() };
        }
        let kind = match &definition["type"] {
            Value::Array(kinds) => kinds[0].as_str(),
            kind => kind.as_str(),
        };
        match kind {
            Some("array") => match self.kind_of(&definition["items"]).as_str() {
                "" => "list".to_owned(),
                "table" => "list of tables".to_owned(),
                items => format!("list of {items}"),
            },
            Some("object") => self.kind_of_object(definition),
            Some("string") => "text".to_owned(),
            Some(kind) => kind.to_owned(),
            None => String::new(),
        }
    }

    fn kind_of_object(&self, definition: &Value) -> String {
        match (definition["properties"].as_object(), &definition["additionalProperties"]) {
            // A choice in the form of a table with one key.
            (Some(keys), _)
                if keys.len() == 1 && definition.get("description").is_some() && definition["required"].is_array() =>
            {
                let (key, value) = keys.iter().next().unwrap();
                format!("`{{ {key} = {} }}`", self.kind_of(value))
            }
            (None, values @ Value::Object(_)) => format!("table of {}", self.kind_of(values)),
            _ => "table".to_owned(),
        }
    }
}

/// Returns the program's example of a connector.
fn example(connector: &str) -> String {
    let output = crate::daemon::run(crate::daemon::program().args(["list", connector, "--json"]));
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    listed[0]["example"].as_str().unwrap().to_owned()
}

/// Returns the description of a node, in one line.
fn text(node: &Value) -> String {
    let description = node["description"].as_str().unwrap_or_default();
    description.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn table(rows: Vec<[String; 4]>) -> String {
    let mut out = "| setting | type | default | |\n|---|---|---|---|\n".to_owned();
    for row in rows {
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(out, "| {} |", cells.join(" | ")).unwrap();
    }
    out
}
