//! The sink.

use std::fmt;

use async_trait::async_trait;
use reqwest::Client;

use super::request::{Maker, Outgoing, pieces};
use super::response::{self, Judge};
use super::target::Target;
use super::{Settings, client, tracing};
use crate::connector::Context;
use crate::effect::Value;
use crate::event::Event;
use crate::handler::HandlerError;
use crate::sink::{Decided, Effects, Sink, Written};
use crate::work::Work;

/// Sends requests, one after the other for each decision.
pub struct HttpSink {
    client: Client,
    maker: Maker,
    judge: Judge,
    trace_context: bool,
}

impl HttpSink {
    /// Connects to nothing yet. A server that cannot be reached fails the writes, which the pipeline retries.
    pub fn new(settings: &Settings, context: &Context) -> anyhow::Result<Self> {
        let target = Target::new(settings)?;
        let client = client::client(settings, &target)?;
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
        // With `order = "tranche"` the events come in read order. An index then tells nothing about the later ones.
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
            let number = decided.accepted + sent;
            let cause = decided.cause(number).map(|cause| std::slice::from_ref(cause.event));
            let sending = self.send(outgoing, &decided.work, cause.unwrap_or(&decided.work.events)).await;
            sending.map_err(|error| error.after_effects(number).at_known_index(decided.index_of(number)))?;
        }
        Ok(Written::All)
    }

    /// Sends one request. `events` are its cause within `work`.
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
            Err(error) => Err(response::failed(&error)),
        };
        tracing::end(span, status, &judged);
        judged.map_err(|error| error.into_handler_error(&shown))
    }
}

/// Omits the client, which may know a proxy's password.
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
