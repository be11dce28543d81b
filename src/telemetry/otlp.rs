//! Exports spans over OTLP: HTTP with protobuf, by the process' own HTTP client.
//!
//! One task takes spans from the recorder's queue and sends them in batches. No other task waits for it. While the
//! collector is unavailable, the task retries a batch with growing delays. The queue then fills up, and further spans
//! are dropped and counted. At a stop of the daemon, the task sends the queued spans within [`FINAL_SEND_TIME`].
//!
//! The exporters of the OpenTelemetry crates bring an HTTP client of their own, or a thread that blocks. This module
//! uses their encoding only. Of the `OTEL_*` variables it reads `OTEL_EXPORTER_OTLP_HEADERS`, beside those that the
//! settings name.

mod client;
mod encode;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::secret::Secret;
use crate::runtime::retry::Backoff;
use crate::telemetry::metrics::SpanMetrics;
use crate::trace::{Recorder, Span};
use client::{Client, Sent};

/// The capacity of the queue of spans.
const QUEUE_CAPACITY: usize = 8_192;
/// The maximum number of spans in a request, and the longest time to gather them.
const MAX_REQUEST_SPANS: usize = 512;
const MAX_GATHER_TIME: Duration = Duration::from_secs(1);
/// The time to send the queued spans at a stop of the daemon. It is shorter than the grace period of tasks.
const FINAL_SEND_TIME: Duration = Duration::from_millis(800);
const RETRY_DELAYS: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) };

/// The collector, and the attributes of the exported spans.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The collector's URL without `/v1/traces`.
    pub endpoint: String,
    pub headers: BTreeMap<String, Secret<String>>,
    /// The sampling ratio (0 to 1) for calls whose events carry no trace.
    pub sample: f64,
    pub service_name: String,
    /// Further resource attributes of the service.
    pub attributes: BTreeMap<String, String>,
    /// The timeout of a request.
    pub timeout: Duration,
}

/// The task that sends spans. [`start`] creates it.
pub(crate) struct Exporter {
    spans: mpsc::Receiver<Span>,
    /// The spans of the next request.
    batch: Vec<Span>,
    exporter: SpanExporter,
    client: Client,
    metrics: SpanMetrics,
}

/// Creates the recorder of spans and their exporter. Opens no connection.
///
/// # Errors
/// A header is invalid, or the endpoint is no URL.
pub(crate) fn start(options: &Options, clock: Clock, metrics: SpanMetrics) -> anyhow::Result<(Recorder, Exporter)> {
    let client = Client::new(options)?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_endpoint(format!("{}/v1/traces", options.endpoint.trim_end_matches('/')))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(options.timeout)
        // The encoder's own retries would sleep on this thread.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .context("export traces")?;
    exporter.set_resource(&resource(options));
    let (queue, spans) = mpsc::channel(QUEUE_CAPACITY);
    let dropped = metrics.clone();
    let recorder = Recorder::new(clock, options.sample, queue, move || dropped.dropped(1));
    Ok((recorder, Exporter { spans, batch: Vec::new(), exporter, client, metrics }))
}

fn resource(options: &Options) -> Resource {
    let attributes = options.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_service_name(options.service_name.clone())
        .with_attributes(attributes)
        .build()
}

impl Exporter {
    /// Sends spans until `stop` is cancelled, then sends the rest.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(FINAL_SEND_TIME).await;
        };
        tokio::select! {
            () = self.send_all(&stop) => stop.cancelled().await,
            () = too_late => {
                let lost = self.batch.len() + self.spans.len();
                self.metrics.dropped(lost);
                tracing::warn!(spans = lost, "the daemon stops, unsent spans are dropped");
            }
        }
    }

    /// Sends batches until `stop` is cancelled or all recorders are dropped.
    async fn send_all(&mut self, stop: &CancellationToken) {
        let mut random = fastrand::Rng::new();
        let mut failures = 0;
        // A request in flight is not cancelled: its spans would be sent twice.
        while let Some(true) = stop.run_until_cancelled(self.gather()).await {
            match self.send().await {
                Sending::Done => failures = 0,
                Sending::Again => {
                    failures += 1;
                    let delay = RETRY_DELAYS.delay(failures, &mut random);
                    stop.run_until_cancelled(tokio::time::sleep(delay)).await;
                }
            }
        }
        self.spans.close();
        self.send_the_rest().await;
    }

    /// Adds to the batch the spans that arrive within [`MAX_GATHER_TIME`] of the first, up to one request. Returns whether the
    /// batch holds a span.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the received spans in the batch.
    async fn gather(&mut self) -> bool {
        if self.batch.is_empty() && self.spans.recv_many(&mut self.batch, MAX_REQUEST_SPANS).await == 0 {
            return false;
        }
        let full = async {
            while let room @ 1.. = MAX_REQUEST_SPANS - self.batch.len()
                && self.spans.recv_many(&mut self.batch, room).await > 0
            {}
        };
        // A timeout ends the gathering. The spans received so far make the batch.
        drop(tokio::time::timeout(MAX_GATHER_TIME, full).await);
        true
    }

    async fn send_the_rest(&mut self) {
        while !self.batch.is_empty() || self.spans.recv_many(&mut self.batch, MAX_REQUEST_SPANS).await > 0 {
            if let Sending::Again = self.send().await {
                // There is no time for a retry, neither of this batch nor of the queued spans.
                let lost = self.batch.len() + self.spans.len();
                while self.spans.recv_many(&mut self.batch, MAX_REQUEST_SPANS).await > 0 {}
                self.drop_batch();
                tracing::warn!(spans = lost, "the daemon stops, unsent spans are dropped");
            }
        }
    }

    /// Sends the batch once.
    async fn send(&mut self) -> Sending {
        let result = self.exporter.export(self.batch.iter().map(encode::span).collect()).await;
        let spans = self.batch.len();
        let Err(error) = result else {
            self.metrics.exported(spans);
            self.batch.clear();
            return Sending::Done;
        };
        match self.client.sent() {
            Some(Sent::Answered(status)) if is_transient(status) => {
                tracing::warn!(status, "the collector is busy, retrying");
                return Sending::Again;
            }
            Some(Sent::Failed(why)) => {
                tracing::warn!(error = why, "the collector is unavailable, retrying");
                return Sending::Again;
            }
            Some(Sent::Answered(status)) => {
                tracing::warn!(status, spans, "the collector rejected spans, dropping them");
            }
            None => tracing::warn!(%error, spans, "cannot encode spans, dropping them"),
        }
        self.drop_batch();
        Sending::Done
    }

    fn drop_batch(&mut self) {
        self.metrics.dropped(self.batch.len());
        self.batch.clear();
    }
}

/// The outcome for a batch after a request.
enum Sending {
    /// The collector accepted it, or rejected it for good.
    Done,
    Again,
}

/// Returns whether OTLP calls a status transient.
fn is_transient(status: u16) -> bool {
    matches!(status, 429 | 502..=504)
}
