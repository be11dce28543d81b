//! Source `json`: events from files of JSON lines.
//!
//! The source follows a file as it grows. It reads a directory as one log: its files in the order of their names, each one
//! after the end of the one before. With `tranche_per_file`, each file is a tranche of its own.
//!
//! **Ordinals and files (C1, C2).** A file gets its number, from 0 on, before its first line is read. The major of an
//! ordinal is number·2^40 + line, the first line being line 1. The registry (`registry`) keeps the numbers under the
//! group and the feed's path. The position keeps the number, name and identity of the current file, proofs
//! of the bytes before the offset (`proof`), and a digest of the earlier files. Its size does not grow with their number.
//!
//! A copy counts as the original: it has the same name and the same bytes up to the offset. After each read, and before
//! any of its bytes count, the source compares both ends of the read part with the file. A file that was replaced,
//! truncated or rewritten is a lost position, as is an earlier file that has grown, and a new file that sorts before the
//! current one. With `on_replaced = "restart"`, the source reads such a file under a new number instead.
//!
//! Lines above the position can be handled, too. The progress therefore names the end of the read that brought the last of
//! them, which is a position with its own proof. At a start, the files have to be the same up to there.
//!
//! A rewrite in place that keeps the first and the last 4,096 bytes before the offset is not found.
//!
//! **Lines.** The source passes blank lines and lines that start with `#`. A line that cannot be read becomes a malformed
//! record that names file and line. A last line without a newline waits for its rest. At the end of a finite run it
//! counts if it is complete.
//!
//! **Foreign records.** With `map`, the lines are records of any form, and `mapped` makes events of them. An event of an
//! unrolled array has its item's number, from 0 on, as the minor of its ordinal. If no record gives the index, it is the
//! major of the ordinal, or number·2^44 + line·2^16 + item with an unrolled array. Without `map`, no line pays for it.
//!
//! **Pipes.** A named pipe can be the `path`. A finite run ends when the last writer has closed the pipe. Source `stdin`
//! ([`stdin`]) reads standard input in the same way, and so does `path = "/dev/stdin"`: its tranche ends with its input. A
//! pipe keeps no bytes: events that were read and not handled when the process ends are lost.

mod earlier;
mod files;
mod gzip;
mod input;
pub mod inspect;
mod kind;
mod lines;
mod log;
mod mapped;
mod position;
mod proof;
mod reader;
mod registry;
pub mod stdin;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::config::scalar::{self, Text};
use crate::connector::map;
use crate::connector::{BadSetting, Context, MAX_BATCH};
use crate::event::Indexes;
use crate::formats::jsonlines::Indexing;
use crate::formats::map::RecordMap;
use crate::formats::records::Format;
use crate::position::{Ahead, Position, StartAt, TrancheId};
use crate::runtime::blocking;
use crate::source::{Changes, Contract, Left, Source, SourceError, SourceErrorKind, TrancheChange, TrancheReader};
use files::Names;
use log::{Log, LogEnd};
use position::FilePosition;
use registry::RegistryPath;

/// `[source.json]`: events from files of JSON lines. A file is followed as it grows. A directory is read as one log, its
/// files in the order of their names.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "JsonSource", extend("required" = ["path"]))]
pub struct Settings {
    /// The file, or the directory of files, relative to the pipeline's file. Files that end in `.gz` are decompressed. A
    /// named pipe or `/dev/stdin` is read once: it keeps no events for a restart.
    #[schemars(extend("examples" = ["events.jsonl"]))]
    pub path: Text,
    /// The names of the files in a directory to read, with `*` and `?`. Default: names that end in `.jsonl` or `.ndjson`,
    /// or in the usual endings of `map.format`, also with `.gz` behind. Names that start with a dot are never read.
    pub pattern: Option<Text>,
    /// The order of the files of a directory.
    pub sort: Sort,
    /// Reads the files of a directory at the same time and independently of each other, instead of as one log. Each stream
    /// must be in one file.
    pub tranche_per_file: bool,
    /// The origin of the events' indexes. Not with `map`, which has its own `index`.
    pub index: Index,
    /// The number of lines to pass at the start of each file.
    pub skip: u64,
    /// The mapping of foreign records to events. Left out: each line is an event, or an Equinox document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<map::Settings>,
    /// The reaction to a file that was replaced, truncated or rewritten.
    pub on_replaced: OnReplaced,
    /// The number of events in a batch.
    pub batch: NonZeroUsize,
    /// The time between two looks for more at the end.
    #[serde(with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: Text::literal(""),
            pattern: None,
            sort: Sort::Name,
            tranche_per_file: false,
            index: Index::Field,
            skip: 0,
            map: None,
            on_replaced: OnReplaced::Fail,
            batch: const { NonZeroUsize::new(1_000).expect("it is not zero") },
            poll: Duration::from_millis(500),
        }
    }
}

/// The origin of the events' indexes. A line that breaks it is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "JsonIndex")]
pub enum Index {
    /// Every line has a field `index`: streams are dense.
    Field,
    /// No line has an index; it is the file's number·2^40 + the line's: streams are sparse.
    Line,
}

/// The order of the files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "JsonSort")]
pub enum Sort {
    /// By the bytes of their names: `events-10` comes before `events-9`.
    Name,
    /// By their names with numbers compared by value: `events-9` comes before `events-10`.
    Natural,
}

/// The reaction to a file that was replaced, truncated or rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReplaced {
    /// The position is lost: the pipeline halts, and the operator decides.
    Fail,
    /// Read the file again, under a new number.
    Restart,
}

/// Returns the settings that are invalid on their own.
pub fn check(settings: &Settings) -> Vec<BadSetting> {
    let mut bad = Vec::new();
    if let Some(pattern) = settings.pattern.as_ref().filter(|pattern| !pattern.is_hole()) {
        if pattern.is_empty() || pattern.starts_with('.') {
            bad.push(BadSetting::new(
                &["pattern"],
                "this pattern matches no file: names that start with a dot are not read",
            ));
        } else if pattern.contains('/') {
            let help = "name the directory with `path`; files in directories below it are not read";
            bad.push(
                BadSetting::new(&["pattern"], "`pattern` matches file names, and no file name contains `/`").help(help),
            );
        }
    }
    bad.extend(check_lines(settings.index, settings.map.as_ref(), settings.batch));
    if settings.poll.is_zero() {
        bad.push(BadSetting::new(&["poll"], "`poll` must be greater than 0"));
    }
    bad
}

/// Returns the invalid ones of the settings that files and standard input share.
fn check_lines(index: Index, map: Option<&map::Settings>, batch: NonZeroUsize) -> Vec<BadSetting> {
    let mut bad = map.map(map::Settings::check).unwrap_or_default();
    if map.is_some() && index == Index::Line {
        let help = "remove it: without `map.index`, the line is the index";
        bad.push(BadSetting::new(&["index"], "`index` cannot be combined with `map`").help(help));
    }
    if batch.get() > MAX_BATCH {
        bad.push(BadSetting::new(&["batch"], format!("`batch` must be at most {MAX_BATCH}")));
    }
    bad
}

/// Returns two file names that `sort = "name"` reads, or will read, in another order than that of their numbers.
pub fn misordered(settings: &Settings, directory: &Path) -> Option<(String, String)> {
    if settings.sort == Sort::Natural || settings.tranche_per_file {
        return None;
    }
    let names = Names::quiet(settings.pattern.as_deref(), Sort::Name).of_format(format_of(settings.map.as_ref()));
    let listed = files::list(&directory.join(Path::new(&*settings.path)), &names).ok()?;
    let mut pairs = listed.windows(2).map(|pair| (&pair[0].name, &pair[1].name));
    if let Some((first, second)) = pairs.find(|(first, second)| files::natural(first, second).is_gt()) {
        return Some((first.clone(), second.clone()));
    }
    let last = &listed.last()?.name;
    files::longer_successor(last).filter(|next| next < last).map(|next| (next, last.clone()))
}

/// Returns the form of the records; JSON for events that need no mapping.
fn format_of(map: Option<&map::Settings>) -> Format {
    map.map_or(Format::Json, |map| map.format)
}

/// The settings as the parts of a source share them.
#[derive(Debug)]
struct Options {
    path: PathBuf,
    /// The directory of the registries, one for each tranche.
    registry: RegistryPath,
    names: Names,
    indexing: Indexing,
    map: Option<RecordMap>,
    skip: u64,
    restart: bool,
    batch: usize,
    poll: Duration,
    /// The pipeline ends at the tail: the rest of a truncated last line will not come.
    finite: bool,
    /// The path is standard input: it is read from its present place on, whatever it is, and its end is final.
    is_stdin: bool,
    /// The files are read apart from the running pipeline: nothing is written, and no pipe is opened.
    is_apart: bool,
}

/// The path of standard input.
const STDIN: &str = "/dev/stdin";

impl Options {
    fn new(settings: &Settings, context: &Context, finite: bool) -> anyhow::Result<Self> {
        let is_stdin = settings.is_stdin();
        let registries = if is_stdin { context.data.join("stdin") } else { inspect::registries(&context.data) };
        Ok(Self {
            path: context.input(&settings.path),
            registry: RegistryPath {
                current: registries.join(inspect::registry_name(&context.group)),
                legacy: registries.join(&*context.pipeline),
            },
            names: Names::new(settings.pattern.as_deref(), settings.sort).of_format(format_of(settings.map.as_ref())),
            indexing: match settings.index {
                Index::Field => Indexing::Field,
                Index::Line => Indexing::Line,
            },
            map: settings.map.as_ref().map(map::Settings::compile).transpose()?,
            skip: settings.skip,
            restart: settings.on_replaced == OnReplaced::Restart,
            batch: settings.batch.get(),
            poll: settings.poll,
            finite: finite || is_stdin,
            is_stdin,
            is_apart: false,
        })
    }
}

impl Settings {
    /// Returns the promises of the source.
    pub fn contract(&self) -> Contract {
        contract(self.index, self.map.as_ref())
    }

    fn is_stdin(&self) -> bool {
        &*self.path == STDIN
    }
}

fn contract(index: Index, map: Option<&map::Settings>) -> Contract {
    let indexes = match (map, index) {
        (Some(map), _) => map.indexes(),
        (None, Index::Field) => Indexes::Dense,
        (None, Index::Line) => Indexes::Sparse,
    };
    let repeats = map.map_or(index == Index::Field, |map| map.index.is_some());
    Contract { ordinals: true, indexes, repeats }
}

/// Builds the source. `finite`: the pipeline stops at the tail, so that a complete last line counts without its newline.
pub fn source(settings: &Settings, context: &Context, finite: bool) -> anyhow::Result<JsonSource> {
    source_of(settings, Options::new(settings, context, finite)?)
}

/// Builds a source that reads the files apart from the running pipeline.
fn source_apart(settings: &Settings, context: &Context) -> anyhow::Result<JsonSource> {
    source_of(settings, Options { is_apart: true, ..Options::new(settings, context, false)? })
}

fn source_of(settings: &Settings, options: Options) -> anyhow::Result<JsonSource> {
    anyhow::ensure!(
        !settings.path.is_empty(),
        "`path` is missing: name a file of JSON lines, or a directory of such files"
    );
    let reported = settings.tranche_per_file.then(Mutex::default);
    Ok(JsonSource { options: Arc::new(options), contract: settings.contract(), clock: Clock::start(), reported })
}

/// Reads everything through the log alone, which no pipeline on top of it can outrun. Returns the numbers of events and
/// bytes.
pub fn read_alone(settings: &Settings, context: &Context) -> Result<(u64, u64), SourceError> {
    let options = Options::new(settings, context, true)
        .map_err(|error| SourceError::new(SourceErrorKind::Refused, "read the settings").caused_by(error))?;
    let mut log = Log::new(Arc::new(options), None, &StartAt::Origin, None)?;
    let (mut events, mut bytes) = (0, 0);
    loop {
        let read = log.read()?;
        for batch in &read.batches {
            events += batch.events.len() as u64;
            bytes += batch.events.iter().map(|event| event.held_bytes() as u64 + 1).sum::<u64>();
        }
        if matches!(read.end, LogEnd::Tail | LogEnd::Ended) {
            return Ok((events, bytes));
        }
    }
}

/// The source; the module's documentation describes it.
#[derive(Debug)]
pub struct JsonSource {
    options: Arc<Options>,
    contract: Contract,
    clock: Clock,
    /// The files that were reported as tranches, where each file is one.
    reported: Option<Mutex<Reported>>,
}

/// The reported files.
#[derive(Debug, Default)]
struct Reported {
    /// Each with the epoch of its assignment.
    known: BTreeMap<String, u64>,
    /// The number of looks so far, and with it the epoch of the next file that appears.
    looks: u64,
}

/// The only tranche, unless each file is one.
const WHOLE: &str = "0";

#[async_trait]
impl Source for JsonSource {
    fn contract(&self) -> Contract {
        self.contract
    }

    async fn watch(&self, changes: &Changes) -> Result<(), SourceError> {
        let Some(reported) = &self.reported else {
            changes.report(TrancheChange::Added { tranche: TrancheId::new(WHOLE), origin: None, epoch: 0 }).await;
            changes.report(TrancheChange::Settled).await;
            return Ok(());
        };
        let mut is_settled = false;
        loop {
            for change in self.look(reported).await? {
                changes.report(change).await;
            }
            // Each call says so: it ends the failure that a look of an earlier call reported.
            if !std::mem::replace(&mut is_settled, true) {
                changes.report(TrancheChange::Settled).await;
            }
            tokio::time::sleep(self.options.poll).await;
        }
    }

    fn open(&self, tranche: &TrancheId, from: StartAt, ahead: Option<Ahead>) -> Box<dyn TrancheReader> {
        let file = self.reported.is_some().then(|| tranche.as_str().to_owned());
        Box::new(reader::Reader::new(Arc::clone(&self.options), file, from, ahead, self.clock))
    }

    fn describe(&self, position: &Position) -> String {
        match FilePosition::parse(position) {
            Ok(parsed) if parsed.file.is_empty() => "origin".to_owned(),
            Ok(parsed) => format!("{} line {}", parsed.file, parsed.line),
            Err(_) => position.to_string(),
        }
    }

    /// Compares the names of the files and the offsets. The numbers of files are those of a group, and may differ.
    fn compare(&self, one: &Position, other: &Position) -> Option<Ordering> {
        let (one, other) = (FilePosition::parse(one).ok()?, FilePosition::parse(other).ok()?);
        if one.pipe || other.pipe {
            return None;
        }
        // The start of a directory without files has no name.
        let files = match (one.file.is_empty(), other.file.is_empty()) {
            (false, false) => self.options.names.compare(&one.file, &other.file),
            (one, other) => other.cmp(&one),
        };
        Some(files.then(one.offset.cmp(&other.offset)))
    }

    fn left(&self, tranche: &TrancheId, epoch: u64, how: Left) {
        let Some(reported) = &self.reported else { return };
        // The reader of a deleted file comes to its end. The file can be back before a look misses it, and a look that fails
        // misses nothing: the next look that finds the file reports it again. A job reads each file once.
        if how == Left::Completed && !self.options.finite {
            let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
            if reported.known.get(tranche.as_str()) == Some(&epoch) {
                reported.known.remove(tranche.as_str());
            }
        }
    }
}

impl JsonSource {
    /// Lists the directory, and returns the changes since the last look.
    async fn look(&self, reported: &Mutex<Reported>) -> Result<Vec<TrancheChange>, SourceError> {
        let options = Arc::clone(&self.options);
        let seen = blocking::start(move || tranches(&options)).result().await;
        let seen: BTreeSet<String> = seen.map_err(|error| lost_work(&self.options.path, error))??.into_iter().collect();
        let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = reported.looks;
        let added =
            |name: &String| TrancheChange::Added { tranche: TrancheId::new(name.as_str()), origin: None, epoch };
        let changes = seen.iter().filter(|name| !reported.known.contains_key(*name)).map(added).collect();
        reported.looks += 1;
        // The reader of a deleted file comes to its end by itself. A file that comes back is a new assignment.
        reported.known.retain(|name, _| seen.contains(name));
        for name in seen {
            reported.known.entry(name).or_insert(epoch);
        }
        Ok(changes)
    }
}

fn tranches(options: &Options) -> Result<Vec<String>, SourceError> {
    if files::is_directory(&options.path)? {
        Ok(files::list(&options.path, &options.names)?.into_iter().map(|file| file.name).collect())
    } else {
        Ok(vec![files::name_of(&options.path)])
    }
}

fn lost_work(path: &Path, error: blocking::Lost) -> SourceError {
    SourceError::new(SourceErrorKind::Unavailable, format!("read `{}`", path.display())).caused_by(error)
}
