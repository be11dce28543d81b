//! SQLite: the checkpoint store that is there without a server, and projections into tables.
//!
//! * [`SqliteCheckpoints`] keeps progress, write positions and parked events in one file of the data directory.
//! * [`SqliteSink`] runs the statements that a handler emits (`#{ sql: "...", params: [...] }`), or keeps the events
//!   themselves in a table. It can hold the progress, so that effects and progress are stored together or not at all.
//!
//! All that blocks happens on one named thread per database file, which whoever uses the file shares: SQLite has one
//! writer at a time anyway, and what waits for it can go into one transaction. Nothing is opened before it is used, and
//! what could not be opened is tried again with the next request: a store that is out of reach fails requests, never
//! the start.

mod batch;
mod checkpoints;
mod database;
mod failure;
pub mod inspect;
mod kind;
mod open;
mod parked;
mod progress;
mod rehearsal;
mod sink;
mod statement;
mod worker;
mod writer;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BadSetting;
use crate::config::scalar::{self, Text};

pub use checkpoints::SqliteCheckpoints;
pub use database::closed;
pub use rehearsal::Rehearsal;
pub use sink::SqliteSink;

/// Returns what of the settings cannot be used. Statements are parsed, and run nowhere.
pub fn check(settings: &SinkSettings) -> Vec<BadSetting> {
    if settings.init.is_empty() {
        return Vec::new();
    }
    let Ok(nowhere) = rusqlite::Connection::open_in_memory() else { return Vec::new() };
    let init = settings.init.iter().enumerate().filter(|(_, sql)| !sql.is_hole());
    init.filter_map(|(index, sql)| {
        let why = syntax_error(&nowhere, sql)?;
        Some(BadSetting::new(&["init", &index.to_string()], format!("this is not SQL: {why}")))
    })
    .collect()
}

/// Returns why a text is not SQL. What refers to tables may be right where there are some.
fn syntax_error(nowhere: &rusqlite::Connection, sql: &str) -> Option<String> {
    use rusqlite::fallible_iterator::FallibleIterator as _;
    let mut statements = rusqlite::Batch::new(nowhere, sql);
    loop {
        let message = match statements.next() {
            Ok(Some(_)) => continue,
            Ok(None) => return None,
            Err(rusqlite::Error::SqlInputError { msg, .. }) => msg,
            Err(_) => return None,
        };
        let is_syntax = message.contains("syntax error")
            || message.starts_with("unrecognized token")
            || message.starts_with("incomplete input");
        return is_syntax.then_some(message);
    }
}

/// How durable a commit is when it is reported as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// It survives the end of the process, but the last ones may not survive the loss of power. They are lost in
    /// order, effects and progress together.
    Normal,
    /// It survives the loss of power.
    #[default]
    Full,
}

/// `[checkpoint.sqlite]`: progress in an SQLite file. The default.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SqliteCheckpoint")]
pub struct CheckpointSettings {
    /// The database's file, in the data directory unless absolute.
    pub path: Text,
    /// How durable a commit is.
    pub synchronous: Synchronous,
    /// How long to wait for another process that writes to the file.
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

/// `[sink.sqlite]`: a projection in an SQLite file: the statements that a handler emits, or the events themselves in a
/// table. It can hold the progress: `checkpoint = "sink"`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SqliteSink")]
pub struct SinkSettings {
    /// The database's file, in the data directory unless absolute.
    pub path: Text,
    /// How durable a write is.
    pub synchronous: Synchronous,
    /// Statements that are run before the first write of each start, such as `CREATE TABLE IF NOT EXISTS`. Tests of the
    /// handler compile what it emits against the tables that these make.
    pub init: Vec<Text>,
    /// The table that holds the events where no handler decides. It is made when the first event comes.
    pub table: Text,
    /// How long to wait for another process that writes to the file.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub busy_timeout: Duration,
    /// Memory for pages of the file. Whoever opens the file first decides.
    #[serde(with = "scalar::size")]
    #[schemars(with = "scalar::SizeText")]
    pub cache: u64,
    /// How far the write-ahead log may grow before it is written back. A page that changes often is then written back
    /// once for many commits. Whoever opens the file first decides.
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
