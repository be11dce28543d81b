//! The traits by which a connector says itself what it is.
//!
//! The settings of a connector implement one trait for each role: [`SourceKind`], [`StoreKind`], [`SinkKind`]. `check`,
//! `explain`, `doctor`, the handler tests and the daemon ask these traits and name no connector.
//!
//! # A new connector
//!
//! | place | change |
//! |---|---|
//! | its file or directory below `src/connector/` | the settings with their kinds, and the implementation |
//! | [`connector`](crate::connector) | a `pub mod` line, and a line in the list of each role |
//! | `tests/it/contract/` | its harness, and a line in the suite of each role |
//! | `README.md` | a row in the table of connectors |
//! | `Cargo.toml` | a feature, if the connector brings dependencies |
//!
//! `UPDATE_EXPECT=1 cargo test --test it docs` adds its settings to the reference pages.
//!
//! The settings are a struct that derives `Clone`, `Debug`, `PartialEq`, `Deserialize`, `Serialize` and `JsonSchema`, with
//! `#[serde(deny_unknown_fields, default)]`, an `impl Default`, and a name in the schema of its own:
//! `#[schemars(rename = "RedisSource")]`. The documentation of a field is that of the setting. Types for text with
//! references, durations and sizes are in [`scalar`](crate::config::scalar).
//!
//! Everything but `build` is compiled in every binary. A connector whose client sits behind a Cargo feature names it in
//! [`Kind::missing_feature`]: the program then says "built without …" and never "unknown key".

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::context::Context;
use super::diagnosis::Diagnosis;
use super::prose::Prose;
use super::stored::Repository;
use crate::checkpoint::CheckpointStore;
use crate::config::scalar::Text;
use crate::effect;
use crate::formats::map::RecordMap;
use crate::position::Position;
use crate::sink::{Sink, TransactionalSink};
use crate::source::{Contract, Inbox, Source};

/// The questions that every connector answers, whatever its role.
pub trait Kind: Debug + Send + Sync {
    /// Returns the settings that are invalid on their own. A value that is a hole is not judged.
    fn check(&self) -> Vec<BadSetting> {
        Vec::new()
    }

    /// Returns the settings that work but will probably surprise the operator. Relative paths start at `directory`.
    fn advise(&self, _directory: &Path) -> Vec<BadSetting> {
        Vec::new()
    }

    /// Returns the Cargo feature that this binary lacks to build the connector. `check` refuses a pipeline that needs it,
    /// and `build` fails with [`NotBuilt`] without the feature:
    ///
    /// ```text
    /// fn missing_feature(&self) -> Option<&'static str> {
    ///     (!cfg!(feature = "kafka")).then_some("kafka")
    /// }
    ///
    /// #[cfg(not(feature = "kafka"))]
    /// fn build(&self, _context: &Context) -> anyhow::Result<Arc<dyn Source>> {
    ///     Err(NotBuilt("kafka").into())
    /// }
    /// ```
    fn missing_feature(&self) -> Option<&'static str> {
        None
    }

    /// Returns the files and directories that the connector reads or writes in a pipeline of this name.
    fn files(&self, _pipeline: &str) -> Vec<KindFile> {
        Vec::new()
    }

    /// Returns the files and directories that hold the results and the state of one pipeline, relative to the data
    /// directory unless a setting makes them absolute. A rebuild makes them again in a data directory of its own, and
    /// then exchanges them (`daemon::exchange`).
    ///
    /// A kind that keeps its results in a server has no such files. Its rebuild writes into another schema, and one
    /// transaction exchanges the two schemas. The exchange then needs a method for that transaction beside this one. It
    /// calls the method before it renames the files, and again after a crash. The method must therefore recognise an
    /// exchange that has been committed: the schema of the rebuild does not exist any more.
    fn own_files(&self, _context: &Context) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns the settings that a file may leave out, each with its effect, for `explain`.
    fn unset(&self, _pipeline: &str) -> Vec<Unset> {
        Vec::new()
    }

    /// Inspects the files that the connector keeps for one pipeline, for `doctor`.
    fn inspect(&self, _context: &Context, _scope: Scope) -> Vec<Diagnosis> {
        Vec::new()
    }

    /// Inspects the files of pipelines that no longer exist. `is_owner` tells whether a pipeline of this kind has that
    /// name or group.
    fn inspect_leftovers(&self, _data: &Path, _is_owner: &dyn Fn(&str) -> bool) -> Vec<Diagnosis> {
        Vec::new()
    }
}

/// The settings of a source.
pub trait SourceKind: Kind {
    /// Returns the promises that the source makes of its events: those of the source that `build` makes.
    fn contract(&self) -> Contract;

    /// Returns whether events that the source has delivered can be read again by a later process.
    fn is_durable(&self) -> bool {
        true
    }

    /// Returns the parts of the feed that were read earlier and do not exist any more, in words. A rebuild lacks their
    /// events.
    fn vanished(&self, _context: &Context) -> Vec<String> {
        Vec::new()
    }

    /// Returns whether the source ends by itself, so that a pipeline over it is a finite job.
    fn ends(&self) -> bool {
        false
    }

    /// Returns the source part of the key of the progress. `None`: the kind's key.
    fn default_source_id(&self) -> Option<String> {
        None
    }

    /// Returns why positions of two pipelines over the source cannot be [compared](Source::compare), as a clause. `None`: they
    /// can be. Not asked of a source without ordinals.
    fn incomparable(&self) -> Option<&'static str> {
        None
    }

    /// Returns the compiled mapping of foreign records, if the source makes events by one.
    ///
    /// # Errors
    /// The mapping is invalid, or refers to a missing variable.
    fn record_map(&self) -> Option<Result<RecordMap, BadSetting>> {
        None
    }

    /// Returns the phrases that `explain` puts together.
    fn phrases(&self, prose: &Prose<'_>) -> SourcePhrases;

    /// Builds the source. It connects to nothing yet.
    ///
    /// # Errors
    /// The settings cannot be used, or the binary lacks the connector's feature.
    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Source>>;

    /// Builds a source that reads the same events apart from the running pipeline. It writes nothing, joins no group, and
    /// takes no event from the pipeline. Its readers wait for no pace. `None`: each event can be read only once.
    fn build_apart(&self, _context: &Context) -> Option<anyhow::Result<Arc<dyn Source>>> {
        None
    }

    /// Returns whether events are pushed into the source, through its [`inbox`](Self::inbox).
    fn is_pushed(&self) -> bool {
        false
    }

    /// Returns the inbox of the source that `build` makes in the same context, if events can be pushed into it.
    fn inbox(&self, _context: &Context) -> Option<Arc<dyn Inbox>> {
        None
    }

    /// Returns why the source could not resume at a stored position. Reads no events.
    fn lost(&self, _context: &Context, _tranche: &str, _position: &Position) -> Option<LostPosition> {
        None
    }
}

/// The settings of a checkpoint store.
pub trait StoreKind: Kind {
    /// Returns the abilities of the store.
    fn facts(&self) -> StoreFacts;

    /// Returns the phrases that `explain` puts together.
    fn phrases(&self, prose: &Prose<'_>) -> StorePhrases;

    /// Builds the store. It opens nothing yet.
    ///
    /// # Errors
    /// The settings cannot be used, or the binary lacks the connector's feature.
    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn CheckpointStore>>;

    /// Returns the local repository of the progress, for `doctor` and `check`.
    fn repository(&self, _data: &Path) -> Option<Arc<dyn Repository>> {
        None
    }

    /// Returns the repositories of this kind that stand directly in the data directory, whether a file names them or not.
    fn discover(&self, _data: &Path) -> Vec<Arc<dyn Repository>> {
        Vec::new()
    }
}

/// The settings of a sink.
pub trait SinkKind: Kind {
    /// Returns whether a write can fail at all. The end of the sink does not count.
    fn can_fail(&self) -> bool {
        true
    }

    /// Returns the phrases that `explain` puts together.
    fn phrases(&self, prose: &Prose<'_>) -> SinkPhrases;

    /// Builds the sink. It connects to nothing yet.
    ///
    /// # Errors
    /// The settings cannot be used, or the binary lacks the connector's feature.
    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>>;

    /// Returns the same settings in the role of a sink that holds the progress, if it can.
    fn transactional(&self) -> Option<Arc<dyn TransactionalKind>> {
        None
    }

    /// Returns a rehearsal of writes, for handler tests. `None`: the sink accepts every effect.
    fn dry_run(&self) -> Option<Box<dyn DryRun>> {
        None
    }
}

/// The settings of a sink that holds the progress: `checkpoint = "sink"`.
pub trait TransactionalKind: Debug + Send + Sync {
    /// Returns the abilities of the sink as a store.
    fn facts(&self) -> StoreFacts;

    /// Returns the phrases about the progress that `explain` puts together.
    fn phrases(&self, prose: &Prose<'_>) -> StorePhrases;

    /// Builds the sink. It connects to nothing yet.
    ///
    /// # Errors
    /// The settings cannot be used, or the binary lacks the connector's feature.
    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn TransactionalSink>>;

    /// Returns the local repository of the progress, for `doctor` and `check`.
    fn repository(&self, data: &Path) -> Option<Arc<dyn Repository>>;

    /// Makes the sink's [`own_files`](Kind::own_files) ready to be renamed: complete, and not open in any process. Files
    /// that do not exist are ready.
    ///
    /// # Errors
    /// Another process has a file open, or a file cannot be read.
    fn settle(&self, context: &Context) -> anyhow::Result<()>;

    /// Returns the results, such as tables, that exist in `present` and not in `rebuilt`, in words. An exchange takes them
    /// away from their readers.
    ///
    /// # Errors
    /// A file cannot be read.
    fn missing(&self, present: &Context, rebuilt: &Context) -> anyhow::Result<Vec<String>>;
}

/// A rehearsal of writes that touches nothing outside the process.
pub trait DryRun {
    /// Checks the effects that one call emitted about a stream.
    ///
    /// # Errors
    /// The reason for which the sink would refuse them.
    fn check(&self, stream: &str, effects: &[effect::Value]) -> Result<(), String>;
}

/// The error of a `build` whose Cargo feature the binary lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this propulsiond was built without `{0}` (build it with `--features {0}`)")]
pub struct NotBuilt(pub &'static str);

/// The abilities of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFacts {
    /// The place of the progress. Stores with equal places are one store.
    pub place: StorePlace,
    /// The store keeps write positions as durably as progress.
    pub write_positions: bool,
    /// The store keeps parked streams beside the progress, as durably as it.
    pub parked: bool,
}

impl StoreFacts {
    /// Returns whether the progress outlives the process.
    pub fn is_durable(&self) -> bool {
        self.place != StorePlace::Process
    }
}

/// The place of a store's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// The memory of this process: no other pipeline shares it.
    Process,
    /// A file or directory, relative to the data directory.
    Local(String),
}

/// A setting that is invalid whatever the other connectors of the pipeline are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadSetting {
    /// The keys that lead to it, from the connector's own table on.
    pub path: Vec<String>,
    pub why: String,
    pub help: Option<String>,
    pub at: BadPart,
}

/// The part of the file that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPart {
    /// The value, or the item of a list if the path ends in a number.
    Value,
    /// The key. Its value may be a secret and is not shown.
    Key,
    /// The value is empty, or the key is missing.
    Missing,
}

impl BadSetting {
    pub fn new(path: &[&str], why: impl Into<String>) -> Self {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        Self { path, why: why.into(), help: None, at: BadPart::Value }
    }

    /// Makes the error of a text that must not be empty.
    pub fn missing(key: &str) -> Self {
        Self { at: BadPart::Missing, ..Self::new(&[key], format!("`{key}` is empty")) }
    }

    /// Points at the key instead of the value.
    pub fn of_key(self) -> Self {
        Self { at: BadPart::Key, ..self }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Returns the error of a required text that is empty. A hole counts as given.
pub fn required(key: &str, text: &Text) -> Option<BadSetting> {
    (text.is_empty() && !text.is_hole()).then(|| BadSetting::missing(key))
}

/// A file or directory that a connector uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindFile {
    /// The key that names it, in the connector's own table. `None`: it follows from the pipeline's name.
    pub key: Option<&'static str>,
    /// The path, relative to the pipeline's directory for inputs and to the data directory otherwise.
    pub path: String,
    /// The path as the file writes it, references unresolved.
    pub written: String,
    /// The path is unknown, because it refers to a missing variable.
    pub is_hole: bool,
    pub usage: Usage,
}

/// The use that is made of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A file or directory that is read.
    Input,
    /// Standard input, which one pipeline alone can read.
    Stdin,
    /// A file that lines are appended to. Its path may be a template.
    Lines,
    /// A database of results.
    Projection,
    /// A database of checkpoints.
    Checkpoints,
    /// A directory of checkpoints.
    CheckpointDirectory,
}

impl KindFile {
    /// Describes the file that a setting names.
    pub fn named(key: &'static str, path: &Text, usage: Usage) -> Self {
        let (path, written, is_hole) = (path.identity().to_owned(), path.written().to_owned(), path.is_hole());
        Self { key: Some(key), path, written, is_hole, usage }
    }
}

/// A setting that a file may leave out.
#[derive(Clone, Debug, PartialEq)]
pub struct Unset {
    pub key: &'static str,
    /// The value that takes its place, if there is one.
    pub value: Option<Value>,
    /// The reason for it, or its effect.
    pub because: &'static str,
}

impl Unset {
    /// Describes the effect of a setting that stays unset.
    pub fn means(key: &'static str, because: &'static str) -> Self {
        Self { key, value: None, because }
    }
}

/// The limits of an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// A daemon uses the data directory: unfinished writes are normal.
    pub in_use: bool,
    /// Repair damage that needs no decision.
    pub repair: bool,
}

/// The reason for which a source cannot resume, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPosition {
    pub why: String,
    pub remedy: &'static str,
}

/// The phrases of a source.
#[derive(Clone, Debug)]
pub struct SourcePhrases {
    /// Sentences about the feed and its settings.
    pub reads: String,
    /// A sentence on the reason for which the feed repeats no event. Used only if its contract says so.
    pub once: &'static str,
    pub malformed: Malformed,
    /// The condition under which reads are retried, to follow "Where": "the files cannot be read".
    pub unavailable: Option<&'static str>,
}

/// The records that a source cannot read.
#[derive(Clone, Copy, Debug)]
pub enum Malformed {
    /// The source delivers none. The sentence says why.
    Never(&'static str),
    /// The source delivers them as malformed events.
    Delivered {
        /// The record, with its article: "A line that cannot be read".
        record: &'static str,
        /// The place that messages name: "its file and line".
        place: &'static str,
    },
}

/// The phrases of a store.
#[derive(Clone, Debug)]
pub struct StorePhrases {
    /// The place, to follow "Its progress is kept".
    pub place: String,
    /// A sentence on the commits that a power failure can lose.
    pub power_failure: Option<String>,
}

/// The phrases of a sink. Empty ones are left out.
#[derive(Clone, Debug, Default)]
pub struct SinkPhrases {
    /// Sentences about the writes.
    pub writes: String,
    /// A sentence about writes at the same time.
    pub overlap: &'static str,
    /// A sentence about the effect of a repeated event.
    pub repeat: &'static str,
    /// An error that no retry can cure, to follow "or": "an answer that `permanent` names".
    pub permanent: Option<&'static str>,
    /// The condition that opens the circuit breaker, to follow "Where": "standard output is closed".
    pub unavailable: Option<&'static str>,
    /// A sentence about throttling.
    pub throttled: &'static str,
    /// A sentence on the acknowledged writes that a power failure can lose.
    pub power_failure: Option<String>,
}
