//! The connectors: everything that reads from, writes to or keeps progress in the outside world.
//!
//! A connector is one directory, a `pub mod` line and a line in the list below. Its settings implement the traits of
//! [`kind`], through which the rest of the program asks about it. [`kind`] names the few other places too. A connector never uses another one; shared code is a
//! leaf module.

pub mod prose;
pub mod diagnosis;
pub mod stored;
pub mod context;
pub mod kind;
pub mod map;
mod choice;

pub mod file;
pub mod generate;
pub mod http;
pub mod json;
pub mod memory;
pub mod null;
pub mod sqlite;
pub mod stats;
pub mod stdout;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use choice::Chosen;
use choice::{at_most_one, exactly_one, kinds};
pub use context::{Clients, Context};
pub use kind::{BadSetting, SinkKind, SourceKind, StoreKind};

kinds! {
    /// `[source.…]`: the source of the events, one of these.
    #[schemars(transform = exactly_one)]
    SourceSpec: SourceKind {
        json: json::Settings = "Events from files of JSON lines, or of other records by a mapping.",
        stdin: json::stdin::Settings = "Events from standard input.",
        generate: generate::Settings = "Synthetic events.",
        memory: memory::source::Settings = "Events that are posted to `/pipelines/NAME/events`.",
    }
}

kinds! {
    /// `[checkpoint.…]`: the store of the progress, one of these. The first is the default.
    #[schemars(transform = at_most_one)]
    CheckpointSpec: StoreKind {
        sqlite: sqlite::CheckpointSettings = "An SQLite file.",
        memory: memory::store::Settings = "Memory: every start begins at the origin.",
        file: file::store::Settings = "A directory of JSON files.",
    }
}

kinds! {
    /// `[sink.…]`: the sink of the effects, one of these.
    #[schemars(transform = exactly_one)]
    SinkSpec: SinkKind {
        stdout: stdout::Settings = "Lines on standard output.",
        file: file::sink::Settings = "Lines in a file.",
        sqlite: sqlite::SinkSettings = "Statements, or the events themselves, in an SQLite file. It can hold the progress.",
        http: http::Settings = "HTTP requests.",
        stats: stats::Settings = "Counts by category and type, in the log.",
        null: null::Settings = "Nothing: for measurements and trials.",
    }
}

/// Returns the store of a pipeline that names none.
pub fn default_store() -> CheckpointSpec {
    CheckpointSpec { sqlite: Some(sqlite::CheckpointSettings::default()), ..CheckpointSpec::default() }
}

/// Returns the sink of a pipeline whose handler writes nothing.
pub fn no_sink() -> Chosen<dyn SinkKind> {
    Chosen::new("null", Arc::new(null::Settings::default()))
}

/// Waits until the connectors have closed their files, and returns those that are still open at the limit.
pub async fn closed(limit: Duration) -> Vec<PathBuf> {
    sqlite::closed(limit).await
}

/// The most events that a `batch` may be set to.
const MAX_BATCH: usize = 1_000_000;
