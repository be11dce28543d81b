//! The events that a pipeline handles again after its progress has moved. The source is read apart from the pipeline to
//! count them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use serde_json::{Value, json};

use crate::config::filter::{Filter, FilterMatch};
use crate::connector::Context;
use crate::connector::prose::counted;
use crate::daemon::apart::{Apart, Budget, Extent, Part};
use crate::event::{Event, Kind};
use crate::position::{OrdinalSet, Progress, TrancheId};
use crate::spec::{self, Definition};

/// The most events that a count reads, of all tranches together.
const MAX_EVENTS: u64 = 1_000_000;
/// The longest time of a count, of all tranches together.
const MAX_TIME: Duration = Duration::from_secs(10);

/// The events of a tranche that are handled again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Counted(Count),
    /// The number is unknown, for this reason.
    Unknown(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    events: u64,
    streams: HashSet<Box<str>>,
    /// The count ended at a limit: there may be more.
    is_partial: bool,
}

/// A count over the tranches of a pipeline.
pub(super) struct Counting {
    source: Result<(Apart, Budget), String>,
    filter: Arc<Filter>,
}

impl Counting {
    pub(super) fn start(definition: &Definition, context: &Context) -> Self {
        let source = match Apart::open(&*definition.source, context) {
            Ok(Some(apart)) if apart.has_ordinals() => {
                let budget = apart.budget(MAX_EVENTS, MAX_TIME);
                Ok((apart, budget))
            }
            Ok(Some(_)) => Err("the source does not number its events".to_owned()),
            Ok(None) => Err("the source delivers each event only once".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        };
        Self { source, filter: filter(definition) }
    }

    /// Counts the events that `now` covers and `target` does not.
    pub(super) async fn count(
        &mut self,
        tranche: &TrancheId,
        now: Option<&Progress>,
        target: Option<&Progress>,
    ) -> Again {
        let Some(now) = now else { return Again::Counted(Count::default()) };
        let Self { source, filter } = self;
        match source {
            Err(why) => Again::Unknown(why.clone()),
            Ok((apart, budget)) => match count(apart, budget, filter, tranche, now, target).await {
                Ok(count) => Again::Counted(count),
                Err(error) => Again::Unknown(format!("{error:#}")),
            },
        }
    }
}

/// Returns the filter of the pipeline's reader. A script that upcasts filters by type itself. A script that is wrong must not
/// keep the operator from moving the progress.
fn filter(definition: &Definition) -> Arc<Filter> {
    match spec::compile_script(&definition.loaded) {
        Ok((Some(script), _)) => script.with_filter(&definition.filter).1,
        _ => Arc::clone(&definition.filter),
    }
}

async fn count(
    apart: &Apart,
    budget: &mut Budget,
    filter: &Filter,
    tranche: &TrancheId,
    now: &Progress,
    target: Option<&Progress>,
) -> anyhow::Result<Count> {
    let covered = apart.covered(tranche, now, budget).await?;
    let none = OrdinalSet::new();
    let still_handled = target.map_or(&none, |target| &target.handled);
    let mut count = Count::default();
    let add = |part: Part<'_>| {
        for event in part.events {
            let at = event.at();
            if covered.is_past(at) {
                return ControlFlow::Break(());
            }
            if covered.covers(at) && !still_handled.contains(at) {
                count.add(&event, filter);
            }
        }
        ControlFlow::Continue(())
    };
    let extent = apart.read(tranche, target.and_then(|target| target.position.as_ref()), budget, add).await?;
    count.is_partial = extent == Extent::Limit;
    Ok(count)
}

impl Count {
    fn add(&mut self, event: &Event, filter: &Filter) {
        let is_handled = matches!(event.kind(), Kind::Event | Kind::Malformed);
        if !is_handled || filter.decide(event) != FilterMatch::Keep {
            return;
        }
        self.events += 1;
        if !event.stream().is_empty() && !self.streams.contains(event.stream()) {
            self.streams.insert(event.stream().into());
        }
    }
}

impl Again {
    /// Renders a line. `are`: "are" or "would be".
    pub(super) fn render(&self, are: &str) -> String {
        match self {
            Self::Unknown(why) => format!("  the number of events that {are} handled again is unknown: {why}\n"),
            Self::Counted(Count { events: 0, is_partial: false, .. }) => format!("  no events {are} handled again\n"),
            Self::Counted(Count { events, streams, is_partial }) => {
                let more = if *is_partial { "at least " } else { "" };
                let (events, streams) = (counted(*events, "event"), counted(streams.len() as u64, "stream"));
                format!("  {more}{events} of {more}{streams} {are} handled again\n")
            }
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Unknown(why) => json!({ "unknown": why }),
            Self::Counted(Count { events, streams, is_partial }) => {
                json!({ "events": events, "streams": streams.len(), "more": is_partial })
            }
        }
    }
}
