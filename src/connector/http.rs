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
//! ```

mod answer;
mod outgoing;
mod settings;
mod target;

use std::fmt;

use async_trait::async_trait;
use reqwest::{Client, header};

use self::answer::Judge;
use self::outgoing::{Maker, Outgoing, pieces};
use self::target::Target;
use super::Context;
use crate::event::Event;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::sink::{Decided, Effects, Sink, Written};
use crate::value::Value;
use crate::work::Work;

pub use settings::{Auth, Basic, Hidden, Per, Settings, Status, Statuses};

/// See the module's documentation.
pub struct HttpSink {
    client: Client,
    maker: Maker,
    judge: Judge,
}

impl HttpSink {
    /// Connects to nothing: that is for the first write, which can be tried again.
    pub fn new(settings: &Settings, context: &Context) -> anyhow::Result<Self> {
        let target = Target::new(settings)?;
        let client = client(settings, &target)?;
        let judge = Judge::new(settings, &target);
        Ok(Self { client, maker: Maker::new(settings, context, target)?, judge })
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
                Ok(outgoing) => self.send(outgoing).await,
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
        let made = values.iter().enumerate().map(|(number, value)| self.maker.emitted(decided, number, value));
        let outgoing = made.collect::<Result<Vec<_>, _>>()?;
        for outgoing in outgoing {
            self.send(outgoing).await?;
        }
        Ok(Written::All)
    }

    async fn send(&self, outgoing: Outgoing) -> Result<(), HandlerError> {
        let Outgoing { method, url, headers, body, shown } = outgoing;
        let sent = self.client.request(method, url).headers(headers).body(body).send().await;
        let judged = match sent {
            Ok(answer) => self.judge.answer(answer).await,
            Err(error) => Err(answer::failed(&error)),
        };
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

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        let mut results = Vec::with_capacity(decided.len());
        for decided in decided {
            results.push(self.write_one(decided).await);
        }
        results
    }
}

fn client(settings: &Settings, target: &Target) -> anyhow::Result<Client> {
    // Of several that start at once one installs it, and any will do.
    let _installed_already = rustls::crypto::ring::default_provider().install_default().is_err();
    let mut builder = Client::builder()
        .user_agent(concat!("propulsiond/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.timeout)
        .connect_timeout(settings.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false);
    builder = match &settings.proxy {
        Some(proxy) => {
            let proxy = reqwest::Proxy::all(proxy.expose()).map_err(|_| anyhow::anyhow!("`proxy` is not a url"))?;
            builder.proxy(proxy)
        }
        None => builder.no_proxy(),
    };
    if !target.is_tls() && settings.proxy.is_none() {
        // A container without certificates can still speak plain HTTP.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| anyhow::anyhow!("make the HTTP client: {}", answer::chain(&error)))
}

/// Returns whether a header belongs to the connection or to the body, and so is not for people to set.
fn is_reserved(name: &header::HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name)
}

fn permanent(why: impl Into<String>) -> HandlerError {
    HandlerError::new(HandlerErrorKind::Permanent, why)
}
