//! Logs on standard error: lines of text, or JSON for collectors.
//!
//! A line has the time, the level, the message and its fields, then the fields of its spans (`pipeline`, `tranche`).
//! [`Repeats`] limits repeated warnings and errors: for each call site and pipeline, a few are shown in each [`WINDOW`], and
//! one line at its end counts the rest. Lines for [`AUDIT`] are always shown. Text escapes control characters, so that no
//! value can forge a line.

mod format;
mod limit;
mod repeats;

use std::io::{self, IsTerminal};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::clock::Clock;
use crate::config::settings::{LogFormat, LogSettings};
use limit::Limit;

pub use repeats::{Repeats, Summary, WINDOW};

/// The target of lines about skipped and parked events. All of them are shown (R33, R43).
pub const AUDIT: &str = "propulsiond::audit";

/// The error of a second initialization.
#[derive(Debug, thiserror::Error)]
#[error("logging is initialized already")]
pub struct SetupError(#[source] tracing_subscriber::util::TryInitError);

/// The summaries of repeated lines, to be written while the process runs.
#[derive(Clone, Debug)]
pub struct Logs {
    limit: Limit,
}

/// Sends log lines, panics included, to standard error from this call on.
///
/// # Errors
/// Logging is set up already.
pub fn start(settings: &LogSettings, clock: Clock) -> Result<Logs, SetupError> {
    let logs = Logs { limit: Limit::new(clock) };
    let colour = io::stderr().is_terminal();
    Registry::default()
        .with(settings.levels().filter())
        .with(logs.limit.clone())
        .with(lines(settings.format, colour, io::stderr))
        .try_init()
        .map_err(SetupError)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(logs)
}

impl Logs {
    /// Writes the summary of each window at its end, until `stop` is cancelled; then all others.
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

    /// Writes all summaries, before the process ends.
    pub fn summarise_all(&self) {
        self.limit.write_all();
    }
}

fn lines<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour && format == LogFormat::Text);
    match format {
        LogFormat::Text => layer.fmt_fields(format::TextFields).event_format(format::Text).boxed(),
        LogFormat::Json => layer.fmt_fields(JsonFields::new()).event_format(format::Json).boxed(),
    }
}

/// Logs a panic as a line, so that a collector of JSON can read it. The owner of the task or thread reacts to it.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let message = info.payload_as_str().unwrap_or("without a message");
    tracing::error!(location, thread = thread.name(), panic = message, "a task panicked");
}

#[cfg(test)]
pub(crate) mod tests;
