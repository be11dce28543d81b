//! Sink `stdout`: a line on standard output for each effect, or for each event where there is no handler.
//!
//! Lines leave whole, those of one write together, also where several pipelines write there. Once nobody reads them
//! any more (a closed pipe) the sink is unavailable: that is no fault of an event, and no event is given up for it.
//! What was written before a failure cannot be taken back, so lines may come twice.
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

/// `[sink.stdout]`: a line on standard output for each effect, or for each event where there is no handler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "StdoutSink")]
pub struct Settings {
    /// How emitted values become lines. Events are JSON either way.
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
            writes: format!("{} Lines leave whole.", prose.lines("to standard output", self.format)),
            overlap: "One write at a time takes what has gathered.",
            repeat: "After a repeat the same line is there twice.",
            unavailable: Some("standard output is closed"),
            ..SinkPhrases::default()
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(Arc::new(StdoutSink::new(self, context)?))
    }
}

/// See the module's documentation.
pub struct StdoutSink {
    format: Format,
    out: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl StdoutSink {
    pub fn new(settings: &Settings, _context: &Context) -> anyhow::Result<Self> {
        Ok(Self::to(settings, Box::new(io::stdout())))
    }

    /// Writes to something else instead.
    pub fn to(settings: &Settings, out: Box<dyn Write + Send>) -> Self {
        Self { format: settings.format, out: Arc::new(Mutex::new(out)) }
    }

    async fn print(&self, lines: Vec<u8>) -> Result<(), HandlerError> {
        let printed = blocking::with(&self.out, move |out| out.write_all(&lines).and_then(|()| out.flush())).await;
        let why = match printed {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                "standard output is closed: nobody reads it any more".to_owned()
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
        1024
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let mut lines = Vec::new();
        for Decided { work, effects, .. } in decided {
            match effects {
                Effects::Events => encode::event_lines(&work.events, &mut lines),
                Effects::Emitted(values) => encode::value_lines(values, self.format, &mut lines),
            }
        }
        let printed = if lines.is_empty() { Ok(()) } else { self.print(lines).await };
        decided
            .iter()
            .map(|decided| match &printed {
                Err(error) if !decided.effects.is_empty() => Err(HandlerError::new(error.kind(), error.message())),
                _ => Ok(Written::All),
            })
            .collect()
    }
}
