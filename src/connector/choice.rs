//! The choice of a connector by its key.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The connector that a pipeline uses in one role, as one of the kinds of that role.
#[derive(Debug)]
pub struct Chosen<K: ?Sized> {
    /// The key in a pipeline file, such as `sqlite`.
    pub key: &'static str,
    kind: Arc<K>,
}

impl<K: ?Sized> Chosen<K> {
    pub fn new(key: &'static str, kind: Arc<K>) -> Self {
        Self { key, kind }
    }
}

impl<K: ?Sized> Clone for Chosen<K> {
    fn clone(&self) -> Self {
        Self { key: self.key, kind: Arc::clone(&self.kind) }
    }
}

impl<K: ?Sized> Deref for Chosen<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.kind
    }
}

impl<K: ?Sized> fmt::Display for Chosen<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key)
    }
}

/// Declares the kinds of one role: a struct with one optional field for each, because an error can then point at the
/// exact field, and two kinds in one file can both be named.
macro_rules! kinds {
    (
        $(#[$doc:meta])*
        $name:ident: $role:ident { $($kind:ident: $settings:ty = $summary:literal,)* }
    ) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        $(#[$doc])*
        pub struct $name {
            $(
                #[doc = $summary]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $kind: Option<$settings>,
            )*
        }

        impl $name {
            /// The keys of all kinds.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($kind)),*];

            /// Returns the kinds that a file gives, each with its settings.
            pub fn given(&self) -> Vec<$crate::connector::choice::Chosen<dyn $role>> {
                let mut given = Vec::new();
                $(
                    if let Some(settings) = &self.$kind {
                        let kind: std::sync::Arc<dyn $role> = std::sync::Arc::new(settings.clone());
                        given.push($crate::connector::choice::Chosen::new(stringify!($kind), kind));
                    }
                )*
                given
            }

            /// Returns every kind with its default settings.
            pub fn defaults() -> Vec<$crate::connector::choice::Chosen<dyn $role>> {
                Self { $($kind: Some(<$settings>::default()),)* }.given()
            }
        }
    };
}

pub(super) use kinds;

/// Says in a schema that exactly one of an object's properties is there.
pub(super) fn exactly_one(schema: &mut schemars::Schema) {
    let Some(serde_json::Value::Object(properties)) = schema.get("properties") else { return };
    let choices = properties.keys().map(|key| serde_json::json!({ "required": [key] })).collect();
    schema.insert("oneOf".to_owned(), serde_json::Value::Array(choices));
}

/// Says in a schema that none or one of an object's properties is there.
pub(super) fn at_most_one(schema: &mut schemars::Schema) {
    schema.insert("maxProperties".to_owned(), 1.into());
}
