//! Sink `http`: a request for each event, each span, or each emitted effect.
//!
//! * `per = "event"` sends an event as the JSON that a JSON-lines source reads. `per = "span"` sends a run of a stream's
//!   events as a RenderedSpan (spec/kafka.md §1); a filtered event in the middle ends a span. Unfolds are not sent.
//! * A handler emits `#{ body, path, method, headers }`, each of them optional. A `body` that is a string is sent as it is,
//!   any other value as JSON. `path` follows the url's own path, and cannot leave it.
//! * `Idempotency-Key` is `group/stream:index` for an event and `group/stream:first-next` for a span. It is
//!   `group/stream:index#n` for effect n, counted from 0, of an event of `handle_event`, and `group/stream:first-next#n`
//!   for effect n of any other decision (C24). An unfold is named `index`, `u` and its ordinal. A handler whose decisions
//!   differ between two calls for the same events must set the header itself. The key is percent-encoded where a header
//!   requires it; so is `%`.
//! * The requests of a decision go out one after the other, and the first failure ends it. Accepted requests are not
//!   repeated (C28). All effects of a decision are checked before the first request leaves.
//!
//! | answer | class (design.md §3.4) |
//! |---|---|
//! | in `success` | written |
//! | 429 | throttled |
//! | 408 | timed out |
//! | 401, 407, 502, 503, 504 | unavailable: no event is at fault |
//! | in `permanent`, or a redirect, which the sink never follows | permanent |
//! | any other | transient |
//! | no connection (refused, unknown host, TLS) | unavailable |
//! | a connection that breaks later | transient: the request may be the cause |
//!
//! The sink honours `Retry-After` up to an hour.
//!
//! A request carries a W3C trace context (`traceparent`, `tracestate`). If traces are exported and the call is recorded, it
//! is the request's own span. Otherwise it comes from the metadata of the first event that has a valid one; for emitted
//! effects, these are the events of the call. A header that is set elsewhere stays.
//!
//! ```toml
//! [sink.http]
//! url = "${WEBHOOK_URL:-http://127.0.0.1:8080}"
//! path = "/orders/{id}"                        # {stream}, {category}, {id}, after a literal directory
//! per = "event"                                # event | span
//! method = "POST"
//! headers = { X-Api-Key = "${API_KEY:-none}" }
//! auth = { bearer = "${TOKEN:-none}" }         # or { basic = { user = "u", password = "${PASSWORD}" } }
//! timeout = "30s"                              # for the whole request
//! connect_timeout = "5s"
//! success = ["2xx", 409]
//! permanent = ["4xx"]
//! max_body = "10MiB"                           # of a request
//! trace_context = true
//! ```

mod client;
mod kind;
mod request;
mod response;
mod settings;
mod sink;
mod target;
mod tracing;

use reqwest::header;

use self::target::Target;
use super::BadSetting;
use crate::effect::Value;
use crate::handler::{HandlerError, HandlerErrorKind};

pub use settings::{Auth, Basic, Hidden, Per, Settings, Status, Statuses};
pub use sink::HttpSink;

/// Checks emitted effects without sending them, for the tests of a handler.
///
/// # Errors
/// The message with which the sink would refuse them.
pub fn check_effects(stream: &str, effects: &[Value]) -> Result<(), HandlerError> {
    request::check_effects(stream, effects)
}

/// Returns the settings that are invalid on their own. Skips texts with missing variables if those are allowed.
pub fn check(settings: &Settings) -> Vec<BadSetting> {
    let mut bad = Vec::new();
    if !settings.url.is_hole() {
        bad.extend(Target::new(settings).err());
    }
    if !settings.method.is_hole() {
        bad.extend(request::method(settings).err());
    }
    bad.extend(request::fixed_headers(settings).into_iter().filter_map(Result::err));
    bad.extend(settings.proxy.as_ref().filter(|proxy| !proxy.is_hole()).and_then(|proxy| client::proxy(proxy).err()));
    let durations = [("timeout", settings.timeout), ("connect_timeout", settings.connect_timeout)];
    for (key, _) in durations.into_iter().filter(|(_, duration)| duration.is_zero()) {
        bad.push(BadSetting::new(&[key], format!("`{key}` must be greater than 0")));
    }
    bad
}

/// Returns whether a header belongs to the connection or the body, so that no pipeline may set it.
fn is_reserved(name: &header::HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name)
}

fn permanent(why: impl Into<String>) -> HandlerError {
    HandlerError::new(HandlerErrorKind::Permanent, why)
}
