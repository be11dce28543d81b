//! Reads a part of a pipeline's source apart from the running pipeline: without a claim, a checkpoint or a sink.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hashbrown::HashMap;
use tokio::time::timeout_at;

use crate::checkpoint::LogReason;
use crate::clock::{Clock, Timestamp};
use crate::connector::{Context, SourceKind};
use crate::event::{Event, Indexes, Kind};
use crate::position::{Ordinal, OrdinalSet, Position, Progress, StartAt, TrancheId};
use crate::source::{Batch, Changes, Next, Room, Source, TrancheChange};
use crate::spec::{self, Definition};

/// The events of one read. Sources with pages of a fixed size ignore it.
const ROOM: Room = Room { events: 1_000, bytes: 8 << 20 };

/// A source that is read apart from the running pipeline.
pub(crate) struct Apart {
    source: Arc<dyn Source>,
    clock: Clock,
}

/// The events of one read of a tranche.
pub(crate) struct Part<'a> {
    /// The position that they were read from. `None`: the origin.
    pub from: Option<&'a Position>,
    pub events: Vec<Event>,
}

/// The events that a stored progress covers. Positions cannot be compared, and ordinals can.
pub(crate) struct Covered {
    /// The first event behind the position. `None`: no event lies behind it.
    end: Option<Ordinal>,
    above: OrdinalSet,
}

/// The rest of the events and of the time that reads may take. Several reads share it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    events: u64,
    until: Timestamp,
}

/// The reason why a read returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// It reached the tail of the tranche.
    Tail,
    /// The caller needs no more.
    Enough,
    /// The budget is spent.
    Limit,
}

impl Apart {
    /// Opens the source of a pipeline. Connects to nothing yet. `None`: each event can be read only once.
    ///
    /// # Errors
    /// The source cannot be built.
    pub(crate) fn open(kind: &dyn SourceKind, context: &Context) -> anyhow::Result<Option<Self>> {
        let source = kind.build_apart(context).transpose().context("open the source")?;
        Ok(source.map(|source| Self { source, clock: Clock::start() }))
    }

    /// Returns a budget that begins now.
    pub(crate) fn budget(&self, events: u64, time: Duration) -> Budget {
        Budget { events, until: self.clock.now() + time }
    }

    /// Returns whether the events carry ordinals that never change their meaning (C1).
    pub(crate) fn has_ordinals(&self) -> bool {
        self.source.contract().ordinals
    }

    /// Describes a position to operators.
    pub(crate) fn describe(&self, position: Option<&Position>) -> String {
        position.map_or_else(|| "origin".to_owned(), |position| self.source.describe(position))
    }

    /// Finds the events of a tranche that a progress covers.
    ///
    /// # Errors
    /// The source cannot be read behind the position.
    pub(crate) async fn covered(
        &self,
        tranche: &TrancheId,
        progress: &Progress,
        budget: &mut Budget,
    ) -> anyhow::Result<Covered> {
        let above = progress.handled.clone();
        // Nothing lies below the origin.
        let Some(position) = &progress.position else { return Ok(Covered { end: Some(Ordinal::default()), above }) };
        let mut end = None;
        let look = |part: Part<'_>| match part.events.first() {
            None => ControlFlow::Continue(()),
            Some(event) => {
                end = Some(event.at());
                ControlFlow::Break(())
            }
        };
        match self.read(tranche, Some(position), budget, look).await? {
            Extent::Limit => anyhow::bail!("the source did not answer in time"),
            Extent::Tail | Extent::Enough => Ok(Covered { end, above }),
        }
    }

    /// Reads a tranche from a position on. `each` gets the events of each batch.
    ///
    /// # Errors
    /// The source cannot be read. There is no retry.
    pub(crate) async fn read(
        &self,
        tranche: &TrancheId,
        from: Option<&Position>,
        budget: &mut Budget,
        mut each: impl FnMut(Part<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<Extent> {
        let mut from = from.cloned();
        let mut reader = self.source.open(tranche, from.clone().map_or(StartAt::Origin, StartAt::Position), None);
        loop {
            if budget.events == 0 {
                return Ok(Extent::Limit);
            }
            let Ok(next) = timeout_at(self.clock.instant(budget.until), reader.next(ROOM)).await else {
                return Ok(Extent::Limit);
            };
            let Next::Batch(Batch { mut events, resume_at, at_tail, .. }) = next? else { return Ok(Extent::Tail) };
            let is_cut = events.len() as u64 > budget.events;
            events.truncate(usize::try_from(budget.events).unwrap_or(usize::MAX));
            budget.events -= events.len() as u64;
            if each(Part { from: from.as_ref(), events }).is_break() {
                return Ok(Extent::Enough);
            }
            if at_tail && !is_cut {
                return Ok(Extent::Tail);
            }
            from = Some(resume_at);
        }
    }
}

impl Covered {
    pub(crate) fn covers(&self, at: Ordinal) -> bool {
        self.is_below_end(at) || self.above.contains(at)
    }

    /// Returns whether the progress covers neither this event nor a later one.
    pub(crate) fn is_past(&self, at: Ordinal) -> bool {
        !self.is_below_end(at) && self.above.last().is_none_or(|last| at > last)
    }

    fn is_below_end(&self, at: Ordinal) -> bool {
        self.end.is_none_or(|end| at < end)
    }
}

/// The longest time of a read for the last events of a source.
pub(crate) const MAX_READ_TIME: Duration = Duration::from_secs(30);

/// The last events of a source.
pub(crate) struct Sample {
    /// In read order within each tranche.
    pub events: Vec<(TrancheId, Event)>,
    pub indexes: Indexes,
    /// The number of events that were read to find them.
    pub read: u64,
    /// The time was over before the tail of each tranche.
    pub is_partial: bool,
}

/// Positions of earlier commits by tranche, the newest first.
pub(crate) type Starts = HashMap<TrancheId, Vec<Position>>;

/// Returns the stored position of each tranche, and those that the checkpoint store logged. They lie near the tail, and save a
/// read from the origin. A store that cannot be read has none.
pub(crate) async fn logged(definition: &Definition, context: &Context) -> Starts {
    let spec::Progress::Store(store) = &definition.progress else { return Starts::new() };
    // A store that does not exist must not be created here.
    if definition.local_store(&context.data).is_none_or(|path| !path.exists()) {
        return Starts::new();
    }
    let Ok(store) = store.build(context) else { return Starts::new() };
    let mut starts = Starts::new();
    for listed in store.list(definition.group(), &definition.source_id()).await.unwrap_or_default() {
        let log = store.log(&listed.key).await.unwrap_or_default();
        let commits = log.into_iter().filter(|entry| entry.reason == LogReason::Commit).map(|entry| entry.progress);
        let stored = std::iter::once(listed.progress).chain(commits);
        let positions = stored.filter_map(|progress| progress.and_then(|progress| progress.position));
        starts.insert(listed.key.tranche, positions.collect());
    }
    starts
}

impl Apart {
    /// Returns the last `count` of the `wanted` events, in equal parts from all tranches.
    ///
    /// A source cannot be read backwards. Each tranche is therefore read to its tail from ever earlier positions of `starts`,
    /// and then from its origin, until there are enough events.
    ///
    /// # Errors
    /// The source cannot be read.
    pub(crate) async fn last(
        &self,
        count: usize,
        time: Duration,
        starts: &Starts,
        wanted: impl Fn(&Event) -> bool,
    ) -> anyhow::Result<Sample> {
        let end = self.clock.now() + time;
        let mut sample =
            Sample { events: Vec::new(), indexes: self.source.contract().indexes, read: 0, is_partial: false };
        let tranches = timeout_at(self.clock.instant(end), self.tranches()).await;
        let tranches = tranches.context("the source did not answer in time")??;
        let share = count.div_ceil(tranches.len().max(1));
        for (number, (tranche, origin)) in tranches.iter().enumerate() {
            // A long tranche must not take the time of those behind it.
            let now = self.clock.now();
            let until = now + end.since(now) / u32::try_from(tranches.len() - number).unwrap_or(u32::MAX);
            let mut budget = Budget { events: u64::MAX, until };
            let logged = starts.get(tranche).map_or(&[][..], Vec::as_slice);
            let starts = (0..usize::BITS).map_while(|power| logged.get((1_usize << power) - 1)).map(Some);
            for from in starts.chain([origin.as_ref()]) {
                let is_last = from == origin.as_ref();
                let mut tail = Tail { events: VecDeque::new(), count: share, read: 0 };
                let extent = self.read(tranche, from, &mut budget, |part| tail.add(part.events, &wanted)).await;
                match extent {
                    // The position of an old commit may be lost.
                    Err(_) if !is_last => continue,
                    Err(error) => return Err(error),
                    Ok(extent) if is_last || extent == Extent::Limit || tail.events.len() == share => {
                        sample.is_partial |= extent == Extent::Limit;
                        sample.read += tail.read;
                        sample.events.extend(tail.events.into_iter().map(|event| (tranche.clone(), event)));
                        break;
                    }
                    Ok(_) => {}
                }
            }
        }
        Ok(sample)
    }

    /// Returns the tranches that exist now, each with its origin.
    async fn tranches(&self) -> anyhow::Result<Vec<(TrancheId, Option<Position>)>> {
        let (changes, mut reported) = Changes::channel();
        let collect = async {
            let mut tranches = Vec::new();
            while let Some(change) = reported.recv().await {
                match change {
                    TrancheChange::Added { tranche, origin, .. } => tranches.push((tranche, origin)),
                    TrancheChange::Settled => break,
                    TrancheChange::Removed { .. } | TrancheChange::Lost { .. } => {}
                }
            }
            tranches
        };
        let watch = async {
            match self.source.watch(&changes).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            biased;
            tranches = collect => Ok(tranches),
            error = watch => Err(error.into()),
        }
    }
}

/// The last events of a tranche so far.
struct Tail {
    events: VecDeque<Event>,
    count: usize,
    read: u64,
}

impl Tail {
    fn add(&mut self, events: Vec<Event>, wanted: &impl Fn(&Event) -> bool) -> ControlFlow<()> {
        self.read += events.len() as u64;
        for mut event in events {
            if !matches!(event.kind(), Kind::Event | Kind::Unfold) || !wanted(&event) {
                continue;
            }
            if self.events.len() == self.count {
                self.events.pop_front();
            }
            // A kept event must not keep its whole read buffer alive.
            event.detach();
            self.events.push_back(event);
        }
        ControlFlow::Continue(())
    }
}
