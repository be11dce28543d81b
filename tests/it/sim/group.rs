//! The members of the group: the assignments of each, and the changes that its source has to report.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use propulsiond::checkpoint::CheckpointKey;
use propulsiond::pipeline::{Ended, View};
use propulsiond::position::{Ordinal, TrancheId};
use propulsiond::scheduler::Order;
use propulsiond::source::{Left, TrancheChange};
use propulsiond::work::{Work, WorkKind};
use tokio::time::Instant;

use super::feed::tranche_of;
use super::world::{Inner, World};

/// The members of a group that shares its tranches.
pub(super) const MEMBERS: [&str; 2] = ["first", "second"];

/// A change that a source has to report.
#[derive(Clone)]
pub(super) enum Coming {
    Added(TrancheId),
    Settled,
    Lost(TrancheId),
    Removed(TrancheId, Duration),
    Pause(Duration),
    /// Revokes the tranche, and assigns it again after its release.
    Move(TrancheId),
}

/// An assignment, from the group's point of view.
#[derive(Debug)]
struct Held {
    epoch: u64,
    /// The time at which the loss of the tranche was reported to the process.
    lost: Option<Instant>,
    /// The deadline of a revoked tranche.
    deadline: Option<Instant>,
    /// The time at which the process reported that it is fenced.
    fenced: Option<Instant>,
    /// The ordinals of the effects that a plain sink acknowledged.
    acknowledged: BTreeSet<Ordinal>,
}

/// The assignments of all processes, by process and tranche.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    held: BTreeMap<(String, String), Held>,
    epochs: BTreeMap<(String, String), u64>,
    left: BTreeSet<(String, String, u64)>,
}

/// The owner of each tranche in a group that shares them, and the changes to be reported to each member.
#[derive(Default)]
pub(super) struct Broker {
    owners: BTreeMap<TrancheId, &'static str>,
    coming: BTreeMap<&'static str, VecDeque<Coming>>,
}

fn place(process: &str, tranche: &str) -> (String, String) {
    (process.to_owned(), tranche.to_owned())
}

/// Returns the simulated time. The processes of a life have clocks of their own, which begin at different times.
#[expect(clippy::disallowed_methods, reason = "the runtime's paused time is the only one that all processes share")]
fn now() -> Instant {
    Instant::now()
}

/// Returns the process in the name of a claim's owner.
pub(super) fn process_of(owner: &str) -> &str {
    owner.split('-').next().unwrap_or(owner)
}

impl Inner {
    /// Ends the earlier assignments of a process that assembles its source. Returns the changes that the source reports.
    pub(super) fn start_source(&mut self, process: &str) -> VecDeque<Coming> {
        let assignments = &mut self.assignments;
        for (held, state) in assignments.held.extract_if(.., |(of, _), _| of == process) {
            assignments.left.insert((held.0, held.1, state.epoch));
        }
        let tranches: Vec<_> = self.logs.keys().map(|name| TrancheId::new(name.as_str())).collect();
        let shared = self.shares_tranches();
        let own = tranches.iter().filter(|tranche| !shared || self.broker.owners[*tranche] == process);
        let mut coming: VecDeque<_> = own.cloned().map(Coming::Added).collect();
        coming.push_back(Coming::Settled);
        if shared {
            self.broker.coming.retain(|member, _| *member != process);
        } else if self.plan.moving && !self.last {
            self.moves(&tranches, &mut coming);
        }
        coming
    }

    /// Adds changes for a process that has all tranches.
    fn moves(&mut self, tranches: &[TrancheId], coming: &mut VecDeque<Coming>) {
        for _ in 0..self.random.u32(1..4) {
            coming.push_back(Coming::Pause(Duration::from_millis(self.random.u64(1..500))));
            let tranche = tranches[self.random.usize(0..tranches.len())].clone();
            if self.random.bool() {
                coming.push_back(Coming::Move(tranche));
            } else {
                coming.push_back(Coming::Lost(tranche.clone()));
                coming.push_back(Coming::Pause(Duration::from_millis(self.random.u64(0..300))));
                coming.push_back(Coming::Added(tranche));
            }
        }
    }

    /// Returns whether two members share the tranches in this life.
    pub(super) fn shares_tranches(&self) -> bool {
        self.plan.trials.members && !self.last
    }

    /// Assigns each tranche to a member.
    pub(super) fn begin_group(&mut self) {
        self.assignments = Assignments::default();
        self.broker = Broker::default();
        let tranches: Vec<_> = self.logs.keys().map(|name| TrancheId::new(name.as_str())).collect();
        for tranche in tranches {
            let owner = MEMBERS[self.trials.usize(0..2)];
            self.broker.owners.insert(tranche, owner);
        }
    }

    pub(super) fn next_change(&mut self, process: &str) -> Option<Coming> {
        self.broker.coming.get_mut(process)?.pop_front()
    }

    /// Records an assignment just before its report.
    pub(super) fn assign(&mut self, process: &str, tranche: TrancheId) -> TrancheChange {
        let place = place(process, tranche.as_str());
        let epoch = self.assignments.epochs.entry(place.clone()).or_default();
        *epoch += 1;
        let epoch = *epoch;
        self.note(&format!("{process} is assigned {tranche} as {epoch}"));
        let held = Held { epoch, lost: None, deadline: None, fenced: None, acknowledged: BTreeSet::new() };
        self.assignments.held.insert(place, held);
        TrancheChange::Added { tranche, origin: None, epoch }
    }

    /// Records a loss just before its report.
    pub(super) fn lose(&mut self, process: &str, tranche: TrancheId) -> TrancheChange {
        self.note(&format!("{process} loses {tranche}"));
        if let Some(held) = self.assignments.held.get_mut(&place(process, tranche.as_str())) {
            held.lost.get_or_insert(now());
        }
        TrancheChange::Lost { tranche }
    }

    /// Records a revocation just before its report.
    pub(super) fn revoke(&mut self, process: &str, tranche: TrancheId, within: Duration) -> TrancheChange {
        self.note(&format!("{tranche} of {process} is revoked within {within:?}"));
        if let Some(held) = self.assignments.held.get_mut(&place(process, tranche.as_str())) {
            held.deadline = Some(now() + within);
        }
        TrancheChange::Removed { tranche, within }
    }

    /// Returns the number of an assignment, while it lasts.
    pub(super) fn epoch(&self, process: &str, tranche: &str) -> Option<u64> {
        self.assignments.held.get(&place(process, tranche)).map(|held| held.epoch)
    }

    /// Returns whether an assignment is over.
    pub(super) fn has_left(&self, process: &str, tranche: &str, epoch: u64) -> bool {
        self.assignments.left.contains(&(process.to_owned(), tranche.to_owned(), epoch))
    }

    /// Returns whether a process must know that it does not own a tranche.
    pub(super) fn is_foreign(&self, process: &str, tranche: &str) -> bool {
        let Some(held) = self.assignments.held.get(&place(process, tranche)) else { return true };
        // A report at this very moment may not have reached the driver.
        [held.lost, held.fenced].into_iter().flatten().any(|told| told < now())
    }

    /// Records the end of an assignment, as the process reports it.
    pub(super) fn leave(&mut self, process: &str, tranche: &str, epoch: u64, how: Left) {
        self.note(&format!("{process} left {tranche} as {epoch}: {how:?}"));
        self.assignments.left.insert((process.to_owned(), tranche.to_owned(), epoch));
        let place = place(process, tranche);
        let Some(held) = self.assignments.held.get_mut(&place) else { return };
        if held.epoch != epoch {
            return;
        }
        if how == Left::Fenced {
            held.fenced.get_or_insert(now());
            return;
        }
        let Some(held) = self.assignments.held.remove(&place) else { return };
        let in_time = held.deadline.is_none_or(|deadline| deadline > now());
        if held.fenced.is_none() && held.lost.is_none() && in_time {
            self.check_acknowledged(process, tranche, &held.acknowledged);
        }
    }

    /// Checks that the progress of all acknowledged writes is stored before the tranche is released.
    fn check_acknowledged(&mut self, process: &str, tranche: &str, acknowledged: &BTreeSet<Ordinal>) {
        // A plain position or a small set covers fewer events than were acknowledged.
        let unlimited = self.plan.max_set_bytes >= 64 * 1024 && !self.plan.feed.without_ordinals;
        let Some((key, kept)) = self.kept.iter().find(|(key, _)| key.tranche.as_str() == tranche) else { return };
        if !unlimited || process_of(kept.owner()) != process {
            return;
        }
        let covered: BTreeSet<_> = match kept.progress() {
            Some(progress) => self.logs[tranche].covered(progress).map(propulsiond::event::Event::at).collect(),
            None => BTreeSet::new(),
        };
        let missing = acknowledged.iter().find(|at| !covered.contains(at)).copied();
        let what = format!("{process} released {key}, and its progress lacks {missing:?}");
        self.demand(missing.is_none(), || what);
    }

    /// Records the release of a claim.
    pub(super) fn release(&mut self, key: &CheckpointKey, fence: u64) {
        let Some(kept) = self.kept.get_mut(key) else { return };
        let process = kept.claims.get(&fence).map_or("", |owner| process_of(owner));
        let held = self.assignments.held.get(&place(process, key.tranche.as_str()));
        // After the deadline of a revoked tranche, a commit may still be in flight.
        if held.and_then(|held| held.deadline).is_none_or(|deadline| deadline > now()) {
            kept.released.insert(fence);
        }
    }

    /// Checks that no event of a parked stream is offered, once its process knows that the stream is parked (C21).
    pub(super) fn check_parked_are_kept_back(&mut self, process: &str, work: &Work) {
        let owner = format!("{process}-{}", self.life);
        let Some((key, kept)) = self.kept.iter().find(|(key, _)| key.tranche.as_str() == tranche_of(&work.events[0]))
        else {
            return;
        };
        let claim = kept.claims.iter().rev().find(|(_, of)| **of == owner).map_or(0, |(fence, _)| *fence);
        let place = (key.clone(), work.stream().to_owned());
        // Without an order, an event parks alone (C8).
        if self.plan.order != Order::Stream || self.parked_under.get(&place).is_none_or(|fence| *fence > claim) {
            return;
        }
        let Some(queue) = self.parked.get(&place).filter(|_| work.kind != WorkKind::Retry) else { return };
        let from = queue.from;
        let kept_back = work.events.iter().all(|event| event.at() < from);
        self.demand(kept_back, || {
            format!("{:?} are offered, but their stream is parked from {from} on (C21)", work.events)
        });
    }

    /// Records the acknowledgement of a write that began under an assignment.
    pub(super) fn acknowledge(&mut self, process: &str, tranche: &str, epoch: u64, at: Ordinal) {
        if let Some(held) = self.assignments.held.get_mut(&place(process, tranche))
            && held.epoch == epoch
        {
            held.acknowledged.insert(at);
        }
    }

    /// Checks that a fenced process does not claim by itself (C15).
    pub(super) fn check_claim(&mut self, process: &str, key: &CheckpointKey) {
        let held = self.assignments.held.get(&place(process, key.tranche.as_str()));
        let is_fenced = held.is_some_and(|held| held.fenced.is_some());
        self.demand(!is_fenced, || format!("{process} is fenced, and claims {key} by itself (C15)"));
    }

    /// Checks that fenced tranches stay visible (C15).
    pub(super) fn check_fenced_are_visible(&mut self, process: &str, view: &View) {
        let now = now();
        let is_shown =
            |name: &str| view.tranches.iter().any(|tranche| tranche.tranche == name && tranche.phase == "fenced");
        let hidden = self.assignments.held.iter().find(|((of, tranche), held)| {
            of == process
                && held.lost.is_none()
                && held.deadline.is_none()
                && held.fenced.is_some_and(|told| told < now)
                && !is_shown(tranche)
        });
        let hidden = hidden.map(|(place, _)| place.clone());
        self.demand(hidden.is_none(), || format!("{hidden:?} is fenced, and its view does not show that (C15)"));
    }

    /// Checks the end of a process: no call runs after an orderly end, and a finished job has no fenced tranche.
    pub(super) fn check_end_of(&mut self, process: &str, ended: &Ended) {
        if matches!(ended, Ended::Finished | Ended::Stopped) {
            let running = self.active.iter().find(|(of, _)| of == process).cloned();
            self.demand(running.is_none(), || format!("{process} ended {ended:?} while {running:?} runs"));
        }
        if *ended != Ended::Finished {
            return;
        }
        let fenced = self.assignments.held.iter().find(|((of, _), held)| {
            of == process && held.fenced.is_some() && held.lost.is_none() && held.deadline.is_none()
        });
        let fenced = fenced.map(|(place, _)| place.clone());
        self.demand(fenced.is_none(), || format!("{process} finished while {fenced:?} is fenced (C15)"));
    }

    /// Claims one of several tranches, and so fences its owner.
    fn claim_one(&mut self) {
        let keys: Vec<_> = self.kept.keys().cloned().collect();
        if keys.len() < 2 {
            return;
        }
        let key = &keys[self.trials.usize(0..keys.len())];
        self.note(&format!("an outsider claims {key}"));
        self.kept.get_mut(key).expect("the key is kept").claim("outsider");
    }
}

/// Lets a process outside the group claim one tranche at a random time.
pub(super) async fn claim_by_outsider(world: &World) {
    let after = {
        let mut inner = world.lock();
        let strikes = inner.plan.trials.outsider && !inner.last;
        strikes.then(|| Duration::from_millis(inner.trials.u64(1..1_500)))
    };
    if let Some(after) = after {
        tokio::time::sleep(after).await;
        world.lock().claim_one();
    }
}

/// Moves tranches between the members, back and forth.
pub(super) async fn rebalance(world: &World) {
    if !world.lock().shares_tranches() {
        return;
    }
    loop {
        let pause = world.lock().trials.u64(1..400);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let (tranche, from, to, how) = {
            let mut inner = world.lock();
            let tranches = inner.broker.owners.len();
            let number = inner.trials.usize(0..tranches);
            let (tranche, from) =
                inner.broker.owners.iter().nth(number).map(|(tranche, owner)| (tranche.clone(), *owner)).unwrap();
            let to = MEMBERS[usize::from(from == MEMBERS[0])];
            (tranche, from, to, inner.trials.u32(0..4))
        };
        match how {
            0 | 1 => {
                let within = if how == 0 { world.lock().trials.u64(0..100) } else { 1_000_000 };
                hand_over(world, &tranche, from, Duration::from_millis(within)).await;
            }
            2 => world.send(from, Coming::Lost(tranche.clone())),
            // The next commit of the old owner is fenced. Its source reports the loss later.
            _ => {}
        }
        world.lock().broker.owners.insert(tranche.clone(), to);
        world.send(to, Coming::Added(tranche.clone()));
        if how == 3 {
            let delay = world.lock().trials.u64(0..600);
            tokio::time::sleep(Duration::from_millis(delay)).await;
            world.send(from, Coming::Lost(tranche));
        }
    }
}

/// Revokes a tranche, and waits until its owner has released it. The owner loses it after five seconds.
async fn hand_over(world: &World, tranche: &TrancheId, from: &'static str, within: Duration) {
    let epoch = world.lock().epoch(from, tranche.as_str());
    world.send(from, Coming::Removed(tranche.clone(), within));
    let Some(epoch) = epoch else { return };
    let left = async {
        while !world.lock().has_left(from, tranche.as_str(), epoch) {
            world.changed().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(5), left).await.is_err() {
        world.send(from, Coming::Lost(tranche.clone()));
    }
}

impl World {
    fn send(&self, process: &'static str, change: Coming) {
        self.lock().broker.coming.entry(process).or_default().push_back(change);
        self.notify();
    }
}
