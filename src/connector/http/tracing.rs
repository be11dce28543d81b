//! The trace context of a request.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::request::Outgoing;
use super::response::ResponseError;
use crate::event::Event;
use crate::trace::{Kind, Open, Propagation};
use crate::work::Work;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Opens the span of a request, if its call has one.
pub(super) fn open(work: &Work, outgoing: &Outgoing) -> Option<Open> {
    let above = work.trace.as_ref()?.current();
    let mut span = above.child_now(Kind::Client);
    span.set("http.request.method", outgoing.method.as_str());
    span.set("server.address", outgoing.url.host_str().unwrap_or_default());
    span.set("server.port", i64::from(outgoing.url.port_or_known_default().unwrap_or_default()));
    span.set("url.path", outgoing.url.path());
    Some(span)
}

/// Ends the span with the result of the request.
pub(super) fn end(span: Option<Open>, status: Option<u16>, result: &Result<(), ResponseError>) {
    let Some(mut span) = span else { return };
    if let Some(status) = status {
        span.set("http.response.status_code", i64::from(status));
    }
    if let Err(error) = result {
        span.fail(error.kind().as_str(), error.why());
    }
    span.end_now("request");
}

/// Adds the trace context to a request's headers: that of its own span, or else that of the first event that has one. A
/// `traceparent` that the pipeline set stays.
pub(super) fn propagate(headers: &mut HeaderMap, span: Option<&Open>, events: &[Event]) {
    if headers.contains_key(TRACEPARENT) {
        return;
    }
    match span {
        Some(span) => insert(headers, &span.context().to_string(), span.state()),
        None => {
            if let Some(Propagation { context, state }) =
                events.iter().find_map(|event| Propagation::from_meta(event.meta()))
            {
                insert(headers, &context.to_string(), state.as_deref());
            }
        }
    }
}

fn insert(headers: &mut HeaderMap, parent: &str, state: Option<&str>) {
    headers.remove(TRACESTATE);
    for (name, value) in [(TRACEPARENT, Some(parent)), (TRACESTATE, state)] {
        // A valid context has only characters that a header can hold, so that none is lost here.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
}
