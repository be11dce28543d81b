//! Effects: the values, a tree like JSON's, that a handler emits and a sink writes.

use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq};
use smallvec::SmallVec;

/// The values that a handler emitted in one decision, in order.
///
/// They belong to the events of the call together, or each belongs to one event. The idempotency key of a value of one
/// event is the same however the events are distributed over calls (C24).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Emitted {
    values: Vec<Value>,
    /// `None` if the values belong to all events together.
    ends: Option<Ends>,
}

/// The number of values of each event and of those before it, in the order of a call's events. Most calls have few.
pub type Ends = SmallVec<[u32; 4]>;

impl Emitted {
    /// Returns values that belong to one event each. `ends` has the first events of the call; later values are dropped.
    pub fn by_event(mut values: Vec<Value>, ends: Ends) -> Self {
        values.truncate(ends.last().map_or(0, |&end| end as usize));
        Self { values, ends: Some(ends) }
    }

    /// Returns the position, in the call, of the event that value `number` belongs to. `None` if the values belong to all
    /// events together.
    pub fn event_of(&self, number: usize) -> Option<usize> {
        let ends = self.ends.as_ref()?;
        let position = ends.partition_point(|&end| end as usize <= number);
        (position < ends.len()).then_some(position)
    }

    /// Returns the number of values of the events before a position.
    pub fn start_of(&self, position: usize) -> usize {
        let ends = self.ends.as_deref().unwrap_or_default();
        position.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |&end| end as usize)
    }
}

/// Gives access to the values.
impl Deref for Emitted {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.values
    }
}

/// Makes values that belong to the events of the call together.
impl FromIterator<Value> for Emitted {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        Vec::from_iter(values).into()
    }
}

impl<'a> IntoIterator for &'a Emitted {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.iter()
    }
}

/// Makes values that belong to the events of the call together.
impl From<Vec<Value>> for Emitted {
    fn from(values: Vec<Value>) -> Self {
        Self { values, ends: None }
    }
}

/// A value. Maps keep the order of their keys: that of the source, or the keys' own order if they came from a script.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Bytes(bytes::Bytes),
    List(Vec<Value>),
    Map(Vec<(Arc<str>, Value)>),
}

impl Value {
    /// Returns the value under `key`, if this is a map that has one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| &**name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Checks that JSON can hold every number in the value. JSON has neither NaN nor infinities, and encoding them as
    /// `null` would turn a wrong number into a missing one.
    ///
    /// # Errors
    /// A message that names the first such number and its place.
    pub fn check_numbers(&self) -> Result<(), String> {
        let Some((path, number)) = self.non_finite() else { return Ok(()) };
        let place = if path.is_empty() { "it".to_owned() } else { format!("`{path}`") };
        Err(format!("{place} is `{number}`, which JSON cannot hold"))
    }

    /// Returns the first number that is not finite, with its path.
    fn non_finite(&self) -> Option<(String, f64)> {
        let join = |key: &dyn std::fmt::Display, (path, number): (String, f64)| {
            let separator = if path.is_empty() { "" } else { "." };
            (format!("{key}{separator}{path}"), number)
        };
        match self {
            Self::Float(number) if !number.is_finite() => Some((String::new(), *number)),
            Self::List(items) => {
                let found = items.iter().enumerate();
                found.filter_map(|(at, item)| item.non_finite().map(|found| join(&at, found))).next()
            }
            Self::Map(entries) => {
                let found = entries.iter();
                found.filter_map(|(key, item)| item.non_finite().map(|found| join(key, found))).next()
            }
            _ => None,
        }
    }

    /// Returns the kind of the value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "a blob",
            Self::List(_) => "an array",
            Self::Map(_) => "a map",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Self::Int(number),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(text.into()),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(entries) => {
                Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
            }
        }
    }
}

/// Writes the value as JSON. Blobs become arrays of numbers, as in serde; floats that JSON cannot hold become `null`.
impl Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(&**key, value))?;
                map.end()
            }
        }
    }
}
