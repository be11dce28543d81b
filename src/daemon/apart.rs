//! Reads a part of a pipeline's source apart from the running pipeline: without a claim, a checkpoint or a sink.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout_at;

use crate::clock::{Clock, Timestamp};
use crate::connector::{Context, SourceKind};
use crate::event::Event;
use crate::position::{Position, StartAt, TrancheId};
use crate::source::{Next, Room, Source, TrancheReader};

/// The events of one read. Sources with pages of a fixed size ignore it.
const ROOM: Room = Room { events: 1_000, bytes: 8 << 20 };

/// A source that is read apart from the running pipeline.
pub(crate) struct Apart {
    source: Arc<dyn Source>,
    clock: Clock,
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

    /// Reads a tranche from a position on. `each` gets the events of each batch.
    ///
    /// # Errors
    /// The source cannot be read. There is no retry.
    pub(crate) async fn read(
        &self,
        tranche: &TrancheId,
        from: Option<&Position>,
        budget: &mut Budget,
        mut each: impl FnMut(Vec<Event>) -> ControlFlow<()>,
    ) -> anyhow::Result<Extent> {
        let from = from.cloned().map_or(StartAt::Origin, StartAt::Position);
        let mut reader = self.source.open(tranche, from, None);
        loop {
            if budget.events == 0 {
                return Ok(Extent::Limit);
            }
            let Some((events, at_tail)) = self.next(&mut *reader, budget).await? else { return Ok(Extent::Limit) };
            if each(events).is_break() {
                return Ok(Extent::Enough);
            }
            if at_tail {
                return Ok(Extent::Tail);
            }
        }
    }

    /// Returns the next events, and whether they reach to the tail. `None`: the time is over.
    async fn next(
        &self,
        reader: &mut dyn TrancheReader,
        budget: &mut Budget,
    ) -> anyhow::Result<Option<(Vec<Event>, bool)>> {
        let Ok(next) = timeout_at(self.clock.instant(budget.until), reader.next(ROOM)).await else { return Ok(None) };
        let Next::Batch(mut batch) = next? else { return Ok(Some((Vec::new(), true))) };
        let room = usize::try_from(budget.events).unwrap_or(usize::MAX);
        let at_tail = batch.at_tail && batch.events.len() <= room;
        batch.events.truncate(room);
        budget.events -= batch.events.len() as u64;
        Ok(Some((batch.events, at_tail)))
    }
}
