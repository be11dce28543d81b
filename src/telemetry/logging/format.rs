//! How one line looks.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::wall;

/// `2026-11-24T10:00:00.123Z WARN read failed, retrying attempt=2 pipeline="orders"`
pub(super) struct Text;

/// One object a line: `time`, `level`, `target`, `message`, then all fields, side by side.
pub(super) struct Json;

impl<S> FormatEvent<S, DefaultFields> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            write!(writer, "\u{1b}[2m{}\u{1b}[0m \u{1b}[{}m{level:>5}\u{1b}[0m ", time(), colour(level))?;
        } else {
            write!(writer, "{} {level:>5} ", time())?;
        }
        context.format_fields(writer.by_ref(), event)?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<DefaultFields>>()
                && !fields.is_empty()
            {
                write!(writer, " {fields}")?;
            }
        }
        writeln!(writer)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

impl<S> FormatEvent<S, JsonFields> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        let metadata = event.metadata();
        line.put("time", time());
        line.put("level", metadata.level().as_str());
        line.put("target", metadata.target());
        event.record(&mut line);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>()
                && let Ok(fields) = serde_json::from_str::<Map<String, Value>>(fields)
            {
                // What is nearer to the event hides what is farther.
                fields.into_iter().for_each(|(name, value)| _ = line.0.entry(name).or_insert(value));
            }
        }
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

fn time() -> String {
    let now = wall();
    let (hour, minute, second, millisecond) = now.time().as_hms_milli();
    // Always three digits, so that lines of text stay aligned.
    format!("{}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z", now.date())
}

#[derive(Default)]
struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field.name(), value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}
