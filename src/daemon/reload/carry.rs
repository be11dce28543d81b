//! The progress and the parked streams follow their pipeline into another store (C17).

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::checkpoint::{
    CheckpointError, CheckpointKey, CheckpointStore, Fence, Listed, Owner, Parked, ParkedStore, ParkedStream,
    ParkedUpdate, QueueOrder, QueuePage, QueuedId,
};
use crate::connector::Context;
use crate::spec::{Checked, Progress};

/// The limits of a page of parked events on its way into the new store.
const PAGE_EVENTS: usize = 500;
const PAGE_BYTES: usize = 4 << 20;

/// Returns the work between two definitions of a pipeline: the progress is carried over if the store is another one and the
/// key is the same. `context` returns the surroundings of a definition.
pub(super) fn between(
    old: &Checked,
    new: &Checked,
    context: impl Fn(&Checked) -> Context,
) -> BoxFuture<'static, Result<(), String>> {
    let key = |checked: &Checked| (checked.definition.group().to_owned(), checked.definition.source_id());
    if key(old) != key(new) || !moves(old, new) {
        return std::future::ready(Ok(())).boxed();
    }
    let (from, to) = (store(old, &context(old)), store(new, &context(new)));
    let (owner, (group, source)) = (context(new).owner, key(new));
    async move {
        let carried = carry(&*from?, &*to?, &group, &source, &owner).await;
        carried.map_err(|error| format!("its progress cannot be carried over: {error:#}"))
    }
    .boxed()
}

/// Returns whether the definitions keep their progress in different places.
fn moves(old: &Checked, new: &Checked) -> bool {
    let (a, b) = (old.definition.spec(), new.definition.spec());
    let is_in_sink = |checked: &Checked| checked.definition.progress.is_sink();
    a.checkpoint != b.checkpoint || ((is_in_sink(old) || is_in_sink(new)) && a.sink != b.sink)
}

/// Opens the store of a definition. Connects to nothing yet.
pub(super) fn store(checked: &Checked, context: &Context) -> Result<Arc<dyn CheckpointStore>, String> {
    let store = match &checked.definition.progress {
        Progress::Store(store) => store.build(context),
        Progress::Sink(sink) => sink.build(context).map(|sink| sink.checkpoints()),
    };
    store.map_err(|error| format!("the checkpoint store cannot be opened: {error:#}"))
}

async fn carry(
    from: &dyn CheckpointStore,
    to: &dyn CheckpointStore,
    group: &str,
    source: &str,
    owner: &Owner,
) -> anyhow::Result<()> {
    let listed = from.list(group, source).await?;
    let (old, new) = (from.parked(), to.parked());
    if let (Some(old), None) = (&old, &new) {
        // Before anything changes in the new store.
        for Listed { key, .. } in &listed {
            let streams = old.load(key).await?.len();
            let tranche = &key.tranche;
            anyhow::ensure!(
                streams == 0,
                "events of {streams} streams of the tranche `{tranche}` are parked in the old store, and the new one cannot \
                 hold them (retry or discard them first)"
            );
        }
    }
    for Listed { key, progress, .. } in &listed {
        // The old store is not read again before the pipeline goes back to it, and then its contents are replaced.
        let before = from.last_commit(key).await?;
        let claimed = to.claim(key, owner).await?;
        let after = from.last_commit(key).await?;
        let fence = |last: Option<(Fence, u64)>| last.map(|(fence, _)| fence);
        // A claim that shows in the old store tells that both definitions name one store. Its streams stay as they are.
        let is_same = fence(before) != fence(after) && fence(after) == Some(claimed.fence);
        if let (Some(old), Some(new)) = (&old, &new)
            && !is_same
        {
            // Before the progress, so that a failure in between leaves no progress above missing events.
            carry_parked(&**old, &**new, key, claimed.fence).await?;
        }
        if claimed.progress != *progress {
            to.set(key, claimed.fence, progress.as_ref()).await?;
        }
        to.release(key, claimed.fence).await?;
        tracing::info!(%key, "progress carried over into the new store");
    }
    Ok(())
}

/// Replaces the parked streams of a claimed key by those of the old store. The requests of operators stay behind.
async fn carry_parked(
    old: &dyn ParkedStore,
    new: &dyn ParkedStore,
    key: &CheckpointKey,
    fence: Fence,
) -> Result<(), CheckpointError> {
    // A pipeline that comes back finds the streams that it left here.
    for stale in new.load(key).await? {
        let stream = &*stale.stream;
        loop {
            let events = new.read(key, stream, &page(None)).await?.events;
            let events: Vec<_> = events.iter().map(|queued| QueuedId::of(&queued.event)).collect();
            let is_empty = events.is_empty();
            let remove = ParkedUpdate::Remove { stream, events: &events };
            let updates = [remove, ParkedUpdate::Unpark { stream }];
            new.update(key, fence, &updates).await?;
            if is_empty {
                break;
            }
        }
    }
    for ParkedStream { stream, first: from, mark, .. } in old.load(key).await? {
        let mut after = None;
        loop {
            let events = old.read(key, &stream, &page(after)).await?.events;
            let Some(last) = events.last() else { break };
            after = Some(QueuedId::of(&last.event));
            // A discarded event is removed without being offered. A stream that keeps no event needs no mark any more.
            let kept = events.iter().filter(|queued| !queued.discarded);
            let kept: Vec<_> = kept.map(|queued| Parked { event: &queued.event, from, mark: &mark }).collect();
            new.append(key, fence, &kept).await?;
        }
    }
    Ok(())
}

fn page(after: Option<QueuedId>) -> QueuePage {
    QueuePage { order: QueueOrder::Ordinal, after, max_events: PAGE_EVENTS, max_bytes: PAGE_BYTES }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::checkpoint::{ParkedMark, ParkedState};
    use crate::connector::file::store::{FileCheckpoints, Settings};
    use crate::connector::memory::store::MemoryCheckpoints;
    use crate::connector::sqlite::{CheckpointSettings, SqliteCheckpoints};
    use crate::event::{Assembler, Event, Kind};
    use crate::position::{Ordinal, Position, Progress, TrancheId};

    const OWNER: &str = "the reload";

    fn key() -> CheckpointKey {
        CheckpointKey { group: "g".into(), source: "s".into(), tranche: TrancheId::new("0") }
    }

    fn mark(why: &str) -> ParkedMark {
        ParkedMark {
            state: ParkedState::Failed,
            class: "permanent".into(),
            why: why.into(),
            index: 3,
            event_type: "Placed".into(),
            since: OffsetDateTime::UNIX_EPOCH,
            attempts: 7,
            version: "v1".into(),
            due: Some(OffsetDateTime::UNIX_EPOCH),
            job: Some("j1".into()),
        }
    }

    fn event(stream: &str, number: u64) -> Event {
        let event = Assembler::new(stream, "Placed").data(&[b'x'; 100]);
        event.build(Kind::Event, Ordinal::new(number, 0), number.cast_signed()).unwrap()
    }

    /// Parks the events of some streams, and commits position 9.
    async fn park(store: &dyn CheckpointStore, streams: &[(&str, u64)]) {
        let fence = store.claim(&key(), &Owner("me".into())).await.unwrap().fence;
        let progress = Progress::at(Position::Number(9));
        store.set(&key(), fence, Some(&progress)).await.unwrap();
        for (stream, count) in streams {
            let mark = mark(stream);
            let events: Vec<_> = (10..10 + count).map(|number| event(stream, number)).collect();
            let from = Ordinal::new(8, 0);
            let parked: Vec<_> = events.iter().map(|event| Parked { event, from, mark: &mark }).collect();
            store.parked().unwrap().append(&key(), fence, &parked).await.unwrap();
        }
    }

    async fn carry_over(from: &dyn CheckpointStore, to: &dyn CheckpointStore) -> anyhow::Result<()> {
        carry(from, to, "g", "s", &Owner(OWNER.into())).await
    }

    async fn ordinals(store: &dyn CheckpointStore, stream: &str) -> Vec<u64> {
        let page = QueuePage { max_events: usize::MAX, max_bytes: usize::MAX, ..page(None) };
        let events = store.parked().unwrap().read(&key(), stream, &page).await.unwrap().events;
        events.iter().map(|queued| queued.event.at().major).collect()
    }

    fn context(directory: &std::path::Path) -> Context {
        Context::new("orders", directory, directory)
    }

    #[tokio::test]
    async fn c17_parked_streams_follow_the_progress_with_marks_and_events() {
        let directory = tempfile::tempdir().unwrap();
        let to = SqliteCheckpoints::new(&CheckpointSettings::default(), &context(directory.path()));
        let from = MemoryCheckpoints::default();
        let count = PAGE_EVENTS as u64 * 2 + 1;
        park(&from, &[("a-1", count), ("b-1", 1)]).await;
        park(&to, &[("a-1", 3), ("stale-1", 2)]).await;
        to.set(&key(), Fence(1), None).await.unwrap();
        carry_over(&from, &to).await.unwrap();
        let carried = to.parked().unwrap().load(&key()).await.unwrap();
        assert_eq!(carried, from.parked().unwrap().load(&key()).await.unwrap());
        assert_eq!(ordinals(&to, "a-1").await, (10..10 + count).collect::<Vec<_>>());
        assert_eq!(to.load(&key()).await.unwrap(), Some(Progress::at(Position::Number(9))));
        assert_eq!(to.list("g", "s").await.unwrap()[0].owner, None, "the claim is released");
    }

    #[tokio::test]
    async fn c17_parked_streams_stay_if_both_definitions_name_one_store() {
        let directory = tempfile::tempdir().unwrap();
        let open = || SqliteCheckpoints::new(&CheckpointSettings::default(), &context(directory.path()));
        let (from, to) = (open(), open());
        park(&from, &[("a-1", 3)]).await;
        carry_over(&from, &to).await.unwrap();
        assert_eq!(ordinals(&to, "a-1").await, [10, 11, 12]);
    }

    #[tokio::test]
    async fn c17_a_store_that_cannot_park_takes_no_progress_of_parked_streams() {
        let directory = tempfile::tempdir().unwrap();
        let to = FileCheckpoints::new(&Settings::default(), &context(directory.path()));
        let from = MemoryCheckpoints::default();
        park(&from, &[("a-1", 3)]).await;
        let refused = carry_over(&from, &to).await.unwrap_err().to_string();
        assert!(refused.starts_with("events of 1 streams of the tranche `0` are parked in the old store"), "{refused}");
        assert_eq!(to.load(&key()).await.unwrap(), None);
        let parked = from.parked().unwrap();
        let ids = [10, 11, 12].map(|number| QueuedId::of(&event("a-1", number)));
        let remove = ParkedUpdate::Remove { stream: "a-1", events: &ids };
        parked.update(&key(), Fence(1), &[remove, ParkedUpdate::Unpark { stream: "a-1" }]).await.unwrap();
        carry_over(&from, &to).await.unwrap();
        assert_eq!(to.load(&key()).await.unwrap(), Some(Progress::at(Position::Number(9))));
    }
}
