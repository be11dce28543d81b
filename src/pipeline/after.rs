//! `after`: a pipeline reads no further than another pipeline of this process has handled of the same feed.
//!
//! The other pipeline is the leader. Its driver shows the position of each tranche: every event before it is handled, skipped,
//! filtered or parked. The follower's readers hold each batch back until the leader's position has reached the end of the
//! batch. Positions and not ordinals are compared, and by the source alone: a source may number its events anew for each
//! group, and a leader that resumes at the tail has read no event whose ordinal it could show.
//!
//! A leader without followers shows nothing, and so costs nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::view::Standing;
use crate::position::{Position, TrancheId};
use crate::source::{Batch, Lag, LagUnit, Source};
use crate::telemetry::health::State;

/// The pipelines of this process by name, as leaders. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Leaders(Arc<Mutex<BTreeMap<Arc<str>, Arc<Leader>>>>);

/// The place of a pipeline among the others of its process.
#[derive(Clone, Default)]
pub struct Links {
    /// The pipeline itself, as a leader of others.
    pub(super) own: Option<Arc<Leader>>,
    /// The pipeline that this one comes after.
    pub(super) leader: Option<Arc<Leader>>,
    /// The identity of the source and its settings.
    pub(super) feed: Arc<str>,
}

/// A pipeline that others may come after. It may not run, or not exist.
#[derive(Debug)]
pub(super) struct Leader {
    name: Arc<str>,
    /// The readings of followers that exist now, and of all that ever existed.
    followers: AtomicUsize,
    joined: AtomicU64,
    shown: Mutex<Shown>,
    /// Wakes the readers that wait for it.
    changed: watch::Sender<()>,
}

/// The facts that a leader shows.
#[derive(Debug, Default)]
struct Shown {
    /// The state of the pipeline. The sender is gone once the pipeline is removed.
    standing: Option<watch::Receiver<Standing>>,
    /// The feed of its latest run.
    feed: Option<Arc<str>>,
    /// The positions of the tranches that its latest run has opened. `None`: the origin.
    passed: BTreeMap<TrancheId, Option<Position>>,
}

impl Leaders {
    /// Returns the links of a pipeline. `feed` identifies its source with all settings.
    pub fn links(&self, name: &str, feed: &str, after: Option<&str>) -> Links {
        Links { own: Some(self.leader(name)), leader: after.map(|after| self.leader(after)), feed: feed.into() }
    }

    /// Notes that a pipeline of this name exists from now on.
    pub(crate) fn attach(&self, name: &str, standing: watch::Receiver<Standing>) {
        let leader = self.leader(name);
        leader.shown().standing = Some(standing);
        leader.changed.send_replace(());
    }

    fn leader(&self, name: &str) -> Arc<Leader> {
        let mut leaders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = leaders.get(name) {
            return Arc::clone(leader);
        }
        let name: Arc<str> = name.into();
        let leader = Arc::new(Leader {
            name: Arc::clone(&name),
            followers: AtomicUsize::new(0),
            joined: AtomicU64::new(0),
            shown: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        leaders.insert(name, Arc::clone(&leader));
        leader
    }
}

impl Leader {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> Option<Standing> {
        let standing = self.shown().standing.clone()?;
        // Without a sender, the pipeline was removed.
        standing.has_changed().is_ok().then(|| standing.borrow().clone())
    }
}

/// The leader's side of a run: shows how far each tranche is.
pub(super) struct Lead {
    leader: Option<Arc<Leader>>,
    /// The number of followers that had joined when every tranche was shown.
    joined: u64,
}

impl Lead {
    /// Begins a run. It shows the positions of the tranches that it opens, and none of an earlier run.
    pub(super) fn begin(links: &Links) -> Self {
        if let Some(leader) = &links.own {
            let mut shown = leader.shown();
            shown.passed.clear();
            shown.feed = Some(Arc::clone(&links.feed));
        }
        Self { leader: links.own.clone(), joined: 0 }
    }

    /// Shows the positions of tranches, if there are followers: those of `changed`, or of all for a new follower.
    pub(super) fn show(
        &mut self,
        changed: &[TrancheId],
        all: impl FnOnce() -> Vec<TrancheId>,
        position: impl Fn(&TrancheId) -> Option<Option<Position>>,
    ) {
        let Some(leader) = self.leader.as_ref().filter(|leader| leader.followers.load(Ordering::Acquire) > 0) else {
            // A change that is not shown makes the shown positions old: the next follower gets all of them.
            if !changed.is_empty() {
                self.joined = 0;
            }
            return;
        };
        let joined = leader.joined.load(Ordering::Acquire);
        let every;
        let tranches = if joined == self.joined {
            changed
        } else {
            every = all();
            &every
        };
        self.joined = joined;
        let mut shown = leader.shown();
        let mut is_changed = false;
        for tranche in tranches {
            let Some(position) = position(tranche) else { continue };
            if shown.passed.get(tranche) != Some(&position) {
                shown.passed.insert(tranche.clone(), position);
                is_changed = true;
            }
        }
        drop(shown);
        if is_changed {
            leader.changed.send_replace(());
        }
    }
}

/// The follower's side of a run: holds batches back until the leader has handled them.
pub(super) struct Follow {
    leader: Arc<Leader>,
    feed: Arc<str>,
    source: Arc<dyn Source>,
    /// The batches that are held back.
    held: Mutex<BTreeMap<TrancheId, Held>>,
}

/// A batch that is held back.
#[derive(Clone, Debug)]
struct Held {
    end: Position,
    events: u64,
    lag: Option<Lag>,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("leader", &self.leader.name).finish_non_exhaustive()
    }
}

impl Follow {
    /// Begins to follow. Returns `None` if the pipeline comes after no other.
    pub(super) fn begin(links: &Links, source: &Arc<dyn Source>) -> Option<Arc<Self>> {
        let leader = Arc::clone(links.leader.as_ref()?);
        leader.followers.fetch_add(1, Ordering::AcqRel);
        leader.joined.fetch_add(1, Ordering::AcqRel);
        let (feed, source) = (Arc::clone(&links.feed), Arc::clone(source));
        Some(Arc::new(Self { leader, feed, source, held: Mutex::default() }))
    }

    /// Waits until the leader has handled every event of a batch.
    ///
    /// # Cancel safety
    /// The caller keeps the batch. Dropping the future ends the wait.
    pub(super) async fn wait(&self, tranche: &TrancheId, batch: &Batch) {
        // A batch without events moves the position alone.
        if batch.events.is_empty() {
            return;
        }
        let mut changed = self.leader.changed.subscribe();
        if self.has_passed(tranche, &batch.resume_at) {
            return;
        }
        tracing::debug!(after = &*self.leader.name, "read events wait for the other pipeline");
        let events = batch.events.len() as u64;
        let held = Held { end: batch.resume_at.clone(), events, lag: batch.lag };
        self.held().insert(tranche.clone(), held);
        let _released = Release { follow: self, tranche };
        while changed.changed().await.is_ok() {
            if self.has_passed(tranche, &batch.resume_at) {
                return;
            }
        }
        // The leader's entry holds the sender, and this follower holds the entry.
        unreachable!("the sender outlives its followers");
    }

    fn has_passed(&self, tranche: &TrancheId, end: &Position) -> bool {
        let shown = self.leader.shown();
        let is_same_feed = shown.feed.as_ref() == Some(&self.feed);
        match shown.passed.get(tranche) {
            Some(Some(position)) if is_same_feed => {
                self.source.compare(position, end).is_some_and(std::cmp::Ordering::is_ge)
            }
            _ => false,
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<TrancheId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the reason for which a tranche waits, and its backlog.
    pub(super) fn waits_for(&self, tranche: &TrancheId) -> Option<(String, Option<Lag>)> {
        let Held { events, lag, .. } = self.held().get(tranche)?.clone();
        let lag = lag.map(|lag| match lag.unit {
            LagUnit::Events => Lag { amount: lag.amount + events, ..lag },
            LagUnit::Bytes => lag,
        });
        Some((self.reason(tranche), lag))
    }

    fn reason(&self, tranche: &TrancheId) -> String {
        let name = &self.leader.name;
        let Some(Standing { state, reason, .. }) = self.leader.standing() else {
            return format!("tranche `{tranche}` waits for the pipeline `{name}`, which does not run in this daemon");
        };
        let shown = self.leader.shown();
        let is_other_feed = shown.feed.as_ref().is_some_and(|feed| *feed != self.feed);
        if is_other_feed {
            return format!("tranche `{tranche}` waits for the pipeline `{name}`, which now reads another source");
        }
        let handled = match shown.passed.get(tranche) {
            Some(Some(position)) => format!("has handled this tranche up to {}", self.source.describe(position)),
            Some(None) => "is at the origin of this tranche".to_owned(),
            None => "has not opened this tranche".to_owned(),
        };
        let state = match state {
            State::Running => String::new(),
            state => format!("; it is {state}: {reason}"),
        };
        format!("tranche `{tranche}` waits for the pipeline `{name}`, which {handled}{state}")
    }

    /// Returns the reason for which a tranche would wait for ever, if the leader has ended. A job must not wait for a command
    /// of the operator.
    pub(super) fn waits_in_vain(&self) -> Option<String> {
        let held: Vec<_> = self.held().iter().map(|(tranche, held)| (tranche.clone(), held.end.clone())).collect();
        if held.is_empty() {
            return None;
        }
        let has_ended = |state| matches!(state, State::Fenced | State::Halted | State::Finished | State::Stopped);
        let shown = self.leader.standing();
        if shown.is_some_and(|standing| !has_ended(standing.state)) {
            return None;
        }
        // In this order: a leader shows its last positions before it ends, and the reader may not have woken yet.
        held.into_iter().find(|(tranche, end)| !self.has_passed(tranche, end)).map(|(tranche, _)| self.reason(&tranche))
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.leader.followers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends a wait, also that of a cancelled reader.
struct Release<'a> {
    follow: &'a Follow,
    tranche: &'a TrancheId,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.follow.held().remove(self.tranche);
    }
}
