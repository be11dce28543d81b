//! SQLite: the checkpoint store that needs no server, and a sink that writes projections into tables.
//!
//! * [`SqliteCheckpoints`] keeps progress, write positions and parked events in one file of the data directory.
//! * [`SqliteSink`] runs the statements that a handler emits (`#{ sql: "...", params: [...] }`), or stores the events
//!   themselves in a table. It can hold the progress: effects and progress then commit in one transaction.
//!
//! One worker per file does all blocking work, and all users of the file share it. SQLite has one writer at a time
//! anyway, and waiting commits can share a transaction. The first request opens the file. A file that cannot be opened
//! fails that request, never the start, and the next request tries again. The worker has a named thread while there are
//! requests, and keeps its connection.

mod batch;
mod database;
mod digits;
mod dry_run;
mod errors;
mod idle;
mod init;
pub mod inspect;
mod log;
mod kind;
mod marker;
mod open;
mod parked;
mod parked_events;
mod parked_streams;
mod progress;
mod rebuild;
mod sink;
mod sql;
mod statement;
mod store;
mod worker;
mod writer;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BadSetting;
use crate::config::scalar::{self, Text};

pub use database::closed;
pub use dry_run::SqliteDryRun;
pub use sink::SqliteSink;
pub use store::SqliteCheckpoints;

/// Returns the settings that are invalid on their own. Statements are parsed and never run.
pub fn check(settings: &SinkSettings) -> Vec<BadSetting> {
    init::check(settings)
}

/// The durability of an acknowledged commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// A process crash loses no commit. A power failure can lose the last ones, effects and progress together.
    Normal,
    /// A power failure loses no commit.
    #[default]
    Full,
}

/// `[checkpoint.sqlite]`: progress in an SQLite file. This is the default store.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SqliteCheckpoint")]
pub struct CheckpointSettings {
    /// The database's file, in the data directory unless absolute.
    pub path: Text,
    /// The durability of a commit.
    pub synchronous: Synchronous,
    /// The time to wait for another process that writes to the file.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub busy_timeout: Duration,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            path: Text::literal("propulsiond.db"),
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// `[sink.sqlite]`: a projection in an SQLite file. Runs the statements that a handler emits, or stores the events
/// themselves in a table. It can hold the progress: `checkpoint = "sink"`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SqliteSink")]
pub struct SinkSettings {
    /// The database's file, in the data directory unless absolute.
    pub path: Text,
    /// The durability of a write.
    pub synchronous: Synchronous,
    /// Statements that run in one transaction before the first write of each start, such as
    /// `CREATE TABLE IF NOT EXISTS`. Tests of the handler compile its statements against these tables.
    pub init: Vec<Text>,
    /// The table for the events of a pipeline without a handler. The first event creates it.
    pub table: Text,
    /// The time to wait for another process that writes to the file.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub busy_timeout: Duration,
    /// Memory for pages of the file. The first user of a file decides.
    #[serde(with = "scalar::size")]
    #[schemars(with = "scalar::SizeText")]
    pub cache: u64,
    /// The size at which the write-ahead log is written back into the file. A page that changes often is then written
    /// back once for many commits. An idle sink writes its log back at once, and a busy one each minute. The first user
    /// of a file decides.
    #[serde(with = "scalar::size")]
    #[schemars(with = "scalar::SizeText")]
    pub log: u64,
}

impl Default for SinkSettings {
    fn default() -> Self {
        Self {
            path: Text::literal("projections.db"),
            synchronous: Synchronous::Full,
            init: Vec::new(),
            table: Text::literal("events"),
            busy_timeout: Duration::from_secs(5),
            cache: 64 << 20,
            log: 128 << 20,
        }
    }
}
