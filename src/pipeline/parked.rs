//! The queue of work on its way into the parked store.

use std::sync::Arc;

use hashbrown::HashMap;

use super::messages::{MarkedWork, ToPark};
use super::tranches::Tranches;
use crate::event::Event;
use crate::position::TrancheId;
use crate::scheduler::Scheduler;
use crate::work::Work;

/// The work of parked streams that is not stored yet, and the reasons of the parked streams.
#[derive(Debug, Default)]
pub(super) struct ParkQueue {
    queue: Vec<Work>,
    /// Pieces of work that are being appended.
    appending: usize,
    /// The reason of each stream that this process parked, by tranche.
    reasons: HashMap<TrancheId, HashMap<Box<str>, Arc<str>>>,
}

impl ParkQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn appending(&self) -> usize {
        self.appending
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.appending == 0
    }

    pub(super) fn push(&mut self, work: Work) {
        self.queue.push(work);
    }

    /// Notes the reason for which a stream is parked. Its later events repeat it.
    pub(super) fn parked(&mut self, tranche: TrancheId, stream: &str, why: &str) {
        self.reasons.entry(tranche).or_default().insert(stream.into(), why.into());
    }

    /// Forgets the reasons of a tranche that is gone.
    pub(super) fn forget(&mut self, tranche: &TrancheId) {
        self.reasons.remove(tranche);
    }

    pub(super) fn take(&mut self) -> Vec<Work> {
        std::mem::take(&mut self.queue)
    }

    /// Notes the begin of an append.
    pub(super) fn began(&mut self, parks: &[ToPark]) {
        self.appending = parks.iter().map(|group| group.work.len()).sum();
    }

    pub(super) fn ended(&mut self) {
        self.appending = 0;
    }

    /// Groups work to be parked by checkpoint key. Returns the work of revoked tranches apart.
    pub(super) fn mark(&self, work: Vec<Work>, scheduler: &Scheduler, tranches: &Tranches) -> (Vec<ToPark>, Vec<Work>) {
        let mut groups: Vec<ToPark> = Vec::new();
        let mut unowned = Vec::new();
        for work in work {
            let claim = scheduler.tranche_of(work.id).and_then(|tranche| {
                let state = tranches.get(&tranche)?;
                Some((state.key.clone(), state.claim.fence?))
            });
            let Some((key, fence)) = claim else {
                unowned.push(work);
                continue;
            };
            let own = work.events.iter().map(Event::at).min().unwrap_or_default();
            let from = scheduler.parked_from(&work).unwrap_or(own);
            let reason = self.reasons.get(&key.tranche).and_then(|reasons| reasons.get(work.stream())).cloned();
            let why = reason.unwrap_or_else(|| "its stream was parked earlier".into());
            let marked = MarkedWork { work, from, why };
            match groups.iter_mut().find(|group| group.key == key) {
                Some(group) => group.work.push(marked),
                None => groups.push(ToPark { key, fence, work: vec![marked] }),
            }
        }
        (groups, unowned)
    }
}
