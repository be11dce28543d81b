//! Sink `stdout`: a line on standard output for each effect, or for each event of a pipeline without a handler.
//!
//! The lines of one write leave together, also if several pipelines write to standard output. If the reader closes the
//! pipe, no later write can succeed: the sink is unusable, and the pipeline halts. After any other error the pipeline
//! retries. A failed write may have printed some of its lines, so that lines can appear twice.
//!
//! ```toml
//! [sink.stdout]
//! format = "text"     # text: emitted strings as they are, all else as JSON; json: strings in quotes too
//! ```

use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::Context;
use super::kind::{Kind, SinkKind, SinkPhrases};
use super::prose::Prose;
use crate::formats::encode::{self, Format};
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::blocking;
use crate::sink::{Decided, Effects, Sink, Written};

/// The most decisions of one write.
const MAX_BATCH: usize = 1_024;

/// `[sink.stdout]`: a line on standard output for each effect, or for each event of a pipeline without a handler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "StdoutSink")]
pub struct Settings {
    /// The format of emitted values. Events are always JSON.
    pub format: Format,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Text }
    }
}

impl Kind for Settings {}

impl SinkKind for Settings {
    fn phrases(&self, prose: &Prose<'_>) -> SinkPhrases {
        SinkPhrases {
            writes: format!(
                "{} Each line is printed whole. If the reader of standard output closes it, the pipeline halts.",
                prose.lines("to standard output", self.format)
            ),
            overlap: "One write at a time takes all waiting decisions.",
            repeat: "A repeated event prints its line again.",
            unavailable: Some("standard output cannot be written"),
            ..SinkPhrases::default()
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(Arc::new(StdoutSink::new(self, context)?))
    }
}

/// Prints lines. See the module's documentation.
pub struct StdoutSink {
    format: Format,
    out: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl StdoutSink {
    pub fn new(settings: &Settings, _context: &Context) -> anyhow::Result<Self> {
        Ok(Self::to(settings, Box::new(io::stdout())))
    }

    /// Makes a sink that writes to `out` instead of standard output.
    pub fn to(settings: &Settings, out: Box<dyn Write + Send>) -> Self {
        Self { format: settings.format, out: Arc::new(Mutex::new(out)) }
    }

    fn encode(&self, decided: &Decided, lines: &mut Vec<u8>) -> Result<(), HandlerError> {
        let Decided { work, effects, .. } = decided;
        match effects {
            Effects::Events => {
                encode::event_lines(&work.events, lines);
                Ok(())
            }
            Effects::Emitted(values) => encode::value_lines(values, self.format, lines).map_err(|why| {
                let message = format!("cannot print an effect of stream `{}`: {why}", work.stream());
                HandlerError::new(HandlerErrorKind::Permanent, message)
            }),
        }
    }

    async fn print(&self, lines: Vec<u8>) -> Result<(), HandlerError> {
        let printed = blocking::with(&self.out, move |out| out.write_all(&lines).and_then(|()| out.flush())).await;
        let why = match printed {
            Ok(Ok(())) => return Ok(()),
            // A closed pipe never gets another reader.
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(HandlerError::new(HandlerErrorKind::Unusable, "standard output was closed by its reader"));
            }
            Ok(Err(error)) => format!("write to standard output: {error}"),
            Err(error) => format!("write to standard output: {error}"),
        };
        Err(HandlerError::new(HandlerErrorKind::Unavailable, why))
    }
}

#[async_trait]
impl Sink for StdoutSink {
    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let mut lines = Vec::new();
        let encoded: Vec<_> = decided.iter().map(|decided| self.encode(decided, &mut lines)).collect();
        let printed = if lines.is_empty() { Ok(()) } else { self.print(lines).await };
        let results = encoded.into_iter().zip(decided).map(|(encoded, decided)| match (encoded, &printed) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) if !decided.effects.is_empty() => {
                Err(HandlerError::new(error.kind(), error.message()))
            }
            _ => Ok(Written::All),
        });
        results.collect()
    }
}
