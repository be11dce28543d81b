//! As much of a validator as the schemas need; a keyword that it does not know fails the test.

use serde_json::{Map, Value};

/// Returns the faults of a value, each with its path.
pub(super) fn validate(root: &Value, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    Validator { root }.check(root, value, "", &mut errors);
    errors
}

struct Validator<'a> {
    root: &'a Value,
}

impl Validator<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
        let schema = match schema {
            Value::Bool(true) => return,
            schema => schema.as_object().unwrap_or_else(|| panic!("{at}: no schema: {schema}")),
        };
        for (keyword, says) in schema {
            self.keyword(schema, keyword, says, value, at, errors);
        }
    }

    fn keyword(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        says: &Value,
        value: &Value,
        at: &str,
        errors: &mut Vec<String>,
    ) {
        let mut demand = |holds: bool| {
            if !holds {
                errors.push(format!("{at}: {value} breaks {keyword} {says}"));
            }
        };
        let number = |value: &Value| value.as_f64();
        match keyword {
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" => {}
            "additionalProperties" if schema.contains_key("properties") || says == &Value::Bool(true) => {}
            "$ref" => {
                let path = says.as_str().unwrap().strip_prefix('#').unwrap();
                self.check(self.root.pointer(path).unwrap(), value, at, errors);
            }
            "type" => {
                let types = says.as_array().map_or_else(|| vec![says.clone()], Clone::clone);
                demand(types.iter().any(|one| is_of_type(value, one.as_str().unwrap())));
            }
            "const" => demand(value == says),
            "enum" => demand(says.as_array().unwrap().contains(value)),
            "oneOf" | "anyOf" => {
                let passes = |choice: &&Value| {
                    let mut errors = Vec::new();
                    self.check(choice, value, at, &mut errors);
                    errors.is_empty()
                };
                let passed = says.as_array().unwrap().iter().filter(passes).count();
                demand(if keyword == "oneOf" { passed == 1 } else { passed > 0 });
            }
            "required" => {
                let Some(entries) = value.as_object() else { return };
                demand(says.as_array().unwrap().iter().all(|key| entries.contains_key(key.as_str().unwrap())));
            }
            "maxProperties" => {
                demand(value.as_object().is_none_or(|entries| entries.len() as u64 <= says.as_u64().unwrap()))
            }
            "minLength" => {
                demand(value.as_str().is_none_or(|text| text.chars().count() as u64 >= says.as_u64().unwrap()))
            }
            "pattern" => demand(
                value.as_str().is_none_or(|text| regex::Regex::new(says.as_str().unwrap()).unwrap().is_match(text)),
            ),
            "minimum" => demand(number(value).is_none_or(|value| value >= number(says).unwrap())),
            "maximum" => demand(number(value).is_none_or(|value| value <= number(says).unwrap())),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(says, item, &format!("{at}/{index}"), errors);
                }
            }
            "properties" => {
                let known = says.as_object().unwrap();
                for (key, entry) in value.as_object().into_iter().flatten() {
                    match known.get(key) {
                        Some(schema) => self.check(schema, entry, &format!("{at}/{key}"), errors),
                        None => errors.push(format!("{at}: `{key}` is not known")),
                    }
                }
            }
            "additionalProperties" => {
                for (key, entry) in value.as_object().into_iter().flatten() {
                    self.check(says, entry, &format!("{at}/{key}"), errors);
                }
            }
            other => panic!("the keyword `{other}` is not known: {says}"),
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type `{other}` is not known"),
    }
}
