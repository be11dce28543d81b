//! Parked streams: appends to their store, and the lane that offers them again.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::super::drain::Ended;
use super::super::messages::{Event, MarkedWork, ToPark, ToRemove, Update};
use super::super::parked_lane::Left;
use super::super::policy::{self, BackEndReaction, OUTAGE};
use super::super::tranches::{Phase, Tranche};
use super::Driver;
use crate::checkpoint::{
    CheckpointError, DueStream, ParkedAction, ParkedMark, ParkedRequest, ParkedSelection, ParkedState, QueueRead,
};
use crate::clock::Timestamp;
use crate::event;
use crate::formats::words::chain;
use crate::position::TrancheId;
use crate::runtime::retry::rounded;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::{Order, Outcome};
use crate::sink::AnySink;
use crate::telemetry::logging::AUDIT;
use crate::work::{Work, WorkId, WorkKind};

/// A deferral of this length or more is stored, and the progress passes the event. A shorter one stays in memory.
pub(super) const LONG_DEFERRAL: Duration = Duration::from_secs(60);
/// The interval at which the driver looks for streams that another process made due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The class of a mark whose reason is not known.
const UNKNOWN_CLASS: &str = "unknown";
/// The requester of retries after a change of the handler.
const SELF: &str = "propulsiond";

/// The looks into the parked store for streams that are due.
#[derive(Debug)]
pub(super) struct Looks {
    at: Timestamp,
    is_out: bool,
    /// Streams of another version of the handler are to be made due first (C32).
    for_changed: bool,
    failures: u32,
}

impl Looks {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { at: now, is_out: false, for_changed: false, failures: 0 }
    }

    pub(super) fn is_out(&self) -> bool {
        self.is_out
    }
}

/// An event that is parked, and the reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause<'a> {
    pub(super) class: &'a str,
    pub(super) why: &'a str,
    pub(super) attempts: u32,
}

impl Driver {
    /// Returns the tranche of a piece of work, if it is still held.
    pub(super) fn tranche_of(&self, work: WorkId) -> Option<TrancheId> {
        self.lane.tranche_of(work).cloned().or_else(|| self.scheduler.tranche_of(work))
    }

    /// Returns whether the work's tranche is still held (C10).
    pub(super) fn is_held(&self, work: WorkId) -> bool {
        self.lane.tranche_of(work).is_some() || self.scheduler.is_held(work)
    }

    /// Returns the mark of a failed event.
    pub(super) fn failed_mark(&self, event: &event::Event, cause: Cause<'_>, job: Option<Arc<str>>) -> ParkedMark {
        ParkedMark {
            state: ParkedState::Failed,
            class: cause.class.into(),
            why: cause.why.into(),
            index: event.index(),
            event_type: event.event_type().into(),
            since: self.clock.wall(),
            attempts: cause.attempts,
            version: Arc::clone(&self.version),
            due: None,
            job,
        }
    }

    /// Returns whether a long deferral of this work is stored: the store keeps parked events in the order of streams, and the
    /// ordinals that identify them.
    fn can_defer_durably(&self, work: &Work) -> bool {
        self.parked.is_some() && self.options.order == Order::Stream && self.can_park && !work.late
    }

    /// Defers work. A long deferral parks the stream until its due time.
    pub(super) fn defer(&mut self, work: Work, delay: Duration) {
        let until = self.now + delay;
        if delay < LONG_DEFERRAL || !self.can_defer_durably(&work) {
            return self.finish(work, Outcome::Defer { until });
        }
        let now = self.clock.wall();
        let event = &work.events[0];
        let mark = ParkedMark {
            state: ParkedState::Deferred,
            due: Some(now.saturating_add(delay.try_into().unwrap_or(time::Duration::MAX))),
            ..self.failed_mark(event, Cause { class: "deferred", why: "its handler deferred it", attempts: 0 }, None)
        };
        tracing::debug!(stream = work.stream(), index = work.first(), ?delay, "stream deferred durably");
        if work.kind == WorkKind::Retry {
            return self.leave_parked(work, mark);
        }
        if let Some(tranche) = self.scheduler.tranche_of(work.id) {
            self.parks.parked(tranche, work.stream(), mark);
        }
        self.finish(work, Outcome::Park);
    }

    /// Leaves work of the lane parked, under another mark.
    pub(super) fn leave_parked(&mut self, mut work: Work, mark: ParkedMark) {
        self.spans.finish(&mut work, &Outcome::Park, self.now);
        self.writes.done(work.id);
        if let Some(tranche) = self.lane.tranche_of(work.id).cloned() {
            self.parks.marked(&tranche, work.stream(), mark.state);
        }
        self.lane.leave_parked(&work, mark);
    }

    /// Finishes work of the lane.
    pub(super) fn finish_retry(&mut self, work: Work, outcome: Outcome) {
        match outcome {
            Outcome::Done { next } => self.retried(work, next, false),
            Outcome::Skip => {
                if let Some(tranche) = self.lane.tranche_of(work.id).cloned() {
                    self.parks.removed(&tranche, &work.events[..1]);
                }
                self.lane.skip(&work);
            }
            Outcome::Defer { until } | Outcome::Wait { until } => self.lane.wait(work.id, until, false),
            Outcome::Failed { until, .. } => self.lane.wait(work.id, until, true),
            Outcome::Return => self.lane.give_back(work.id, false),
            Outcome::Singly => self.lane.give_back(work.id, true),
            Outcome::Park => unreachable!("parked work is left parked under a new mark"),
        }
    }

    /// Notes that work of the lane is handled. `stored`: a transaction has removed it with its effects.
    fn retried(&mut self, work: Work, next: i64, stored: bool) {
        if let Some(tranche) = self.lane.tranche_of(work.id).cloned() {
            let handled = work.events.iter().filter(|event| next >= work.next || event.next_index() <= next).count();
            self.parks.removed(&tranche, &work.events[..handled]);
            self.counts.events_retried(handled);
            self.count_parked();
        }
        if let Some(left) = self.lane.done(&work, next, stored) {
            self.left_the_lane(left);
        }
    }

    /// Notes that a transaction committed the effects of the lane's work, and removed its events.
    pub(super) fn retry_committed(&mut self, mut work: Work, next: i64) {
        self.spans.finish(&mut work, &Outcome::Done { next }, self.now);
        self.writes.done(work.id);
        self.forget_failure(&work);
        self.handled_at = self.now;
        self.retried(work, next, true);
    }

    fn left_the_lane(&mut self, left: Left) {
        let Left { tranche, stream, unparked, held } = left;
        if unparked {
            tracing::info!(%tranche, stream = &*stream, "stream unparked, its events are handled again");
            self.scheduler.unpark(&tranche, &stream);
            self.parks.unparked(&tranche, &stream);
            self.changed.insert(tranche);
        }
        // The first event that was not appended goes to the scheduler: to the handler, or into the store again (C21).
        if let Some(work) = held {
            self.finish(work, Outcome::Return);
        }
        // Streams beyond the lane's room may wait in the store.
        self.looks.at = self.now;
    }

    /// Has the store asked at once for streams that are due.
    pub(super) fn look_at_parked(&mut self) {
        self.looks.at = self.now;
    }

    /// Offers the streams first that another version of the handler parked (C32).
    pub(super) fn look_for_changed(&mut self) {
        self.looks.for_changed = true;
        self.looks.at = self.now;
    }

    /// Returns the time of the next look into the parked store. `None`: nothing is parked.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        let is_wanted = !self.looks.is_out && self.parks.have_parked();
        is_wanted.then_some(self.looks.at)
    }

    /// Asks the store for parked streams that are due.
    pub(super) fn look_for_due(&mut self) {
        self.lane.wake(self.now);
        if self.looks.is_out || self.looks.at > self.now || self.drain.is_begun() || self.paused {
            return;
        }
        let Some(store) = self.parked.clone() else { return };
        let room = self.lane.room();
        if room == 0 {
            return;
        }
        self.looks.at = self.now + LOOK_EVERY;
        let held = self.tranches.iter().filter(|(tranche, state)| {
            is_open(state) && state.claim.fence.is_some() && self.parks.may_have_parked(tranche)
        });
        let keys: Vec<_> = held.map(|(_, state)| (state.key.clone(), state.epoch)).collect();
        if keys.is_empty() {
            return;
        }
        self.looks.is_out = true;
        let changed = std::mem::take(&mut self.looks.for_changed).then(|| Arc::clone(&self.version));
        let (events, clock) = (self.events_in.clone(), self.clock);
        self.group.spawn(TaskKind::Committer, "look for due streams", async move {
            let mut answers = Vec::with_capacity(keys.len());
            for (key, epoch) in keys {
                let now = clock.wall();
                let asked = async {
                    if let Some(version) = &changed {
                        retry_changed(&*store, &key, version, now).await?;
                    }
                    // One that is due soon has the next look come in time.
                    let until = now + LOOK_EVERY;
                    // Those in the lane may come again.
                    store.due(&key, until, room.saturating_mul(2)).await
                };
                answers.push((key.tranche.clone(), epoch, asked.await));
            }
            drop(events.send(Event::Due(answers)).await);
            Ok(())
        });
    }

    pub(super) fn on_due(&mut self, answers: Vec<(TrancheId, u64, Result<Vec<DueStream>, CheckpointError>)>) {
        self.looks.is_out = false;
        let wall = self.clock.wall();
        for (tranche, epoch, result) in answers {
            if self.tranches.get(&tranche).is_none_or(|state| state.epoch != epoch || !is_open(state)) {
                continue;
            }
            match result {
                Ok(due) => {
                    self.looks.failures = 0;
                    self.admit(&tranche, due, wall);
                }
                Err(error) => {
                    self.looks.failures = self.looks.failures.saturating_add(1);
                    let delay = OUTAGE.delay(self.looks.failures, &mut self.random);
                    tracing::warn!(%tranche, error = %chain(&error), retry_in = ?rounded(delay), "parked streams not looked up, retrying");
                    self.looks.at = self.now + delay;
                    self.looks.for_changed = true;
                }
            }
        }
    }

    fn admit(&mut self, tranche: &TrancheId, due: Vec<DueStream>, wall: OffsetDateTime) {
        for stream in due {
            let at = stream.mark.due.unwrap_or(wall);
            if at > wall {
                let wait = Duration::try_from(at - wall).unwrap_or_default();
                self.looks.at = self.looks.at.min(self.now + wait);
            } else if self.lane.room() > 0 {
                self.lane.admit(tranche, stream);
            }
        }
    }

    /// Reads the queues of the streams in the lane.
    pub(super) fn read_queues(&mut self) {
        if self.lane.is_empty() || self.drain.is_begun() || self.paused {
            return;
        }
        let Some(store) = &self.parked else { return };
        let parks = &self.parks;
        for (tranche, stream, page) in self.lane.take_reads(|_, stream| parks.is_appending(stream)) {
            let Some(state) = self.tranches.get(&tranche) else { continue };
            let (key, epoch) = (state.key.clone(), state.epoch);
            let (store, events) = (Arc::clone(store), self.events_in.clone());
            self.group.spawn(TaskKind::Reader, "read parked events", async move {
                let result = store.read(&key, &stream, &page).await;
                drop(events.send(Event::QueueRead { tranche, epoch, stream, result }).await);
                Ok(())
            });
        }
    }

    fn is_current(&self, tranche: &TrancheId, epoch: u64) -> bool {
        self.tranches.get(tranche).is_some_and(|state| state.epoch == epoch)
    }

    pub(super) fn on_queue_read(
        &mut self,
        tranche: &TrancheId,
        epoch: u64,
        stream: &str,
        result: Result<QueueRead, CheckpointError>,
    ) {
        if !self.is_current(tranche, epoch) {
            return;
        }
        match result {
            Ok(read) => {
                let discarded = self.lane.page_read(tranche, stream, read);
                let job = self.lane.job(tranche, stream);
                for event in &discarded {
                    tracing::warn!(
                        target: AUDIT, %tranche, stream, index = event.index(), event_type = event.event_type(), at = %event.at(),
                        job, "parked event discarded"
                    );
                }
                self.parks.removed(tranche, &discarded);
                self.count_parked();
            }
            Err(error) => self.on_lane_failed(tranche, &[stream.into()], &error, "parked events not read, retrying"),
        }
    }

    fn on_lane_failed(&mut self, tranche: &TrancheId, streams: &[Box<str>], error: &CheckpointError, doing: &str) {
        let why = chain(error);
        match policy::react_to_store(error, 3, &mut self.random) {
            BackEndReaction::GiveUp { by, since } => self.on_fenced(tranche, by, since),
            BackEndReaction::Halt => self.begin_drain(Ended::Halted(why.clone()), &why),
            BackEndReaction::Retry(delay) => {
                tracing::warn!(%tranche, error = %why, retry_in = ?rounded(delay), "{doing}");
                for stream in streams {
                    self.lane.store_failed(tranche, stream, self.now + delay);
                }
            }
        }
    }

    /// Stores the changes of parked streams. A drain waits for them.
    pub(super) fn update_parked(&mut self) {
        if self.lane.is_empty() {
            return;
        }
        let Some(store) = &self.parked else { return };
        for (tranche, updates) in self.lane.take_updates() {
            let claim = self
                .tranches
                .get(&tranche)
                .and_then(|state| Some((state.key.clone(), state.epoch, state.claim.fence?)));
            // The lane forgets a tranche without a claim.
            let Some((key, epoch, fence)) = claim else { continue };
            let streams: Vec<_> = updates.iter().map(|of| of.stream.clone()).collect();
            let updates: Vec<Update> = updates.into_iter().flat_map(|of| of.updates).collect();
            let (store, events) = (Arc::clone(store), self.events_in.clone());
            self.group.spawn(TaskKind::Committer, "update parked streams", async move {
                let borrowed: Vec<_> = updates.iter().map(Update::borrowed).collect();
                let result = store.update(&key, fence, &borrowed).await;
                // Without a driver, the next owner offers these events again.
                drop(events.send(Event::ParkedUpdated { tranche, epoch, streams, result }).await);
                Ok(())
            });
        }
    }

    pub(super) fn on_parked_updated(
        &mut self,
        tranche: &TrancheId,
        epoch: u64,
        streams: &[Box<str>],
        result: Result<(), CheckpointError>,
    ) {
        if !self.is_current(tranche, epoch) {
            return;
        }
        match result {
            Ok(()) => {
                for stream in streams {
                    if let Some(left) = self.lane.updated(tranche, stream) {
                        self.left_the_lane(left);
                    }
                }
            }
            Err(error) => self.on_lane_failed(tranche, streams, &error, "parked streams not updated, retrying"),
        }
    }

    /// Returns the changes of parked streams that a transaction stores with the effects of the lane's work.
    pub(super) fn removals<'a>(&self, accepted: impl Iterator<Item = (&'a Work, i64)>) -> Vec<ToRemove> {
        let mut removals: Vec<ToRemove> = Vec::new();
        for (work, next) in accepted.filter(|(work, _)| work.kind == WorkKind::Retry) {
            let Some(state) = self.lane.tranche_of(work.id).and_then(|tranche| self.tranches.get(tranche)) else {
                continue;
            };
            let Some(fence) = state.claim.fence else { continue };
            let updates = self.lane.removal(work, next);
            match removals.iter_mut().find(|of| of.key == state.key) {
                Some(of) => of.updates.extend(updates),
                None => removals.push(ToRemove { key: state.key.clone(), fence, updates }),
            }
        }
        removals
    }

    /// Appends work to the parked store. A sink that holds the progress stores it in its transactions.
    pub(super) fn append_parked(&mut self) {
        if self.parks.is_empty() || self.parks.appending() > 0 || matches!(self.sink, AnySink::Transactional(_)) {
            return;
        }
        let Some(store) = self.parked.clone() else { return };
        if self.halts_over_full_store() {
            return;
        }
        let work = self.parks.take();
        let (parks, unowned) = self.parks.mark(work, &self.scheduler, &self.tranches, &self.late_mark());
        unowned.into_iter().for_each(|work| self.finish(work, Outcome::Return));
        self.parks.began(&parks);
        if parks.is_empty() {
            return;
        }
        let events = self.events_in.clone();
        self.group.spawn(TaskKind::Committer, "park", async move {
            let mut result = Ok(());
            for group in &parks {
                result = store.append(&group.key, group.fence, &group.events()).await;
                if result.is_err() {
                    break;
                }
            }
            // Without a driver, the next owner reads these events again.
            drop(events.send(Event::Appended { parks, result }).await);
            Ok(())
        });
    }

    /// Returns the mark of a stream that an earlier run parked. The store keeps its own.
    pub(super) fn late_mark(&self) -> Arc<ParkedMark> {
        Arc::new(ParkedMark {
            state: ParkedState::Failed,
            class: UNKNOWN_CLASS.into(),
            why: "its stream was parked earlier".into(),
            index: 0,
            event_type: "".into(),
            since: self.clock.wall(),
            attempts: 0,
            version: Arc::clone(&self.version),
            due: None,
            job: None,
        })
    }

    /// Halts if the parked store is full. The work that was to be parked returns unhandled.
    pub(super) fn halts_over_full_store(&mut self) -> bool {
        let ((events, bytes), limits) = (self.parks.size(), self.options.errors.parked);
        if events < limits.events && bytes < limits.bytes {
            return false;
        }
        for work in self.parks.take() {
            self.finish(work, Outcome::Return);
        }
        self.parks.ended();
        let why = format!(
            "the parked store is full: it holds {events} events of {bytes} bytes (`max_parked_events` is {}, `max_parked_bytes` {}); \
             retry or discard some with `propulsiond parked`, or raise the limit",
            limits.events, limits.bytes
        );
        self.begin_drain(Ended::Halted(why.clone()), &why);
        true
    }

    pub(super) fn on_appended(&mut self, parks: Vec<ToPark>, result: Result<(), CheckpointError>) {
        self.parks.ended();
        let Err(error) = result else { return self.were_parked(parks) };
        tracing::warn!(error = %chain(&error), "events not parked, retrying");
        let until = self.now + error.retry_after.unwrap_or_else(|| OUTAGE.delay(3, &mut self.random));
        for work in parks.into_iter().flat_map(ToPark::into_work) {
            self.finish(work, Outcome::Wait { until });
        }
    }

    /// Counts parked events as handled.
    pub(super) fn were_parked(&mut self, parks: Vec<ToPark>) {
        self.handled_at = self.now;
        for group in parks {
            let tranche = group.key.tranche.clone();
            for MarkedWork { work, mark, .. } in group.work {
                // A deferral is no failure.
                if mark.state == ParkedState::Failed {
                    self.counts.events_parked(work.events.len());
                }
                self.parks.stored(&tranche, work.events.iter());
                let next = work.next;
                self.finish(work, Outcome::Done { next });
            }
        }
        self.count_parked();
    }

    pub(super) fn count_parked(&self) {
        let (events, bytes) = self.parks.size();
        self.counts.parked_size(events, bytes);
    }

    /// Returns work that could not be parked to the scheduler.
    pub(super) fn give_parks_back(&mut self, parks: Vec<ToPark>) {
        for work in parks.into_iter().flat_map(ToPark::into_work) {
            self.finish(work, Outcome::Return);
        }
    }

    /// Leaves the first event of the lane's work parked, after a failed retry.
    pub(super) fn stay_parked(&mut self, work: Work, cause: Cause<'_>) {
        let event = &work.events[0];
        let earlier = self.lane.mark_of(work.id);
        let job = earlier.and_then(|mark| mark.job.clone());
        // Its age counts from the first failure.
        let since = earlier.filter(|mark| mark.state == ParkedState::Failed).map(|mark| mark.since);
        let mark = self.failed_mark(event, cause, job);
        let mark = ParkedMark { since: since.unwrap_or(mark.since), ..mark };
        tracing::warn!(
            target: AUDIT, stream = work.stream(), index = event.index(), event_type = event.event_type(), at = %event.at(),
            reason = cause.why, version = &*self.version, job = mark.job.as_deref(), "stream stays parked"
        );
        self.leave_parked(work, mark);
    }

    /// Takes work to be parked. If its stream is being unparked, the work is held until then.
    pub(super) fn park(&mut self, work: Work) {
        let held = match self.scheduler.tranche_of(work.id) {
            Some(tranche) => self.lane.hold(&tranche, work),
            None => Some(work),
        };
        if let Some(work) = held {
            self.parks.push(work);
        }
    }

    /// Lets the lane forget a tranche that is gone.
    pub(super) fn forget_parked(&mut self, tranche: &TrancheId) {
        for work in self.lane.forget(tranche) {
            self.finish(work, Outcome::Return);
        }
        self.parks.forget(tranche);
        self.count_parked();
    }
}

fn is_open(state: &Tranche) -> bool {
    matches!(state.phase, Phase::Reading | Phase::Ended)
}

/// Makes the streams due that another version of the handler parked.
async fn retry_changed(
    store: &dyn crate::checkpoint::ParkedStore,
    key: &crate::checkpoint::CheckpointKey,
    version: &str,
    now: OffsetDateTime,
) -> Result<(), CheckpointError> {
    let selection = ParkedSelection {
        state: Some(ParkedState::Failed),
        tranche: Some(key.tranche.as_str()),
        other_version_than: Some(version),
        ..ParkedSelection::default()
    };
    let job = format!("handler-{version}");
    let request = ParkedRequest { action: ParkedAction::Retry, job: &job, by: SELF, at: now };
    let streams = store.request(&key.group, &key.source, &selection, &request).await?;
    if streams > 0 {
        tracing::info!(target: AUDIT, tranche = %key.tranche, streams, version, "streams of another version of the handler are retried");
    }
    Ok(())
}
