//! Sink `file`: a line in a file for each effect, or for each event where there is no handler.
//!
//! * Lines are appended, those of one write together. One that failed half-way (a full disk) is cut off again, and a
//!   torn line that a crash left at the end is mended before the first write: what it was comes again.
//! * The file is locked while it is open: two pipelines cannot write one file.
//! * A file that was renamed or removed (log rotation) is left behind, and a new one begun, with the next write.
//! * With placeholders in the path there is a file per stream or category, in folders that no name can leave (R65).
//!
//! ```toml
//! [sink.file]
//! path = "out/{category}.jsonl"   # in the data directory; left out: the pipeline's name with `.jsonl`
//! format = "json"                 # json: every line is JSON; text: emitted strings as they are
//! fsync = "batch"                 # batch: before anything counts as written; never; or { every = "1s" }
//! max_open = 64                   # files kept open at the same time
//! ```

mod appender;
mod files;
pub mod inspect;
mod kind;
mod mend;

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

/// `[sink.file]`: a line in a file for each effect, or for each event where there is no handler. Lines are appended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "FileSink")]
pub struct Settings {
    /// The file, within the data directory. `{stream}`, `{category}` and `{id}` may follow a literal folder. Left out:
    /// the pipeline's name with `.jsonl`.
    pub path: Option<Template>,
    /// How emitted values become lines. Events are JSON either way.
    pub format: Format,
    /// When what was written is made to survive the loss of power.
    pub fsync: Fsync,
    /// Files kept open at the same time; those not written to for longest are closed.
    pub max_open: NonZeroUsize,
}

/// When what was written is made to survive the machine's end. The process's own end it survives in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// When the operating system sees fit.
    Never,
    /// Before it counts as written.
    Batch,
    /// At intervals: what counts as written may be lost for that long.
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
            max_open: NonZeroUsize::new(64).expect("it is 64"),
        }
    }
}

/// See the module's documentation.
pub struct FileSink {
    path: Template,
    folder: PathBuf,
    format: Format,
    // Before `files`, so that the thread has ended when they go.
    _syncing: Option<Ticker>,
    files: Arc<Mutex<Files>>,
}

impl FileSink {
    /// Touches no file: that is for the first write, which can be tried again.
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
        Ok(Self { path, folder: context.output(""), format: settings.format, _syncing: syncing, files })
    }

    /// Renders what there is to write, by file.
    fn sort(&self, decided: &[Decided]) -> Sorted {
        let mut sorted = Sorted { lines: Vec::new(), to: Vec::with_capacity(decided.len()) };
        let mut known = HashMap::new();
        let mut lines = Vec::new();
        for Decided { work, effects, .. } in decided {
            match effects {
                Effects::Events => encode::event_lines(&work.events, &mut lines),
                Effects::Emitted(values) => encode::value_lines(values, self.format, &mut lines),
            }
            let to = if lines.is_empty() {
                Ok(None)
            } else {
                self.file_of(work.stream(), &mut known, &mut sorted).map(Some)
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
        let file = *known.entry_ref(path.as_str()).or_insert(sorted.lines.len());
        if file == sorted.lines.len() {
            sorted.lines.push((self.folder.join(path), Vec::new()));
        }
        Ok(file)
    }

    /// Appends each file's lines; one result per file.
    async fn append(&self, lines: Vec<(PathBuf, Vec<u8>)>) -> Vec<Result<(), FileError>> {
        let count = lines.len();
        let appended = blocking::with(&self.files, move |files| {
            lines.iter().map(|(path, lines)| files.append(path, lines)).collect::<Vec<_>>()
        });
        appended.await.unwrap_or_else(|error| (0..count).map(|_| Err(FileError::gave_up(&error))).collect())
    }
}

/// Lines by file, and for each decision which file its lines are in, if it has any.
struct Sorted {
    lines: Vec<(PathBuf, Vec<u8>)>,
    to: Vec<Result<Option<usize>, HandlerError>>,
}

#[async_trait]
impl Sink for FileSink {
    fn max_batch(&self) -> usize {
        1024
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

    /// Also gives the files' locks up, so that another sink can take them over.
    async fn close(&self) -> Result<(), HandlerError> {
        let closed = blocking::with(&self.files, Files::close).await;
        closed.unwrap_or_else(|error| Err(FileError::gave_up(&error))).map_err(|error| error.to_handler_error())
    }
}

#[cfg(test)]
mod tests;
