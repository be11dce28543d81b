//! The handled events of the types that a changed script names and the running one does not. A dry run of a reload finds them
//! in the source, apart from the running pipeline.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::apart::{Apart, Extent, Part};
use crate::config::filter::{Filter, FilterMatch};
use crate::connector::Context;
use crate::connector::kind::StorePlace;
use crate::event::{Event, Kind};
use crate::position::{Position, TrancheId};
use crate::spec::Checked;

/// The most events of a pipeline that a dry run reads.
const MAX_EVENTS: u64 = 1_000_000;
/// The longest time of the read for a pipeline.
const MAX_TIME: Duration = Duration::from_secs(10);

/// The handled events of one type in one tranche.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Seen {
    pub event_type: String,
    pub tranche: String,
    /// The position of a read that brings the first of them, in words.
    pub since: String,
    /// The same position, as `checkpoint set` takes it. `None`: the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<serde_json::Value>,
    /// The stream and the index of the first event.
    pub stream: String,
    pub index: i64,
    pub events: u64,
    /// The read ended at a limit: there may be more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// Finds the handled events of these types that the new definition does not exclude.
///
/// # Errors
/// The handled events cannot be read again, or the source cannot be read. The message gives the reason.
pub(super) async fn find(
    old: &Checked,
    new: &Checked,
    context: &Context,
    types: &[String],
) -> anyhow::Result<Vec<Seen>> {
    let definition = &old.definition;
    anyhow::ensure!(definition.progress.facts().place != StorePlace::Process, "the progress is in memory");
    let apart = Apart::open(&*definition.source, context)?;
    let apart = apart
        .filter(Apart::has_ordinals)
        .ok_or_else(|| anyhow::anyhow!("source `{}` delivers each event only once", definition.source))?;
    let store = super::carry::store(old, context).map_err(anyhow::Error::msg)?;
    let (_, filter) = new.script_and_filter();
    let mut budget = apart.budget(MAX_EVENTS, MAX_TIME);
    let mut seen = Vec::new();
    for listed in store.list(definition.group(), &definition.source_id()).await? {
        let Some(progress) = &listed.progress else { continue };
        let tranche = &listed.key.tranche;
        let covered = apart.covered(tranche, progress, &mut budget).await?;
        let mut found: BTreeMap<String, Seen> = BTreeMap::new();
        let look = |part: Part<'_>| {
            for event in part.events {
                if covered.is_past(event.at()) {
                    return ControlFlow::Break(());
                }
                if covered.covers(event.at()) && is_wanted(&event, types, &filter) {
                    let first = || Seen::first(&apart, tranche, part.from, &event);
                    found.entry(event.event_type().to_owned()).or_insert_with(first).events += 1;
                }
            }
            ControlFlow::Continue(())
        };
        let more = apart.read(tranche, None, &mut budget, look).await? == Extent::Limit;
        seen.extend(found.into_values().map(|seen| Seen { more, ..seen }));
        anyhow::ensure!(
            !more || !seen.is_empty(),
            "there are none among the first events, and the read ended at its limit"
        );
    }
    Ok(seen)
}

fn is_wanted(event: &Event, types: &[String], filter: &Filter) -> bool {
    event.kind() == Kind::Event
        && types.iter().any(|name| name == event.event_type())
        && filter.decide(event) == FilterMatch::Keep
}

impl Seen {
    fn first(apart: &Apart, tranche: &TrancheId, from: Option<&Position>, event: &Event) -> Self {
        Self {
            event_type: event.event_type().to_owned(),
            tranche: tranche.as_str().to_owned(),
            since: apart.describe(from),
            position: from.map(|position| match position {
                Position::Number(number) => (*number).into(),
                Position::Token(token) => (**token).into(),
            }),
            stream: event.stream().to_owned(),
            index: event.index(),
            events: 0,
            more: false,
        }
    }
}
