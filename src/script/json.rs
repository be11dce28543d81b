//! Conversion between JSON and script values.
//!
//! Nested values are located as text, one level at a time. A JSON library would convert their numbers, and so lose
//! digits before [`number`] sees them.

use std::borrow::Cow;

use rhai::{Dynamic, ImmutableString, Map};

use super::number;
use crate::formats::jsonlines::BadLine;
use crate::formats::jsonlines::parts::{self, FieldPlace};

/// The maximum nesting of values. The scan of each level repeats that of the levels in it.
pub(super) const MAX_DEPTH: usize = 64;

/// The only defect of a string that the scanner accepts.
const HALF_PAIR: &str = "a string in it holds one half of a surrogate pair";

/// Parses a JSON text. An object becomes a map with the last of equal keys.
pub(super) fn parse(text: &[u8]) -> Result<Dynamic, String> {
    let place = parts::value(text).map_err(shown)?;
    convert(utf8(&text[place])?, 0)
}

/// Converts the text of one valid JSON value.
fn convert(raw: &str, depth: usize) -> Result<Dynamic, String> {
    if depth > MAX_DEPTH {
        return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
    }
    match raw.as_bytes().first() {
        Some(b'{') => {
            let mut fields = Vec::new();
            parts::object_fields(raw.as_bytes(), &mut fields).map_err(shown)?;
            let mut map = Map::new();
            for field in fields {
                map.insert((*key(raw.as_bytes(), field)?).into(), convert(&raw[field.value()], depth + 1)?);
            }
            Ok(map.into())
        }
        Some(b'[') => {
            let items = parts::array_items(raw.as_bytes()).map_err(shown)?;
            let items: Result<Vec<_>, _> = items.into_iter().map(|item| convert(&raw[item], depth + 1)).collect();
            Ok(Dynamic::from_array(items?))
        }
        Some(b'"') => text(raw).map(Dynamic::from),
        Some(b't') => Ok(true.into()),
        Some(b'f') => Ok(false.into()),
        Some(b'n') | None => Ok(Dynamic::UNIT),
        Some(_) => Ok(number::from_json(raw)),
    }
}

fn text(raw: &str) -> Result<ImmutableString, String> {
    let inner = &raw[1..raw.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(inner.into());
    }
    serde_json::from_str::<String>(raw).map(Into::into).map_err(|_| HALF_PAIR.to_owned())
}

/// Returns the key of a field of `object`.
fn key(object: &[u8], field: FieldPlace) -> Result<Cow<'_, str>, String> {
    let place = field.key();
    if !field.has_escapes() {
        return utf8(&object[place]).map(Cow::Borrowed);
    }
    let quoted = &object[place.start - 1..=place.end];
    serde_json::from_slice::<String>(quoted).map(Cow::Owned).map_err(|_| HALF_PAIR.to_owned())
}

fn utf8(text: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(text).map_err(|error| error.to_string())
}

fn shown(bad: BadLine) -> String {
    bad.to_string()
}

/// The locations of the fields of an object. The caller keeps the text.
#[derive(Default)]
pub(super) struct FieldTable {
    fields: Vec<FieldPlace>,
    /// Converted strings, by the number of their field. Copies of them are cheap.
    made: Vec<(usize, Dynamic)>,
}

impl FieldTable {
    /// Locates the fields of `text`, an object, and checks its syntax.
    pub(super) fn read(&mut self, text: &[u8]) -> Result<(), String> {
        self.clear();
        parts::object_fields(text, &mut self.fields).map_err(shown)
    }

    pub(super) fn clear(&mut self) {
        self.fields.clear();
        self.made.clear();
    }

    /// Returns the value of the field `name`.
    pub(super) fn get(&mut self, text: &[u8], name: &str) -> Result<Option<Dynamic>, String> {
        let named = |field: &FieldPlace| match field.has_escapes() {
            true => key(text, *field).is_ok_and(|key| *key == *name),
            false => text[field.key()] == *name.as_bytes(),
        };
        let Some(number) = self.fields.iter().rposition(named) else {
            return Ok(None);
        };
        if let Some((_, made)) = self.made.iter().find(|(of, _)| *of == number) {
            return Ok(Some(made.clone()));
        }
        let value = convert(utf8(&text[self.fields[number].value()])?, 1)?;
        if value.is_string() {
            self.made.push((number, value.clone()));
        }
        Ok(Some(value))
    }
}

/// Writes a script value as JSON. A number that became a string ([`number`]) stays a string.
pub(super) fn write(value: &crate::effect::Value) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}
