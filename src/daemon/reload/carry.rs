//! The progress follows its pipeline into another store (C17).

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::checkpoint::{CheckpointStore, Owner};
use crate::connector::Context;
use crate::spec::{Checked, Progress};

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
    for listed in from.list(group, source).await? {
        let key = &listed.key;
        if let Some(parked) = from.parked() {
            let streams = parked.load(key).await?;
            anyhow::ensure!(
                streams.is_empty(),
                "events of {} streams of the tranche `{}` are parked in the old store",
                streams.len(),
                key.tranche
            );
        }
        // The old store is not read again before the pipeline goes back to it, and then its progress is replaced.
        let claimed = to.claim(key, owner).await?;
        if claimed.progress != listed.progress {
            to.set(key, claimed.fence, listed.progress.as_ref()).await?;
        }
        to.release(key, claimed.fence).await?;
        tracing::info!(%key, "progress carried over into the new store");
    }
    Ok(())
}
