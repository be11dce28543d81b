//! Sink `http`: a request for each event, each span, or each thing that the handler emitted.
//!
//! * `per = "event"` sends an event as the JSON that a JSON-lines source reads, `per = "span"` a run of a stream's
//!   events as a RenderedSpan (spec/kafka.md §1). Events that a filter took out of the middle end a span. Unfolds are
//!   not sent.
//! * A handler emits `#{ body, path, method, headers }`, each of them optional: a `body` that is a string is sent as it
//!   is, anything else as JSON; `path` follows the url's own, which it cannot leave.
//! * `Idempotency-Key` is `group/stream:index` for an event and `group/stream:first-next` for a span (C24); for what
//!   was emitted `group/stream:first-next#n`, n counting from 0 the effects of that decision. A handler that does not
//!   decide the same about the same events must give the header itself. A `%` in it, and what a header cannot hold,
//!   is percent-encoded.
//! * The requests of a decision go out one after the other, and the first failure ends it. Of events, what was
//!   accepted before counts as written. Effects are all checked before the first leaves.
//!
//! What an answer means (design.md §3.4): success is taken; 429 is throttled; 408 timed out; 401, 407, 502, 503 and 504
//! are unavailable, as no event is to blame; what `permanent` holds is permanent, as are redirects, which are never
//! followed; all else is transient. `Retry-After` is honoured, up to an hour. Where no connection comes about (refused,
//! no such host, TLS) the sink is unavailable; one that breaks later is transient, as the request may be the cause.
//!
//! A request carries the W3C trace context (`traceparent`, `tracestate`) that the first of its events has in its metadata,
//! if that is valid and nothing else sets the header; where traces are exported and the call is recorded, the request's
//! own span. For what was emitted, the events are those that the handler was called with.
//!
//! ```toml
//! [sink.http]
//! url = "${WEBHOOK_URL:-http://127.0.0.1:8080}"
//! path = "/orders/{id}"                        # of {stream}, {category}, {id}, after a literal folder
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

mod answer;
mod kind;
mod outgoing;
mod settings;
mod target;
mod tracing;

use std::fmt;

use async_trait::async_trait;
use reqwest::{Client, header};

use self::answer::Judge;
use self::outgoing::{Maker, Outgoing, pieces};
use self::target::Target;
use super::{BadSetting, Context};
use crate::effect::Value;
use crate::event::Event;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::http_client;
use crate::sink::{Decided, Effects, Sink, Written};
use crate::work::Work;

/// Checks what a handler emitted, without sending it.
///
/// # Errors
/// What the sink would say.
pub fn check_effects(stream: &str, effects: &[Value]) -> Result<(), HandlerError> {
    outgoing::check_effects(stream, effects)
}

pub use settings::{Auth, Basic, Hidden, Per, Settings, Status, Statuses};

/// Returns what of the settings cannot be used. What refers to missing variables is not judged where those are allowed.
pub fn check(settings: &Settings) -> Vec<BadSetting> {
    let mut bad = Vec::new();
    if !settings.url.is_hole() {
        bad.extend(Target::new(settings).err());
    }
    if !settings.method.is_hole() {
        bad.extend(outgoing::method(settings).err());
    }
    bad.extend(outgoing::fixed_headers(settings).into_iter().filter_map(Result::err));
    bad.extend(settings.proxy.as_ref().filter(|proxy| !proxy.is_hole()).and_then(|proxy| proxy_of(proxy).err()));
    let durations = [("timeout", settings.timeout), ("connect_timeout", settings.connect_timeout)];
    for (key, _) in durations.into_iter().filter(|(_, duration)| duration.is_zero()) {
        bad.push(BadSetting::new(&[key], format!("`{key}` must be more than nothing")));
    }
    bad
}

fn proxy_of(proxy: &Hidden) -> Result<reqwest::Proxy, BadSetting> {
    reqwest::Proxy::all(proxy.expose()).map_err(|_| BadSetting::new(&["proxy"], "`proxy` is not a url"))
}

/// See the module's documentation.
pub struct HttpSink {
    client: Client,
    maker: Maker,
    judge: Judge,
    trace_context: bool,
}

impl HttpSink {
    /// Connects to nothing: that is for the first write, which can be tried again.
    pub fn new(settings: &Settings, context: &Context) -> anyhow::Result<Self> {
        let target = Target::new(settings)?;
        let client = client(settings, &target)?;
        let judge = Judge::new(settings, &target);
        let maker = Maker::new(settings, context, target)?;
        Ok(Self { client, maker, judge, trace_context: settings.trace_context })
    }

    async fn write_one(&self, decided: &Decided) -> Result<Written, HandlerError> {
        match &decided.effects {
            Effects::Events => self.send_events(&decided.work).await,
            Effects::Emitted(values) => self.send_emitted(decided, values).await,
        }
    }

    async fn send_events(&self, work: &Work) -> Result<Written, HandlerError> {
        // In read order (`order = "tranche"`) an index below says nothing about those that come later.
        let ascending = work.events.is_sorted_by_key(Event::index);
        let mut accepted = None;
        for piece in pieces(self.maker.per(), &work.events) {
            let sent = match self.maker.piece(piece) {
                Ok(outgoing) => self.send(outgoing, work, piece).await,
                Err(error) => Err(error),
            };
            match (sent, accepted, piece) {
                (Ok(()), ..) => accepted = piece.last().map(Event::next_index),
                (Err(_), Some(next), _) if ascending => return Ok(Written::Upto(next)),
                (Err(error), _, [event]) => return Err(error.at_index(event.index())),
                (Err(error), ..) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    async fn send_emitted(&self, decided: &Decided, values: &[Value]) -> Result<Written, HandlerError> {
        // An earlier write of this decision sent the first ones. The others keep their numbers, and so their keys (C28).
        let rest = values.iter().enumerate().skip(decided.accepted);
        let made = rest.map(|(number, value)| self.maker.emitted(decided, number, value));
        let outgoing = made.collect::<Result<Vec<_>, _>>()?;
        for (sent, outgoing) in outgoing.into_iter().enumerate() {
            let sending = self.send(outgoing, &decided.work, &decided.work.events).await;
            sending.map_err(|error| error.after_effects(decided.accepted + sent))?;
        }
        Ok(Written::All)
    }

    /// Sends the request that these events of a piece of work are the cause of.
    async fn send(&self, outgoing: Outgoing, work: &Work, events: &[Event]) -> Result<(), HandlerError> {
        let span = tracing::open(work, &outgoing);
        let Outgoing { method, url, mut headers, body, shown } = outgoing;
        if self.trace_context {
            tracing::propagate(&mut headers, span.as_ref(), events);
        }
        let sent = self.client.request(method, url).headers(headers).body(body).send().await;
        let status = sent.as_ref().ok().map(|answer| answer.status().as_u16());
        let judged = match sent {
            Ok(answer) => self.judge.answer(answer).await,
            Err(error) => Err(answer::failed(&error)),
        };
        tracing::end(span, status, &judged);
        judged.map_err(|verdict| verdict.into_error(&shown))
    }
}

/// Leaves the client out, which may know a proxy's password.
impl fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSink").field("maker", &self.maker).field("judge", &self.judge).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for HttpSink {
    fn max_batch(&self) -> usize {
        1
    }

    /// Requests are independent: `concurrency` alone limits them.
    fn window(&self) -> usize {
        usize::MAX
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let mut results = Vec::with_capacity(decided.len());
        for decided in decided {
            results.push(self.write_one(decided).await);
        }
        results
    }
}

fn client(settings: &Settings, target: &Target) -> anyhow::Result<Client> {
    let tls = target.is_tls() || settings.proxy.is_some();
    let mut builder = http_client::client(tls, settings.timeout, settings.connect_timeout);
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(proxy_of(proxy)?);
    }
    builder.build().map_err(|error| anyhow::anyhow!("make the HTTP client: {}", http_client::chain(&error)))
}

/// Returns whether a header belongs to the connection or to the body, and so is not for people to set.
fn is_reserved(name: &header::HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name)
}

fn permanent(why: impl Into<String>) -> HandlerError {
    HandlerError::new(HandlerErrorKind::Permanent, why)
}
