//! Deserializes from the tree, with errors that name their location in the user's terms.
//!
//! An empty value (`stdout:` in YAML) is an empty table where a table is expected, and an error elsewhere.

mod error;

use std::slice;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::node::{Entry, Kind, Node};

pub(super) use error::DeError;

/// A step from a value to one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(Box<str>),
    Index(usize),
}

/// Formats a path for messages: `filter.events[2]`.
pub(super) fn render(path: &[Segment]) -> String {
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            Segment::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'a> {
    node: &'a Node,
}

impl<'a> NodeDeserializer<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        Self { node }
    }

    fn here<T>(self, result: Result<T, DeError>) -> Result<T, DeError> {
        result.map_err(|error| error.located(&self.node.span))
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_i64(value),
                (_, Ok(value)) => visitor.visit_u64(value),
                _ => visitor.visit_i128(*value),
            },
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::Text(text) | Kind::Date(text) => visitor.visit_str(text),
            Kind::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Kind::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        }
    }
}

/// Describes a node for messages.
fn unexpected(node: &Node) -> Unexpected<'_> {
    match &node.kind {
        Kind::Null => Unexpected::Unit,
        Kind::Bool(value) => Unexpected::Bool(*value),
        Kind::Int(value) => i64::try_from(*value).map_or(Unexpected::Other("a large number"), Unexpected::Signed),
        Kind::Float(value) => Unexpected::Float(*value),
        Kind::Text(text) => Unexpected::Str(text),
        Kind::Date(_) => Unexpected::Other("a date"),
        Kind::List(_) => Unexpected::Seq,
        Kind::Table(_) => Unexpected::Map,
    }
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.here(self.visit(visitor))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        let result = match &self.node.kind {
            Kind::Date(_) => Err(DeError::invalid_type(unexpected(self.node), &visitor)),
            _ => self.visit(visitor),
        };
        self.here(result)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.here(visitor.visit_some(self))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, DeError> {
        self.here(visitor.visit_newtype_struct(self))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        let result = match &self.node.kind {
            Kind::Null => visitor.visit_map(Entries { entries: [].iter(), value: None }),
            _ => self.visit(visitor),
        };
        self.here(result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        // A derived visitor would also accept a list, field by field.
        if matches!(self.node.kind, Kind::List(_)) {
            return self.here(Err(DeError::invalid_type(unexpected(self.node), &visitor)));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        let result = match &self.node.kind {
            Kind::Text(name) => visitor.visit_enum(StrDeserializer::<DeError>::new(name)),
            Kind::Table(entries) if entries.len() == 1 => visitor.visit_enum(Choice { entry: &entries[0] }),
            _ => Err(DeError::not_a_name(unexpected(self.node), variants)),
        };
        self.here(result)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DeError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(NodeDeserializer::new(node))
            .map(Some)
            .map_err(|error| error.located(&node.span).under(Segment::Index(index)))
    }
}

struct Entries<'a> {
    entries: slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = DeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DeError> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let key = StrDeserializer::<DeError>::new(&entry.key);
        seed.deserialize(key)
            .map(Some)
            .map_err(|error| error.located(&entry.key_span).under(Segment::Key(entry.key.clone())))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, DeError> {
        let entry = self.value.take().expect("a value is asked for after its key");
        seed.deserialize(NodeDeserializer::new(&entry.value)).map_err(|error| {
            let (value, key) = (&entry.value.span, &entry.key_span);
            let error = error.located(value);
            // An empty value has no span to point at; its key has one.
            let error = if value.is_empty() { error.located_instead(value, key) } else { error };
            error.under(Segment::Key(entry.key.clone()))
        })
    }
}

/// A variant with a value: `{ after = "10m" }`.
struct Choice<'a> {
    entry: &'a Entry,
}

impl<'a, 'de> EnumAccess<'de> for Choice<'a> {
    type Error = DeError;
    type Variant = ChosenValue<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, ChosenValue<'a>), DeError> {
        let name: StrDeserializer<'_, DeError> = (*self.entry.key).into_deserializer();
        let value = seed
            .deserialize(name)
            .map_err(|error| error.located(&self.entry.key_span).under(Segment::Key(self.entry.key.clone())))?;
        Ok((value, ChosenValue { entry: self.entry }))
    }
}

struct ChosenValue<'a> {
    entry: &'a Entry,
}

impl ChosenValue<'_> {
    fn under<T>(&self, result: Result<T, DeError>) -> Result<T, DeError> {
        result.map_err(|error| error.under(Segment::Key(self.entry.key.clone())))
    }
}

impl<'de> VariantAccess<'de> for ChosenValue<'_> {
    type Error = DeError;

    fn unit_variant(self) -> Result<(), DeError> {
        let error = DeError::custom(format_args!("`{}` takes no value", self.entry.key));
        Err(error.located(&self.entry.key_span))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DeError> {
        self.under(seed.deserialize(NodeDeserializer::new(&self.entry.value)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, DeError> {
        self.under(NodeDeserializer::new(&self.entry.value).deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, DeError> {
        self.under(NodeDeserializer::new(&self.entry.value).deserialize_struct("", fields, visitor))
    }
}
