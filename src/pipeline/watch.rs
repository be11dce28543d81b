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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::event::Indexes;
    use crate::position::{Ahead, StartAt, TrancheId};
    use crate::source::{Contract, SourceError, SourceErrorKind, TrancheChange, TrancheReader};

    /// A source whose calls of `watch` report a change, and then end with these results.
    struct Scripted(Mutex<VecDeque<Result<(), SourceError>>>);

    #[async_trait]
    impl Source for Scripted {
        fn contract(&self) -> Contract {
            Contract { ordinals: true, indexes: Indexes::Dense, repeats: false }
        }

        async fn watch(&self, changes: &Changes) -> Result<(), SourceError> {
            let result = self.0.lock().unwrap().pop_front().expect("no further call is expected");
            changes.report(TrancheChange::Settled).await;
            result
        }

        fn open(&self, _tranche: &TrancheId, _from: StartAt, _ahead: Option<Ahead>) -> Box<dyn TrancheReader> {
            unreachable!("the test does not read")
        }
    }

    /// Watches a source until it is quiet for an hour. Returns the reported failures, and the number of changes.
    async fn watched(results: Vec<Result<(), SourceError>>) -> (Vec<(u32, Option<Duration>)>, usize) {
        let (changes_in, mut changes) = Changes::channel();
        let (events_in, mut events) = mpsc::channel(10);
        let watch = watch(Arc::new(Scripted(Mutex::new(results.into()))), changes_in, events_in, 7);
        let ended = tokio::time::timeout(Duration::from_secs(3_600), watch).await;
        assert!(ended.is_err(), "the task stays");
        let mut failed = Vec::new();
        while let Ok(Event::WatchFailed { failures, retry_in, .. }) = events.try_recv() {
            failed.push((failures, retry_in));
        }
        (failed, std::iter::from_fn(|| changes.try_recv().ok()).count())
    }

    fn failed(kind: SourceErrorKind) -> Result<(), SourceError> {
        Err(SourceError::new(kind, "list the tranches"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_is_reported_and_called_again() {
        let results = vec![failed(SourceErrorKind::Unavailable), failed(SourceErrorKind::Unavailable), Ok(())];
        let (failures, changes) = watched(results).await;
        assert_eq!(failures.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
        assert!(failures.iter().all(|(_, retry_in)| retry_in.is_some_and(|delay| delay > Duration::ZERO)));
        assert_eq!(changes, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_says_itself_when_to_watch_it_again() {
        let delay = Duration::from_secs(77);
        let throttled = SourceError::new(SourceErrorKind::Throttled, "list the tranches").retry_after(delay);
        assert_eq!(watched(vec![Err(throttled), Ok(())]).await.0, [(1, Some(delay))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_lost_its_position_is_not_watched_again() {
        let (failures, changes) = watched(vec![failed(SourceErrorKind::PositionLost)]).await;
        assert_eq!((failures, changes), (vec![(1, None)], 1));
    }
}
