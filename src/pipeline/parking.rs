//! The driver's dealings with the parked store: what queues there, since when, and why.

use std::sync::Arc;

use super::OUTAGE;
use super::driver::{Driver, Event};
use crate::checkpoint::{CheckpointError, CheckpointKey, Fence, Parked};
use crate::formats::words::chain;
use crate::position::Ordinal;
use crate::runtime::supervise::TaskKind;
use crate::scheduler::Outcome;
use crate::sink::AnySink;
use crate::work::Work;

/// Work under one claim on its way into the parked store.
pub(super) struct ToPark {
    pub(super) key: CheckpointKey,
    pub(super) fence: Fence,
    work: Vec<Marked>,
}

/// Work, and what is kept with each of its events.
struct Marked {
    work: Work,
    from: Ordinal,
    why: Arc<str>,
}

impl ToPark {
    pub(super) fn events(&self) -> Vec<Parked<'_>> {
        self.work.iter().flat_map(Marked::events).collect()
    }
}

impl Marked {
    fn events(&self) -> impl Iterator<Item = Parked<'_>> {
        self.work.events.iter().map(|event| Parked { event, from: self.from, why: &self.why })
    }
}

impl Driver {
    /// Appends what waits for the parked store. A sink that holds the progress does that itself.
    pub(super) fn append_parked(&mut self) {
        if self.to_park.is_empty() || self.appending > 0 || matches!(self.sink, AnySink::Transactional(_)) {
            return;
        }
        let Some(store) = self.parked.clone() else { return };
        let work = std::mem::take(&mut self.to_park);
        let parks = self.mark(work);
        self.appending = parks.iter().map(|group| group.work.len()).sum();
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
            drop(events.send(Event::Appended { parks, result }).await);
            Ok(())
        });
    }

    /// Groups work by the claim it is under, with what is to be kept of it. What is of no claim any more goes back.
    pub(super) fn mark(&mut self, work: Vec<Work>) -> Vec<ToPark> {
        let mut groups: Vec<ToPark> = Vec::new();
        for work in work {
            let claim = self.scheduler.tranche_of(work.id).and_then(|tranche| {
                let state = self.tranches.get(&tranche)?;
                Some((state.key.clone(), state.claim.fence?))
            });
            let Some((key, fence)) = claim else {
                self.finish(work, Outcome::Return);
                continue;
            };
            let own = work.events.iter().map(crate::event::Event::at).min().unwrap_or_default();
            let from = self.scheduler.parked_from(&work).unwrap_or(own);
            let why = self.why_parked.get(work.stream()).cloned();
            let why = why.unwrap_or_else(|| "its stream was parked earlier".into());
            let marked = Marked { work, from, why };
            match groups.iter_mut().find(|group| group.key == key) {
                Some(group) => group.work.push(marked),
                None => groups.push(ToPark { key, fence, work: vec![marked] }),
            }
        }
        groups
    }

    pub(super) fn on_appended(&mut self, parks: Vec<ToPark>, result: Result<(), CheckpointError>) {
        self.appending = 0;
        match result {
            Ok(()) => self.were_parked(parks),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "events could not be parked, retrying");
                let until = self.now + OUTAGE.delay(3, &mut self.random);
                for marked in parks.into_iter().flat_map(|group| group.work) {
                    self.finish(marked.work, Outcome::Wait { until });
                }
            }
        }
    }

    /// What is parked counts as handled.
    pub(super) fn were_parked(&mut self, parks: Vec<ToPark>) {
        self.handled_at = self.now;
        for Marked { work, .. } in parks.into_iter().flat_map(|group| group.work) {
            self.counts.parked(work.events.len());
            let next = work.next;
            self.finish(work, Outcome::Done { next });
        }
    }

    /// Takes back what could not be parked.
    pub(super) fn give_parks_back(&mut self, parks: Vec<ToPark>) {
        self.give_back(parks.into_iter().flat_map(|group| group.work).map(|marked| marked.work).collect());
    }
}
