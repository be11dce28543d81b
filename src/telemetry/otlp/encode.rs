//! Converts spans to the types of the OpenTelemetry crates.

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::trace::{Attribute, Context, Kind, Span};

/// Converts a span for its export.
pub(super) fn span(span: &Span) -> SpanData {
    let attributes = span.attributes.iter().map(|(name, value)| KeyValue::new(*name, attribute(value))).collect();
    let mut links = SpanLinks::default();
    links.links = span.links.iter().map(|link| Link::with_context(context(*link, true, None))).collect();
    SpanData {
        span_context: context(span.context, false, span.state.as_deref()),
        parent_span_id: SpanId::from(span.parent.map_or(0, |parent| parent.span_id)),
        parent_span_is_remote: span.parent.is_some_and(|parent| parent.is_remote),
        span_kind: match span.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Consumer => SpanKind::Consumer,
            Kind::Client => SpanKind::Client,
        },
        name: span.name.into(),
        start_time: span.began.into(),
        end_time: span.ended.into(),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.failed.as_ref().map_or(Status::Unset, |why| Status::error(why.clone())),
        instrumentation_scope: InstrumentationScope::builder("propulsiond")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn context(context: Context, is_remote: bool, state: Option<&str>) -> SpanContext {
    let state = state.and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let flags = TraceFlags::new(context.flags());
    SpanContext::new(TraceId::from(context.trace_id), SpanId::from(context.span_id), flags, is_remote, state)
}

fn attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Text(text) => Value::String(StringValue::from(std::sync::Arc::clone(text))),
        Attribute::Int(number) => Value::I64(*number),
    }
}
