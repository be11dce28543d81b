//! Sink `file`: a line in a file for each effect, or for each event of a pipeline without a handler.
//!
//! * A write appends its lines together. After a failure (a full disk) the sink cuts them off again. Before its first
//!   write, it repairs a truncated last line that a crash left: the events of that line are redelivered.
//! * An open file is locked, so that two pipelines cannot write to one file.
//! * After a rename or removal of the file (log rotation), the next write begins a new file.
//! * With placeholders in the path, each stream or category has its own file, in a directory that no name can leave (R65).
//!   A name that is too long for the file system is shortened and gets a hash.
//!
//! ```toml
//! [sink.file]
//! path = "out/{category}.jsonl"   # in the data directory; default: the pipeline's name with `.jsonl`
//! format = "json"                 # json: every line is JSON; text: emitted strings as they are
//! fsync = "batch"                 # batch: before a write is acknowledged; never; or { every = "1s" }
//! max_open = 64                   # the most files open at the same time
//! ```

mod appender;
mod files;
pub mod inspect;
mod kind;
mod names;
mod repair;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use self::files::{FileError, Files};
use crate::config::scalar;
use crate::config::template::Template;
use crate::connector::Context;
use crate::formats::encode::{self, Format};
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::blocking;
use crate::runtime::ticker::Ticker;
use crate::sink::{Decided, Effects, Sink, Written};

/// The most decisions of one write, and so of one sync.
const MAX_BATCH: usize = 1_024;

/// `[sink.file]`: a line in a file for each effect, or for each event of a pipeline without a handler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "FileSink")]
pub struct Settings {
    /// The file, within the data directory. `{stream}`, `{category}` and `{id}` may follow a literal directory. Default:
    /// the pipeline's name with `.jsonl`.
    pub path: Option<Template>,
    /// The format of emitted values. Events are always JSON.
    pub format: Format,
    /// The time at which written lines become durable against a power failure.
    pub fsync: Fsync,
    /// The most files that are open at the same time. The sink closes the least recently written one.
    pub max_open: NonZeroUsize,
}

/// The time at which written lines become durable against a power failure. A process crash never loses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// The operating system decides.
    Never,
    /// Before each write is acknowledged.
    Batch,
    /// At intervals: a power failure can lose the writes of one interval.
    Every(
        #[serde(with = "scalar::duration")]
        #[schemars(with = "scalar::DurationText")]
        Duration,
    ),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: None,
            format: Format::Json,
            fsync: Fsync::Batch,
            max_open: NonZeroUsize::new(64).expect("64 is not zero"),
        }
    }
}

/// Appends lines to files. See the module's documentation.
pub struct FileSink {
    path: Template,
    data_dir: PathBuf,
    format: Format,
    // Declared before `files`, so that its thread ends before the files close.
    _syncing: Option<Ticker>,
    files: Arc<Mutex<Files>>,
}

impl FileSink {
    /// Opens no file yet. A file that cannot be opened fails the writes, which the pipeline retries.
    pub fn new(settings: &Settings, context: &Context) -> anyhow::Result<Self> {
        let path = match &settings.path {
            Some(path) => path.clone(),
            None => Template::parse(&format!("{}.jsonl", context.pipeline))?,
        };
        let files = Arc::new(Mutex::new(Files::new(settings)));
        let syncing = match settings.fsync {
            Fsync::Every(interval) => {
                let files = Arc::clone(&files);
                let name = format!("sync {}", context.pipeline);
                Some(Ticker::start(&name, interval, move || files.blocking_lock().sync_at_interval())?)
            }
            Fsync::Never | Fsync::Batch => None,
        };
        Ok(Self { path, data_dir: context.output(""), format: settings.format, _syncing: syncing, files })
    }

    /// Encodes the lines of each decision and groups them by file.
    fn sort(&self, decided: &[Decided]) -> Sorted {
        let mut sorted = Sorted { lines: Vec::new(), to: Vec::with_capacity(decided.len()) };
        let mut known = HashMap::new();
        let mut lines = Vec::new();
        for Decided { work, effects, .. } in decided {
            let encoded = match effects {
                Effects::Events => {
                    encode::event_lines(&work.events, &mut lines);
                    Ok(())
                }
                Effects::Emitted(values) => encode::value_lines(values, self.format, &mut lines),
            };
            let to = match encoded {
                Err(why) => Err(cannot_encode(work.stream(), &why)),
                Ok(()) if lines.is_empty() => Ok(None),
                Ok(()) => self.file_of(work.stream(), &mut known, &mut sorted).map(Some),
            };
            if let Ok(Some(file)) = to {
                sorted.lines[file].1.append(&mut lines);
            }
            lines.clear();
            sorted.to.push(to);
        }
        sorted
    }

    fn file_of(
        &self,
        stream: &str,
        known: &mut HashMap<String, usize>,
        sorted: &mut Sorted,
    ) -> Result<usize, HandlerError> {
        if self.path.is_literal() && !sorted.lines.is_empty() {
            return Ok(0);
        }
        let path = self
            .path
            .render(stream)
            .map_err(|error| HandlerError::new(HandlerErrorKind::Permanent, error.to_string()))?;
        let path = names::fitted(&path);
        let file = *known.entry_ref(&*path).or_insert(sorted.lines.len());
        if file == sorted.lines.len() {
            sorted.lines.push((self.data_dir.join(&*path), Vec::new()));
        }
        Ok(file)
    }

    /// Appends the lines of each file. Returns one result per file.
    async fn append(&self, lines: Vec<(PathBuf, Vec<u8>)>) -> Vec<Result<(), FileError>> {
        let count = lines.len();
        let appended = blocking::with(&self.files, move |files| {
            lines.iter().map(|(path, lines)| files.append(path, lines)).collect::<Vec<_>>()
        });
        appended.await.unwrap_or_else(|error| (0..count).map(|_| Err(FileError::no_thread(&error))).collect())
    }
}

fn cannot_encode(stream: &str, why: &str) -> HandlerError {
    HandlerError::new(HandlerErrorKind::Permanent, format!("cannot write an effect of stream `{stream}`: {why}"))
}

/// The lines of a write.
struct Sorted {
    /// The lines of each file.
    lines: Vec<(PathBuf, Vec<u8>)>,
    /// The number of each decision's file; `None` without lines.
    to: Vec<Result<Option<usize>, HandlerError>>,
}

#[async_trait]
impl Sink for FileSink {
    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let Sorted { lines, to } = self.sort(decided);
        let appended = if lines.is_empty() { Vec::new() } else { self.append(lines).await };
        to.into_iter()
            .map(|to| match to? {
                Some(file) => appended[file].as_ref().map(|()| Written::All).map_err(FileError::to_handler_error),
                None => Ok(Written::All),
            })
            .collect()
    }

    /// Releases the locks of the files, too, so that another sink can acquire them.
    async fn close(&self) -> Result<(), HandlerError> {
        let closed = blocking::with(&self.files, Files::close).await;
        closed.unwrap_or_else(|error| Err(FileError::no_thread(&error))).map_err(|error| error.to_handler_error())
    }
}

#[cfg(test)]
mod tests;
