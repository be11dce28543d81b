//! Export of spans over OTLP: HTTP with protobuf, by the process' own HTTP client.
//!
//! One task takes spans from the recorder's queue and sends them in batches. Nobody waits for it: while the collector is away
//! the batch is sent again with growing delays, the queue fills up, and what finds no room is dropped and counted. When the
//! daemon stops, what is queued has a moment to leave.
//!
//! The exporters of the OpenTelemetry crates bring a client of their own, or a thread that blocks; what is used of them is
//! the encoding. Of the variables that others are set up by, only headers (`OTEL_EXPORTER_OTLP_HEADERS`) count, beside
//! those of the settings.

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

/// Spans that may wait.
const QUEUED: usize = 8_192;
/// The most spans of one request, and the longest time to gather them.
const BATCH: usize = 512;
const GATHERED: Duration = Duration::from_secs(1);
/// The time for the queued spans at a stop of the daemon. It is shorter than the time that a stop gives its tasks.
const LAST_WORDS: Duration = Duration::from_millis(800);
const OUTAGE: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) };

/// The collector, and the attributes of the exported spans.
#[derive(Clone, Debug)]
pub struct Options {
    /// The collector's url, `/v1/traces` not included.
    pub endpoint: String,
    pub headers: BTreeMap<String, Secret<String>>,
    /// The share of what carries no trace that is recorded, 0 to 1.
    pub sample: f64,
    pub service_name: String,
    /// More of what the service is told from others by.
    pub attributes: BTreeMap<String, String>,
    /// For a request.
    pub timeout: Duration,
}

/// Sends spans. Made by [`start`], run by a task.
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    /// The spans of the next request.
    batch: Vec<Span>,
    exporter: SpanExporter,
    client: Client,
    metrics: SpanMetrics,
}

/// Makes the recorder that takes spans, and what sends them. Connects to nothing.
///
/// # Errors
/// A header cannot be sent, or the endpoint is no url.
pub fn start(options: &Options, clock: Clock, metrics: SpanMetrics) -> anyhow::Result<(Recorder, Exporter)> {
    let client = Client::new(options)?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_endpoint(format!("{}/v1/traces", options.endpoint.trim_end_matches('/')))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(options.timeout)
        // It would sleep on this thread.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .context("export traces")?;
    exporter.set_resource(&resource(options));
    let (queue, spans) = mpsc::channel(QUEUED);
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
    /// Sends spans until told to stop, then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.send_all(&stop) => stop.cancelled().await,
            () = too_late => {
                let lost = self.batch.len() + self.spans.len();
                self.metrics.dropped(lost);
                tracing::warn!(spans = lost, "not all spans were exported before the end");
            }
        }
    }

    /// Ends when told to stop, or nobody is left who could record, and what was recorded is sent.
    async fn send_all(&mut self, stop: &CancellationToken) {
        let mut random = fastrand::Rng::new();
        let mut failures = 0;
        // A request in flight is not cancelled: its spans would be sent twice.
        while let Some(true) = stop.run_until_cancelled(self.gather()).await {
            match self.send().await {
                Sending::Done => failures = 0,
                Sending::Again => {
                    failures += 1;
                    let delay = OUTAGE.delay(failures, &mut random);
                    stop.run_until_cancelled(tokio::time::sleep(delay)).await;
                }
            }
        }
        self.spans.close();
        self.send_the_rest().await;
    }

    /// Adds to the batch what comes within a while of its first span, as much as one request carries. Returns whether there
    /// is anything to send.
    ///
    /// # Cancel safety
    /// Dropping the future leaves in the batch what was taken.
    async fn gather(&mut self) -> bool {
        if self.batch.is_empty() && self.spans.recv_many(&mut self.batch, BATCH).await == 0 {
            return false;
        }
        let full = async {
            while let room @ 1.. = BATCH - self.batch.len()
                && self.spans.recv_many(&mut self.batch, room).await > 0
            {}
        };
        // The spans gathered by then are enough.
        drop(tokio::time::timeout(GATHERED, full).await);
        true
    }

    async fn send_the_rest(&mut self) {
        while !self.batch.is_empty() || self.spans.recv_many(&mut self.batch, BATCH).await > 0 {
            if let Sending::Again = self.send().await {
                // There is no later: nor is there for what still waits.
                let lost = self.batch.len() + self.spans.len();
                while self.spans.recv_many(&mut self.batch, BATCH).await > 0 {}
                self.drop_batch();
                tracing::warn!(spans = lost, "not all spans were exported before the end");
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
            Some(Sent::Answered(status)) if is_for_now(status) => {
                tracing::warn!(status, "the collector is busy, spans wait");
                return Sending::Again;
            }
            Some(Sent::Failed(why)) => {
                tracing::warn!(error = why, "the collector cannot be reached, spans wait");
                return Sending::Again;
            }
            Some(Sent::Answered(status)) => {
                tracing::warn!(status, spans, "the collector did not accept spans, they are dropped");
            }
            None => tracing::warn!(%error, spans, "spans could not be encoded, they are dropped"),
        }
        self.drop_batch();
        Sending::Done
    }

    fn drop_batch(&mut self) {
        self.metrics.dropped(self.batch.len());
        self.batch.clear();
    }
}

/// The next step for a batch that was sent.
enum Sending {
    /// It was accepted, or never will be.
    Done,
    Again,
}

/// Returns whether a failure may pass, as OTLP has it.
fn is_for_now(status: u16) -> bool {
    matches!(status, 429 | 502..=504)
}
