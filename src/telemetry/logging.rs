//! Logs: lines of text for people, or JSON for collectors, to stderr.
//!
//! A line is the time, the level, the message and its fields; fields of the spans around it (`pipeline`, `tranche`) come
//! last. What repeats is limited by [`Repeats`]: of one place in the code and one pipeline, so many warnings and errors
//! are shown per [`WINDOW`], and the rest are counted in one line at its end. What is said to [`AUDIT`] is never held back.

mod format;
mod limit;
mod repeats;

use std::io::{self, IsTerminal};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{DefaultFields, JsonFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::clock::Clock;
use limit::Limit;

pub use repeats::{Repeats, Summary, WINDOW};

/// The target of lines that say what became of an event that was not handled: each of them is shown (R33, R43).
pub const AUDIT: &str = "propulsiond::audit";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("log levels `{levels}` are not understood")]
    Levels {
        levels: String,
        #[source]
        cause: tracing_subscriber::filter::ParseError,
    },
    #[error("logging is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// What is left to do while logs are written: the summaries of what repeats.
#[derive(Clone, Debug)]
pub struct Logs {
    limit: Limit,
}

/// Sends what the process logs to stderr from here on, panics included.
///
/// Levels are as in `info,propulsiond::pipeline=debug`.
///
/// # Errors
/// The levels cannot be read, or logging is set up already.
pub fn start(format: Format, levels: &str, clock: Clock) -> Result<Logs, SetupError> {
    let logs = Logs { limit: Limit::new(clock) };
    let colour = io::stderr().is_terminal();
    Registry::default()
        .with(parse(levels)?)
        .with(logs.limit.clone())
        .with(lines(format, colour, io::stderr))
        .try_init()
        .map_err(SetupError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(logs)
}

impl Logs {
    /// Writes summaries of what was held back, as their windows end, until told to stop; then of all the rest.
    pub async fn summarise_until(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(WINDOW / 4);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.limit.write_due(),
                () = stop.cancelled() => break,
            }
        }
        self.summarise_all();
    }

    /// Writes summaries of everything that is held back: before the process ends.
    pub fn summarise_all(&self) {
        self.limit.write_all();
    }
}

fn parse(levels: &str) -> Result<EnvFilter, SetupError> {
    EnvFilter::builder().parse(levels).map_err(|cause| SetupError::Levels { levels: levels.to_owned(), cause })
}

fn lines<S, W>(format: Format, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour && format == Format::Text);
    match format {
        Format::Text => layer.fmt_fields(DefaultFields::new()).event_format(format::Text).boxed(),
        Format::Json => layer.fmt_fields(JsonFields::new()).event_format(format::Json).boxed(),
    }
}

/// A panic is a line like any other, so that a collector of JSON can read it. Who owns the thread deals with it.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let message = info.payload_as_str().unwrap_or("without a message");
    tracing::error!(location, thread = thread.name(), panic = message, "a task panicked");
}

#[cfg(test)]
pub(crate) mod tests;
