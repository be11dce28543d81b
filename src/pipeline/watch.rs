//! Watches a source for changes of its tranches, in a task of its own.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::OUTAGE;
use super::driver::Event;
use super::policy;
use crate::source::{Changes, Source, SourceErrorKind};

/// Runs [`Source::watch`] until the pipeline stops. Reports each error, waits, and calls again.
pub(super) async fn watch(
    source: Arc<dyn Source>,
    changes: Changes,
    events: mpsc::Sender<Event>,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut failures = 0;
    while let Err(error) = source.watch(&changes).await {
        failures += 1;
        let is_last = error.kind == SourceErrorKind::PositionLost;
        let retry_in = policy::source_delay(&error, failures, &OUTAGE, &mut random);
        if events.send(Event::WatchFailed { error, retry_in, failures }).await.is_err() || is_last {
            break;
        }
        tokio::time::sleep(retry_in).await;
    }
    // No change can follow. The task stays, as a source's task that ends by itself counts as failed.
    std::future::pending().await
}
