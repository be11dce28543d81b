//! Parked streams in memory: their marks and their events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::faults::Operation;
use super::{MemoryCheckpoints, Names, State, names};
use crate::checkpoint::{
    CheckpointError, CheckpointErrorKind, CheckpointKey, DueStream, Fence, KEPT_JOBS, NewBody, Parked, ParkedAction,
    ParkedJob, ParkedMark, ParkedOrder, ParkedPage, ParkedQuery, ParkedRequest, ParkedSelection, ParkedStore,
    ParkedStream, ParkedUpdate, QueueOrder, QueuePage, QueueRead, QueuedEvent, QueuedId, parked_bytes,
};
use crate::event;
use crate::position::{Ordinal, TrancheId};

/// The parked streams of a tranche, by name.
pub(super) type Streams = BTreeMap<Box<str>, Queue>;
/// The requests of operators, the newest last. Their counts come from the marks.
pub(super) type Jobs = VecDeque<ParkedJob>;

#[derive(Debug)]
pub(super) struct Queue {
    from: Ordinal,
    mark: ParkedMark,
    /// The events in [`QueueOrder::Ordinal`].
    events: BTreeMap<QueuedId, QueuedEvent>,
}

impl Queue {
    fn stream(&self, name: &str) -> ParkedStream {
        ParkedStream {
            stream: name.into(),
            first: self.from,
            events: self.events.len() as u64,
            bytes: self.events.values().map(|queued| parked_bytes(&queued.event) as u64).sum(),
            mark: self.mark.clone(),
        }
    }

    fn page(&self, page: &QueuePage) -> QueueRead {
        let is_after = |id: &QueuedId| page.after.is_none_or(|after| page.order.compare(id, &after).is_gt());
        let mut events: Vec<_> = self.events.iter().filter(|(id, _)| is_after(id)).collect();
        events.sort_by(|(a, _), (b, _)| page.order.compare(a, b));
        let mut bytes = 0;
        let fits = |(number, (_, queued)): &(usize, (&QueuedId, &QueuedEvent))| {
            bytes += parked_bytes(&queued.event);
            *number == 0 || (*number < page.max_events && bytes <= page.max_bytes)
        };
        let all = events.len();
        let events: Vec<_> =
            events.into_iter().enumerate().take_while(fits).map(|(_, (_, queued))| queued.clone()).collect();
        QueueRead { more: events.len() < all, events }
    }

    fn discard(&mut self, action: ParkedAction) {
        let first = match action {
            ParkedAction::Retry => return,
            ParkedAction::DiscardAll => None,
            ParkedAction::DiscardFirst => {
                let mut events: Vec<_> = self.events.keys().filter(|id| !id.is_unfold).copied().collect();
                events.sort_by(|a, b| QueueOrder::Index.compare(a, b));
                // An unfold alone would tell nothing of the event that it belongs to.
                events.first().filter(|_| events.len() > 1).copied()
            }
        };
        for (id, queued) in &mut self.events {
            queued.discarded |= first.is_none_or(|first| first == *id);
        }
    }
}

impl State {
    /// Appends the events that are not stored yet (C21). The caller has checked the fence.
    pub(super) fn append(&mut self, key: &CheckpointKey, events: &[Parked<'_>]) {
        let streams = self.parked.entry(names(key)).or_default();
        for &Parked { event, from, mark } in events {
            let new = || Queue { from, mark: mark.clone(), events: BTreeMap::new() };
            let queue = streams.entry(event.stream().into()).or_insert_with(new);
            queue.from = queue.from.min(from);
            let queued = || QueuedEvent { event: event.clone(), discarded: false };
            queue.events.entry(QueuedId::of(event)).or_insert_with(queued);
        }
    }

    /// Performs updates. The caller has checked the fence.
    pub(super) fn update(&mut self, key: &CheckpointKey, updates: &[ParkedUpdate<'_>]) {
        let streams = self.parked.entry(names(key)).or_default();
        for update in updates {
            let (ParkedUpdate::Remove { stream, .. }
            | ParkedUpdate::Mark { stream, .. }
            | ParkedUpdate::Unpark { stream }) = *update;
            let Some(queue) = streams.get_mut(stream) else { continue };
            match *update {
                ParkedUpdate::Remove { events, .. } => events.iter().for_each(|id| drop(queue.events.remove(id))),
                ParkedUpdate::Mark { mark, .. } => queue.mark = mark.clone(),
                ParkedUpdate::Unpark { .. } if queue.events.is_empty() => drop(streams.remove(stream)),
                ParkedUpdate::Unpark { .. } => {}
            }
        }
    }

    fn queue(&self, key: &CheckpointKey, stream: &str) -> Option<&Queue> {
        self.parked.get(&names(key))?.get(stream)
    }

    /// Returns the selected streams of a group and source, by tranche and name.
    fn selected(
        &mut self,
        group: &str,
        source: &str,
        selection: &ParkedSelection<'_>,
    ) -> impl Iterator<Item = (&str, &str, &mut Queue)> {
        let of_source = move |[of_group, of_source, _]: &Names| **of_group == *group && **of_source == *source;
        let tranches = self.parked.iter_mut().filter(move |(names, _)| of_source(names));
        let streams = tranches
            .flat_map(|(names, streams)| streams.iter_mut().map(|(stream, queue)| (&*names[2], &**stream, queue)));
        streams.filter(|(tranche, stream, queue)| selection.selects(tranche, stream, &queue.mark))
    }

    fn list(&mut self, group: &str, source: &str, query: &ParkedQuery<'_>) -> ParkedPage {
        let mut page = ParkedPage::default();
        for (tranche, name, queue) in self.selected(group, source, &query.selection) {
            let stream = queue.stream(name);
            page.total_streams += 1;
            page.total_events += stream.events;
            page.total_bytes += stream.bytes;
            if query.order == ParkedOrder::Due || query.after.is_none_or(|after| (tranche, name) > after) {
                page.streams.push((TrancheId::new(tranche), stream));
            }
        }
        if query.order == ParkedOrder::Due {
            page.streams.sort_by_key(|(_, stream)| (stream.mark.due.is_none(), stream.mark.due));
        }
        page.more = page.streams.len() > query.most;
        page.streams.truncate(query.most);
        page
    }

    fn request(
        &mut self,
        group: &str,
        source: &str,
        selection: &ParkedSelection<'_>,
        request: &ParkedRequest<'_>,
    ) -> u64 {
        let job: Arc<str> = request.job.into();
        let mut streams = 0;
        for (_, _, queue) in self.selected(group, source, &selection.for_request()) {
            streams += 1;
            queue.mark.due = Some(request.at);
            queue.mark.job = Some(Arc::clone(&job));
            queue.discard(request.action);
        }
        if streams == 0 {
            return 0;
        }
        let jobs = self.jobs.entry([group.into(), source.into()]).or_default();
        jobs.retain(|job| *job.id != *request.job);
        let (action, at) = (request.action, request.at);
        jobs.push_back(ParkedJob {
            id: request.job.into(),
            action,
            by: request.by.into(),
            at,
            streams,
            left: 0,
            failed: 0,
        });
        jobs.drain(..jobs.len().saturating_sub(KEPT_JOBS));
        streams
    }

    fn jobs(&mut self, group: &str, source: &str) -> Vec<ParkedJob> {
        let jobs = self.jobs.get(&[group.into(), source.into()]).into_iter().flatten();
        let mut jobs: Vec<_> = jobs.rev().cloned().collect();
        for (_, _, queue) in self.selected(group, source, &ParkedSelection::default()) {
            let Some(job) = jobs.iter_mut().find(|job| queue.mark.job.as_deref() == Some(&job.id)) else { continue };
            *(if queue.mark.due.is_some() { &mut job.left } else { &mut job.failed }) += 1;
        }
        jobs
    }
}

#[async_trait]
impl ParkedStore for MemoryCheckpoints {
    async fn load(&self, key: &CheckpointKey) -> Result<Vec<ParkedStream>, CheckpointError> {
        let load = |state: &mut State| {
            let streams = state.parked.get(&names(key)).into_iter().flatten();
            Ok(streams.map(|(stream, queue)| queue.stream(stream)).collect())
        };
        self.operate(Operation::Parked(key), &format!("load the parked streams of {key}"), load).await
    }

    async fn append(&self, key: &CheckpointKey, fence: Fence, events: &[Parked<'_>]) -> Result<(), CheckpointError> {
        let append = |state: &mut State| {
            state.owned(key, fence)?;
            state.append(key, events);
            Ok(())
        };
        self.operate(Operation::Parked(key), &format!("park events of {key}"), append).await
    }

    async fn update(
        &self,
        key: &CheckpointKey,
        fence: Fence,
        updates: &[ParkedUpdate<'_>],
    ) -> Result<(), CheckpointError> {
        let update = |state: &mut State| {
            state.owned(key, fence)?;
            state.update(key, updates);
            Ok(())
        };
        self.operate(Operation::Parked(key), &format!("update parked streams of {key}"), update).await
    }

    async fn read(&self, key: &CheckpointKey, stream: &str, page: &QueuePage) -> Result<QueueRead, CheckpointError> {
        let read = |state: &mut State| Ok(state.queue(key, stream).map(|queue| queue.page(page)).unwrap_or_default());
        self.operate(Operation::Parked(key), &format!("read parked events of {key}"), read).await
    }

    async fn due(
        &self,
        key: &CheckpointKey,
        until: OffsetDateTime,
        most: usize,
    ) -> Result<Vec<DueStream>, CheckpointError> {
        let due = |state: &mut State| {
            let streams = state.parked.get(&names(key)).into_iter().flatten();
            let due = streams.filter(|(_, queue)| queue.mark.due.is_some_and(|due| due <= until));
            let mut due: Vec<_> =
                due.map(|(stream, queue)| DueStream { stream: stream.clone(), mark: queue.mark.clone() }).collect();
            due.sort_by_key(|stream| stream.mark.due);
            due.truncate(most);
            Ok(due)
        };
        self.operate(Operation::Parked(key), &format!("look for due streams of {key}"), due).await
    }

    async fn list(&self, group: &str, source: &str, query: &ParkedQuery<'_>) -> Result<ParkedPage, CheckpointError> {
        let list = |state: &mut State| Ok(state.list(group, source, query));
        let doing = format!("list the parked streams of {group}/{source}");
        self.operate(Operation::ParkedOf(group, source), &doing, list).await
    }

    async fn request(
        &self,
        group: &str,
        source: &str,
        selection: &ParkedSelection<'_>,
        request: &ParkedRequest<'_>,
    ) -> Result<u64, CheckpointError> {
        let ask = |state: &mut State| Ok(state.request(group, source, selection, request));
        let doing = format!("request a change of the parked streams of {group}/{source}");
        self.operate(Operation::ParkedOf(group, source), &doing, ask).await
    }

    async fn jobs(&self, group: &str, source: &str) -> Result<Vec<ParkedJob>, CheckpointError> {
        let jobs = |state: &mut State| Ok(state.jobs(group, source));
        let doing = format!("list the requests for the parked streams of {group}/{source}");
        self.operate(Operation::ParkedOf(group, source), &doing, jobs).await
    }

    async fn edit(
        &self,
        key: &CheckpointKey,
        stream: &str,
        id: &QueuedId,
        body: NewBody<'_>,
    ) -> Result<bool, CheckpointError> {
        let edit = |state: &mut State| {
            let queue = state.parked.get_mut(&names(key)).and_then(|streams| streams.get_mut(stream));
            let Some(queued) = queue.and_then(|queue| queue.events.get_mut(id)) else { return Ok(false) };
            queued.event = event::with_body(&queued.event, body.data, body.meta).map_err(|bad| {
                CheckpointError::new(CheckpointErrorKind::TooLarge, format!("cannot edit an event of {key} in memory"))
                    .caused_by(bad)
            })?;
            Ok(true)
        };
        self.operate(Operation::Parked(key), &format!("edit a parked event of {key}"), edit).await
    }
}
