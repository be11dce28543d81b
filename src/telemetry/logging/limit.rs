//! The layer that holds repeated lines back.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit, display};
use tracing::{Event, Level, Subscriber, error, span, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::AUDIT;
use super::repeats::{Kind, Repeats, Summary};
use crate::clock::Clock;

/// The target of summaries, which are not limited themselves.
const SUMMARY: &str = "propulsiond::repeated";

/// Holds repeated warnings and errors back, for all layers below it.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    clock: Clock,
    repeats: Arc<Mutex<Repeats>>,
}

/// The pipeline that a span names.
struct SpanPipeline(Arc<str>);

impl Limit {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, repeats: Arc::default() }
    }

    pub(super) fn write_due(&self) {
        let due = self.repeats().take_due(self.clock.now());
        due.into_iter().for_each(write);
    }

    pub(super) fn write_all(&self) {
        let all = self.repeats().take_all();
        all.into_iter().for_each(write);
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(Summary { level, pipeline, message, count }: Summary) {
    let pipeline = pipeline.as_deref().map(display);
    let times = if count == 1 { "time" } else { "times" };
    if level == Level::ERROR {
        error!(target: SUMMARY, parent: None, pipeline, "{message} (repeated {count} {times})");
    } else {
        warn!(target: SUMMARY, parent: None, pipeline, "{message} (repeated {count} {times})");
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Limit {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut pipeline = FieldText::of("pipeline");
        attributes.record(&mut pipeline);
        if let (Some(pipeline), Some(span)) = (pipeline.text, context.span(id)) {
            span.extensions_mut().insert(SpanPipeline(pipeline.into()));
        }
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || [SUMMARY, AUDIT].contains(&metadata.target()) {
            return true;
        }
        let kind = Kind { callsite: metadata.callsite(), pipeline: pipeline_of(event, &context) };
        let now = self.clock.now();
        let message = || FieldText::of("message").read(event).unwrap_or_default();
        self.repeats().admit(kind, *metadata.level(), message, now)
    }
}

fn pipeline_of<S>(event: &Event<'_>, context: &Context<'_, S>) -> Option<Arc<str>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let of_spans = || {
        let mut spans = context.event_scope(event)?;
        spans.find_map(|span| span.extensions().get::<SpanPipeline>().map(|named| Arc::clone(&named.0)))
    };
    FieldText::of("pipeline").read(event).map(Into::into).or_else(of_spans)
}

/// Reads one field as text.
struct FieldText {
    name: &'static str,
    text: Option<String>,
}

impl FieldText {
    fn of(name: &'static str) -> Self {
        Self { name, text: None }
    }

    fn read(mut self, event: &Event<'_>) -> Option<String> {
        event.record(&mut self);
        self.text
    }
}

impl Visit for FieldText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.name {
            self.text = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.name {
            self.text = Some(format!("{value:?}"));
        }
    }
}
