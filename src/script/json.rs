//! JSON to script values and back.
//!
//! What lies inside a value is found by serde_json as raw text, one level at a time, since its numbers are only
//! numbers once they have lost digits ([`number`]).

use std::fmt;

use rhai::{Dynamic, ImmutableString, Map};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::number;

/// How deep a value may be nested. Each level is scanned once more than the one around it.
pub(super) const DEEPEST: usize = 64;

/// Parses a JSON text. An object becomes a map, in which the last of equal keys counts.
pub(super) fn parse(text: &[u8]) -> Result<Dynamic, String> {
    let raw: &RawValue = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    convert(raw.get(), 0)
}

/// Converts what is known to be the text of one JSON value.
pub(super) fn convert(raw: &str, depth: usize) -> Result<Dynamic, String> {
    if depth > DEEPEST {
        return Err(format!("it is nested more than {DEEPEST} levels deep"));
    }
    match raw.as_bytes().first() {
        Some(b'{') => {
            let mut map = Map::new();
            for_each_field(raw.as_bytes(), &mut |key, value| {
                map.insert(key.into(), convert(value, depth + 1)?);
                Ok(())
            })?;
            Ok(map.into())
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(|error| error.to_string())?;
            let items: Result<Vec<_>, _> = items.into_iter().map(|item| convert(item.get(), depth + 1)).collect();
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
    serde_json::from_str::<String>(raw).map(Into::into).map_err(|error| error.to_string())
}

/// Calls `field` with key and raw value of each field of an object.
pub(super) fn for_each_field(
    raw: &[u8],
    field: &mut dyn FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    let mut failed = None;
    let mut deserializer = serde_json::Deserializer::from_slice(raw);
    let seed = Fields { field: &mut |key, value| field(key, value).map_err(|why| failed = Some(why)) };
    let result = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (failed, result) {
        (Some(why), _) => Err(why),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(())) => Ok(()),
    }
}

struct Fields<'a> {
    field: &'a mut dyn FnMut(&str, &str) -> Result<(), ()>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            if (self.field)(&key, value.get()).is_err() {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// A key, borrowed unless it has escapes.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(key.into()))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(key.to_owned().into()))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The fields of an object, found but not converted. Their text is kept by whoever found them.
#[derive(Default)]
pub(super) struct FieldTable {
    fields: Vec<Field>,
}

struct Field {
    key: Place,
    /// A key with escapes, as it reads without them.
    unescaped: Option<Box<str>>,
    value: Place,
    /// Made when first asked for, where a copy is cheap.
    made: Option<Dynamic>,
}

/// A part of the text.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
}

impl Place {
    /// Returns where `part` lies in `text`, if it does.
    fn of(part: &str, text: &[u8]) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        (start + part.len() <= text.len()).then_some(Self { start, len: part.len() })
    }

    fn read(self, text: &[u8]) -> &[u8] {
        &text[self.start..self.start + self.len]
    }
}

impl FieldTable {
    /// Finds the fields of `text`, an object, which is thereby known to be valid JSON.
    pub(super) fn read(&mut self, text: &[u8]) -> Result<(), String> {
        self.fields.clear();
        let fields = &mut self.fields;
        for_each_field(text, &mut |key, value| {
            let place = Place::of(key, text);
            let unescaped = if place.is_none() { Some(key.into()) } else { None };
            let value = Place::of(value, text).expect("a raw value borrows from its text");
            fields.push(Field { key: place.unwrap_or(Place { start: 0, len: 0 }), unescaped, value, made: None });
            Ok(())
        })
    }

    pub(super) fn clear(&mut self) {
        self.fields.clear();
    }

    /// Returns the value under `name`, or nothing.
    pub(super) fn get(&mut self, text: &[u8], name: &str) -> Result<Option<Dynamic>, String> {
        let named = |field: &Field| match &field.unescaped {
            Some(key) => **key == *name,
            None => field.key.read(text) == name.as_bytes(),
        };
        let Some(field) = self.fields.iter_mut().rev().find(|field| named(field)) else {
            return Ok(None);
        };
        if let Some(made) = &field.made {
            return Ok(Some(made.clone()));
        }
        let raw = std::str::from_utf8(field.value.read(text)).map_err(|error| error.to_string())?;
        let value = convert(raw, 1)?;
        if value.is_string() {
            field.made = Some(value.clone());
        }
        Ok(Some(value))
    }
}

/// Writes a script value as JSON. Numbers that were too large for a number are strings, and stay so.
pub(super) fn write(value: &crate::value::Value) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}
