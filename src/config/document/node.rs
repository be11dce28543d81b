//! The tree of both formats.

use std::ops::Range;

use serde::Serialize;
use serde::ser::{SerializeMap as _, SerializeSeq as _, Serializer};

use super::de::Segment;

/// A byte range of the text.
pub type Span = Range<usize>;

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

/// The value of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// An empty value, in YAML only.
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Box<str>),
    /// TOML only.
    Date(Box<str>),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table, and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: Box<str>,
    pub key_span: Span,
    pub value: Node,
}

/// The error of a text that does not parse.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) span: Option<Span>,
    pub(super) help: Option<String>,
}

impl Node {
    /// Returns the table's entry for a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Table(entries) => entries.iter().find(|entry| &*entry.key == key),
            _ => None,
        }
    }

    /// Removes the entry at the end of a path; returns false if there is none.
    pub(super) fn remove(&mut self, path: &[Segment]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match (&mut self.kind, first) {
            (Kind::Table(entries), Segment::Key(key)) => {
                let Some(index) = entries.iter().position(|entry| *entry.key == **key) else { return false };
                if rest.is_empty() {
                    entries.remove(index);
                    return true;
                }
                entries[index].value.remove(rest)
            }
            (Kind::List(items), Segment::Index(index)) => items.get_mut(*index).is_some_and(|item| item.remove(rest)),
            _ => false,
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            Kind::Null => serializer.serialize_unit(),
            Kind::Bool(value) => serializer.serialize_bool(*value),
            Kind::Int(value) => match i64::try_from(*value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.serialize_i128(*value),
            },
            Kind::Float(value) => serializer.serialize_f64(*value),
            Kind::Text(text) | Kind::Date(text) => serializer.serialize_str(text),
            Kind::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Kind::Table(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|entry| map.serialize_entry(&*entry.key, &entry.value))?;
                map.end()
            }
        }
    }
}
