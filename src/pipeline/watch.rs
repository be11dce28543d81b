//! Watches a source for changes of its tranches, in a task of its own.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::messages::Event;
use super::policy::{self, BackEndReaction};
use crate::source::{Changes, Source};

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
        let retry_in = match policy::react_to_source(&error, failures, &mut random) {
            BackEndReaction::Retry(delay) => Some(delay),
            BackEndReaction::GiveUp { .. } | BackEndReaction::Halt => None,
        };
        if events.send(Event::WatchFailed { error, failures, retry_in }).await.is_err() {
            break;
        }
        let Some(delay) = retry_in else { break };
        tokio::time::sleep(delay).await;
    }
    // No change can follow. The task stays, as a source's task that ends by itself counts as failed.
    std::future::pending().await
}
