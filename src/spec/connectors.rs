//! The kinds of sources, stores, handlers and sinks that a file can choose from, each by its key.
//!
//! Structs of `Option`s rather than enums: an error can point at the exact field, and two kinds in one file can be
//! named, both of them.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Checkpoint, PipelineSpec};
use crate::config::scalar::Text;
use crate::connector::{BadSetting, file, generate, http, json, memory, null, sqlite, stats, stdout};
use crate::event::Indexes;
use crate::script;
use crate::source::Contract;

/// Declares a struct with one optional field per kind.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$kind_doc:meta])* $kind:ident: $settings:ty,)* }) => {
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        $(#[$doc])*
        pub struct $name {
            $(
                $(#[$kind_doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $kind: Option<$settings>,
            )*
        }

        impl $name {
            /// Every kind there is.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($kind)),*];

            /// Returns the kinds that are given; a file that passed [`check`](super::check()) gives at most one.
            pub fn given(&self) -> impl Iterator<Item = &'static str> {
                [$(self.$kind.is_some().then_some(stringify!($kind))),*].into_iter().flatten()
            }
        }
    };
}

kinds! {
    /// `[source.…]`: where events come from, one of these.
    #[schemars(transform = exactly_one)]
    SourceSpec {
        /// Events from files of JSON lines.
        json: json::Settings,
        /// Synthetic events.
        generate: generate::Settings,
        /// Events that are posted to `/pipelines/NAME/events`.
        memory: memory::source::Settings,
    }
}

kinds! {
    /// `[checkpoint.…]`: where progress is kept, one of these.
    #[schemars(transform = at_most_one)]
    CheckpointSpec {
        /// An SQLite file.
        sqlite: sqlite::CheckpointSettings,
        /// Memory: every start begins anew.
        memory: memory::store::Settings,
        /// A folder of JSON files.
        file: file::store::Settings,
    }
}

kinds! {
    /// `[handler.…]`: what decides about events.
    #[schemars(transform = exactly_one)]
    HandlerSpec {
        /// A script in rhai.
        rhai: script::Settings,
    }
}

kinds! {
    /// `[sink.…]`: what is written to, one of these.
    #[schemars(transform = exactly_one)]
    SinkSpec {
        /// Lines on standard output.
        stdout: stdout::Settings,
        /// Lines in a file.
        file: file::sink::Settings,
        /// Statements, or the events themselves, in an SQLite file. It can hold the progress.
        sqlite: sqlite::SinkSettings,
        /// HTTP requests.
        http: http::Settings,
        /// Counts by category and type, in the log.
        stats: stats::Settings,
        /// Nowhere: for measuring, and trying things out.
        null: null::Settings,
    }
}

/// A file that a pipeline writes to.
pub(super) struct WrittenFile {
    pub(super) role: Role,
    /// The keys that name it.
    pub(super) at: Vec<&'static str>,
    pub(super) path: String,
}

/// What a file is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Lines,
    Projection,
    Checkpoints,
}

/// Says in a schema that exactly one of an object's properties is there.
fn exactly_one(schema: &mut Schema) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    let choices = properties.keys().map(|key| serde_json::json!({ "required": [key] })).collect();
    schema.insert("oneOf".to_owned(), Value::Array(choices));
}

/// Says in a schema that none or one of an object's properties is there.
fn at_most_one(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), 1.into());
}

/// What others have to know of the connectors' settings.
impl PipelineSpec {
    /// Returns the texts that must not be empty, by their paths.
    pub(super) fn required(&self) -> Vec<([&'static str; 3], &Text)> {
        let (source, sink) = (&self.source, &self.sink);
        [
            source.json.as_ref().map(|json| (["source", "json", "path"], &json.path)),
            self.handler.rhai.as_ref().map(|rhai| (["handler", "rhai", "script"], &rhai.script)),
            sink.sqlite.as_ref().map(|sqlite| (["sink", "sqlite", "path"], &sqlite.path)),
            sink.http.as_ref().map(|http| (["sink", "http", "url"], &http.url)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Returns what of the connectors' settings cannot be used, by its path.
    pub(super) fn bad_settings(&self) -> Vec<(Vec<String>, BadSetting)> {
        let (source, sink) = (&self.source, &self.sink);
        let found = [
            (["source", "json"], source.json.as_ref().map(json::check)),
            (["source", "generate"], source.generate.as_ref().map(generate::check)),
            (["source", "memory"], source.memory.as_ref().map(memory::source::check)),
            (["sink", "sqlite"], sink.sqlite.as_ref().map(sqlite::check)),
            // What is missing is reported as that.
            (
                ["sink", "http"],
                sink.http.as_ref().filter(|http| !http.url.is_empty() || http.url.is_hole()).map(http::check),
            ),
        ];
        let mut bad = Vec::new();
        for (table, settings) in found {
            for setting in settings.unwrap_or_default() {
                let path = table.iter().map(|key| (*key).to_owned()).chain(setting.path.iter().cloned());
                bad.push((path.collect(), setting));
            }
        }
        bad
    }

    /// Returns the files of the data directory that are written to, and what as. Templates stand for themselves.
    pub(super) fn written(&self, pipeline: &str) -> Vec<WrittenFile> {
        let mut files = Vec::new();
        let mut add = |role, at: &[&'static str], path: String| files.push(WrittenFile { role, at: at.to_vec(), path });
        if let Some(sink) = &self.sink.file {
            let (at, path): (&[&str], _) = match &sink.path {
                Some(path) => (&["sink", "file", "path"], path.text().identity().to_owned()),
                None => (&["sink", "file"], format!("{pipeline}.jsonl")),
            };
            add(Role::Lines, at, path);
        }
        if let Some(sink) = &self.sink.sqlite {
            add(Role::Projection, &["sink", "sqlite", "path"], sink.path.identity().to_owned());
        }
        let default = sqlite::CheckpointSettings::default();
        match &self.checkpoint {
            Checkpoint::Store(store) if store.memory.is_none() && store.file.is_none() => {
                let path = store.sqlite.as_ref().unwrap_or(&default).path.identity();
                add(Role::Checkpoints, &["checkpoint", "sqlite", "path"], path.to_owned());
            }
            _ => {}
        }
        files
    }

    /// Returns the file or folder that is read, relative to the pipeline's folder.
    pub(super) fn input(&self) -> Option<&Text> {
        Some(&self.source.json.as_ref()?.path)
    }

    /// Returns the script, relative to the pipeline's folder.
    pub fn script(&self) -> Option<&Text> {
        Some(&self.handler.rhai.as_ref()?.script)
    }

    /// Returns what the source promises; the least if there is none.
    pub fn contract(&self) -> Contract {
        let SourceSpec { json, generate, memory } = &self.source;
        let json = json.as_ref().map(json::Settings::contract);
        let generate = generate.as_ref().map(generate::Settings::contract);
        let memory = memory.as_ref().map(memory::source::Settings::contract);
        json.or(generate).or(memory).unwrap_or(Contract { ordinals: false, indexes: Indexes::Dense, repeats: true })
    }

    /// Returns whether the sink can hold the progress.
    pub(super) fn has_transactional_sink(&self) -> bool {
        self.sink.sqlite.is_some()
    }

    /// Returns the kind of the store that holds the progress, and its path in the data directory; `None` where no other
    /// pipeline can share it.
    pub fn shared_store(&self) -> Option<(&'static str, String)> {
        let default = sqlite::CheckpointSettings::default();
        match &self.checkpoint {
            Checkpoint::Sink => Some(("sqlite", self.sink.sqlite.as_ref()?.path.identity().to_owned())),
            Checkpoint::Store(store) if store.memory.is_some() => None,
            Checkpoint::Store(CheckpointSpec { file: Some(file), .. }) => {
                Some(("file", file.path.identity().to_owned()))
            }
            Checkpoint::Store(store) => {
                Some(("sqlite", store.sqlite.as_ref().unwrap_or(&default).path.identity().to_owned()))
            }
        }
    }
}

impl CheckpointSpec {
    /// Returns whether how far each stream is can be kept beside the progress, for as long as that.
    pub(super) fn holds_write_positions(&self) -> bool {
        self.memory.is_none() && self.file.is_none()
    }

    /// Returns whether parked events can be kept beside the progress.
    pub(super) fn holds_parked_events(&self) -> bool {
        self.memory.is_some()
    }
}
