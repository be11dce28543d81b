//! Parked events in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::faults::Operation;
use super::{MemoryCheckpoints, State, names};
use crate::checkpoint::{CheckpointError, CheckpointKey, Fence, Parked, ParkedStore, ParkedStream};
use crate::event::Event;
use crate::position::Ordinal;

/// The queues of a tranche's parked streams, by name.
pub(super) type Streams = BTreeMap<Box<str>, Queue>;

#[derive(Debug)]
pub(super) struct Queue {
    from: Ordinal,
    /// The events by ordinal, index and whether they are unfolds.
    events: BTreeMap<(Ordinal, i64, bool), (Event, Arc<str>)>,
}

impl State {
    /// Appends the events that are not stored yet (C21).
    pub(super) fn park(
        &mut self,
        key: &CheckpointKey,
        fence: Fence,
        events: &[Parked<'_>],
    ) -> Result<(), CheckpointError> {
        self.owned(key, fence)?;
        let streams = self.parked.entry(names(key)).or_default();
        for &Parked { event, from, why } in events {
            let queue = streams.entry(event.stream().into()).or_insert_with(|| Queue { from, events: BTreeMap::new() });
            queue.from = queue.from.min(from);
            let place = (event.at(), event.index(), event.is_unfold());
            queue.events.entry(place).or_insert_with(|| (event.clone(), Arc::from(why)));
        }
        Ok(())
    }
}

#[async_trait]
impl ParkedStore for MemoryCheckpoints {
    async fn load(&self, key: &CheckpointKey) -> Result<Vec<ParkedStream>, CheckpointError> {
        let load = |state: &mut State| {
            let streams = state.parked.get(&names(key)).into_iter().flatten();
            let parked = streams.filter_map(|(stream, queue)| {
                let (_, why) = queue.events.values().next()?;
                let events = queue.events.len() as u64;
                Some(ParkedStream { stream: stream.clone(), first: queue.from, events, why: Arc::clone(why) })
            });
            Ok(parked.collect())
        };
        self.operate(Operation::Parked(key), &format!("load the parked streams of {key}"), load).await
    }

    async fn append(&self, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) -> Result<(), CheckpointError> {
        let append = |state: &mut State| state.park(key, fence, events);
        self.operate(Operation::Parked(key), &format!("park events of {key}"), append).await
    }

    async fn read(&self, key: &CheckpointKey, stream: &str) -> Result<Vec<Event>, CheckpointError> {
        let read = |state: &mut State| {
            let queue = state.parked.get(&names(key)).and_then(|streams| streams.get(stream));
            Ok(queue.into_iter().flat_map(|queue| queue.events.values()).map(|(event, _)| event.clone()).collect())
        };
        self.operate(Operation::Parked(key), &format!("read parked events of {key}"), read).await
    }
}
