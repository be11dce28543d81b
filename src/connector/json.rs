//! Source `json`: events from files of JSON lines.
//!
//! A file is followed as it grows. A folder is read as one log: its files in the order of their names, the next one
//! from when the one before is at its end. With `tranche_per_file` each file is a tranche of its own.
//!
//! **Ordinals and files (C1, C2).** A file gets its number, from 0 on, when it is first opened, and the data directory keeps
//! it (`numbers`); the major of an ordinal is number·2^40 + line, the first line being line 1. The position keeps the file's number, name, identity and a hash of
//! its first bytes, and how far every file before it was read, as long as those exist. A copy is the file that it is a copy
//! of: it has the name, begins with the same bytes, and reaches as far as was read. What was handled ahead of the position in
//! files behind it is not known of copies, and comes again. A file that was replaced by another, truncated or added to
//! behind the reader's back, or a new one that sorts before the one being read, is a lost position; with
//! `on_replaced = "restart"` it is read under a new number instead.
//!
//! **Lines.** Blank lines and those that start with `#` are passed. A line that cannot be read becomes a malformed record
//! that names file and line, and reading goes on behind it: what becomes of it is up to the pipeline's error policy.
//! A last line without a newline waits for its rest; where a finite run ends at it, it counts if it is whole.

mod files;
mod input;
pub mod inspect;
mod kind;
mod lines;
mod log;
mod numbers;
mod place;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::config::scalar::{self, Text};
use crate::connector::{BadSetting, Context, MAX_BATCH};
use crate::event::Indexes;
use crate::formats::jsonlines::Indexing;
use crate::position::{StartAt, TrancheId};
use crate::source::{Changes, Contract, Source, SourceError, SourceErrorKind, TrancheChange, TrancheReader};
use files::Names;
use log::Log;

/// `[source.json]`: events from files of JSON lines. A file is followed as it grows; a folder is read as one log, its
/// files in the order of their names.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "JsonSource", extend("required" = ["path"]))]
pub struct Settings {
    /// A file, or a folder whose files are read, beside the pipeline's file unless absolute. Files that end in `.gz` are decompressed.
    pub path: Text,
    /// Which files of a folder are read, with `*` and `?` in it. Left out: those that end in `.jsonl` or `.ndjson`, also
    /// with `.gz` behind. Names that start with a dot never are.
    pub pattern: Option<Text>,
    /// Reads the files of a folder at the same time and independently of each other, instead of as one log. A stream must
    /// not be spread over several of them.
    pub tranche_per_file: bool,
    /// Where the indexes of events come from.
    pub index: Index,
    /// How many lines to pass at the start of each file.
    pub skip: u64,
    /// What to do about a file that is not what it was.
    pub on_replaced: OnReplaced,
    /// How many events make a batch.
    pub batch: NonZeroUsize,
    /// How often to look for more at the end.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: Text::literal(""),
            pattern: None,
            tranche_per_file: false,
            index: Index::Field,
            skip: 0,
            on_replaced: OnReplaced::Fail,
            batch: const { NonZeroUsize::new(1_000).expect("it is not zero") },
            poll: Duration::from_millis(500),
        }
    }
}

/// Where the indexes of events come from. A line that breaks it is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "JsonIndex")]
pub enum Index {
    /// Every line says it: streams are dense.
    Field,
    /// No line says it; it is the file's number·2^40 + the line's: streams are sparse.
    Line,
}

/// What to do about a file that was replaced by another, truncated or added behind the reader's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReplaced {
    /// The position is lost: the pipeline halts, and a person decides.
    Fail,
    /// Read it, under a new number.
    Restart,
}

/// Returns what of the settings cannot be used.
pub fn check(settings: &Settings) -> Vec<BadSetting> {
    let mut bad = Vec::new();
    if let Some(pattern) = settings.pattern.as_ref().filter(|pattern| !pattern.is_hole()) {
        if pattern.is_empty() || pattern.starts_with('.') {
            bad.push(BadSetting::new(
                &["pattern"],
                "this pattern matches no file: names that start with a dot are not read",
            ));
        } else if pattern.contains('/') {
            let help = "name the folder with `path`; files in folders below it are not read";
            bad.push(BadSetting::new(&["pattern"], "a pattern is for names of files, which hold no `/`").help(help));
        }
    }
    if settings.batch.get() > MAX_BATCH {
        bad.push(BadSetting::new(&["batch"], format!("`batch` is at most {MAX_BATCH}")));
    }
    if settings.poll.is_zero() {
        bad.push(BadSetting::new(&["poll"], "`poll` must be more than nothing"));
    }
    bad
}

/// What the parts of a source share.
#[derive(Debug)]
struct Options {
    path: PathBuf,
    /// The folder in which the numbers of files are kept, by tranche.
    numbers: PathBuf,
    names: Names,
    indexing: Indexing,
    skip: u64,
    restart: bool,
    batch: usize,
    poll: Duration,
    /// The pipeline ends at the tail: what a torn last line waits for does not come.
    finite: bool,
}

impl Options {
    fn new(settings: &Settings, context: &Context, finite: bool) -> Self {
        Self {
            path: context.input(&settings.path),
            numbers: inspect::numbers_folder(&context.data).join(&*context.pipeline),
            names: Names::new(settings.pattern.as_deref()),
            indexing: match settings.index {
                Index::Field => Indexing::Field,
                Index::Line => Indexing::Line,
            },
            skip: settings.skip,
            restart: settings.on_replaced == OnReplaced::Restart,
            batch: settings.batch.get(),
            poll: settings.poll,
            finite,
        }
    }
}

impl Settings {
    /// Returns what the source promises.
    pub fn contract(&self) -> Contract {
        let is_line = self.index == Index::Line;
        Contract { ordinals: true, indexes: if is_line { Indexes::Sparse } else { Indexes::Dense }, repeats: !is_line }
    }
}

/// Makes the source. `finite`: the pipeline stops at the tail, so that a whole last line counts without its newline.
pub fn source(settings: &Settings, context: &Context, finite: bool) -> anyhow::Result<JsonSource> {
    anyhow::ensure!(
        !settings.path.is_empty(),
        "`path` is missing: name a file of JSON lines, or a folder of such files"
    );
    let folder = settings.tranche_per_file.then(Mutex::default);
    Ok(JsonSource {
        options: Arc::new(Options::new(settings, context, finite)),
        contract: settings.contract(),
        clock: Clock::start(),
        folder,
    })
}

/// Reads all there is through the reader alone: the floor for what a pipeline on top of it can reach. Returns how many
/// events and bytes that were.
pub fn read_alone(settings: &Settings, context: &Context) -> Result<(u64, u64), SourceError> {
    let mut log = Log::new(Arc::new(Options::new(settings, context, true)), None, &StartAt::Origin)?;
    let (mut events, mut bytes) = (0, 0);
    loop {
        let step = log.step()?;
        for batch in &step.batches {
            events += batch.events.len() as u64;
            bytes += batch.events.iter().map(|event| event.held_bytes() as u64 + 1).sum::<u64>();
        }
        if step.at_tail || step.ended {
            return Ok((events, bytes));
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct JsonSource {
    options: Arc<Options>,
    contract: Contract,
    clock: Clock,
    /// The files that were reported as tranches, where each file is one.
    folder: Option<Mutex<Folder>>,
}

/// The reported files.
#[derive(Debug, Default)]
struct Folder {
    known: BTreeSet<String>,
    /// The number of looks so far, and with it the epoch of the next file that appears.
    looks: u64,
}

/// The name of the only tranche there is unless each file is one.
const WHOLE: &str = "0";

#[async_trait]
impl Source for JsonSource {
    fn contract(&self) -> Contract {
        self.contract
    }

    async fn watch(&self, changes: &Changes) -> Result<(), SourceError> {
        let Some(folder) = &self.folder else {
            changes.report(TrancheChange::Added { tranche: TrancheId::new(WHOLE), origin: None, epoch: 0 }).await;
            changes.report(TrancheChange::Settled).await;
            return Ok(());
        };
        loop {
            for change in self.look(folder).await? {
                changes.report(change).await;
            }
            tokio::time::sleep(self.options.poll).await;
        }
    }

    fn open(&self, tranche: &TrancheId, from: StartAt) -> Box<dyn TrancheReader> {
        let file = self.folder.is_some().then(|| tranche.as_str().to_owned());
        Box::new(reader::Reader::new(Arc::clone(&self.options), file, from, self.clock))
    }
}

impl JsonSource {
    /// Lists the directory, and returns the changes since the last look.
    async fn look(&self, folder: &Mutex<Folder>) -> Result<Vec<TrancheChange>, SourceError> {
        let options = Arc::clone(&self.options);
        let seen = tokio::task::spawn_blocking(move || tranches(&options)).await;
        let seen: BTreeSet<String> = seen.map_err(|error| lost_task(&self.options.path, error))??.into_iter().collect();
        let mut folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = folder.looks;
        let added =
            |name: &String| TrancheChange::Added { tranche: TrancheId::new(name.as_str()), origin: None, epoch };
        let mut changes: Vec<_> = seen.difference(&folder.known).map(added).collect();
        if folder.looks == 0 {
            changes.push(TrancheChange::Settled);
        }
        folder.looks += 1;
        // The reader of a deleted file comes to its end by itself. A file that comes back is a new assignment.
        folder.known = seen;
        Ok(changes)
    }
}

fn tranches(options: &Options) -> Result<Vec<String>, SourceError> {
    if files::is_folder(&options.path)? {
        Ok(files::list(&options.path, &options.names)?.into_iter().map(|file| file.name).collect())
    } else {
        Ok(vec![files::name_of(&options.path)])
    }
}

fn lost_task(path: &Path, error: tokio::task::JoinError) -> SourceError {
    SourceError::new(SourceErrorKind::Unavailable, format!("read `{}`", path.display())).caused_by(error)
}
