use super::*;
use crate::checkpoint::{CheckpointKey, Claimed, Fence};
use crate::event::{Assembler, Indexes, Kind};
use crate::position::Position;
use crate::scheduler::{self, IngestBatch, Order, Outcome};
use crate::sink::Effects;

/// A scheduler and a claimed tranche, with a batch of events of streams of their own.
struct Fixture {
    scheduler: Scheduler,
    tranches: Tranches,
    commits: Commits,
    tranche: TrancheId,
}

const INTERVAL: Duration = Duration::from_secs(5);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

impl Fixture {
    fn new(rules: Rules, events: u64) -> Self {
        let scheduler = Scheduler::new(scheduler::Options {
            order: Order::Stream,
            indexes: Indexes::Dense,
            require_all: false,
            streams_per_call: 1,
            max_events: 10,
            max_bytes: usize::MAX,
            hash_seed: 0,
        });
        let (tranches, commits) = (Tranches::default(), Commits::new(rules, at(0)));
        let mut fixture = Self { scheduler, tranches, commits, tranche: TrancheId::new("0") };
        fixture.open("0", events);
        fixture
    }

    /// Claims and opens a tranche, and reads its events.
    fn open(&mut self, name: &str, events: u64) {
        let tranche = TrancheId::new(name);
        let key = CheckpointKey { group: "g".into(), source: "s".into(), tranche: tranche.clone() };
        self.tranches.added(key, None, 1, at(0));
        self.tranches.take_due_claims(at(0), |_| false);
        self.tranches.claim_returned(&tranche, 1);
        self.tranches.claimed(&tranche, &Claimed { fence: Fence(1), progress: None, sequence: 7 }, at(0));
        self.scheduler.open(&tranche, None);
        let event = |n| Assembler::new(&format!("{name}-{n}"), "T").build(Kind::Event, Ordinal::new(n, 0), 0).unwrap();
        let (events, resume_at) = ((0..events).map(event).collect(), Position::Number(100));
        let batch = IngestBatch { tranche, events, resume_at, write_positions: Vec::new() };
        self.scheduler.ingest(batch, at(0)).unwrap();
        self.note_changes();
    }

    fn note_changes(&mut self) {
        for tranche in self.scheduler.take_changed() {
            self.commits.changed(tranche);
        }
    }

    fn take(&mut self) -> Work {
        self.scheduler.take_call(at(0)).unwrap().pop().unwrap()
    }

    fn handle(&mut self) {
        let work = self.take();
        let next = work.next;
        self.scheduler.finish(work, Outcome::Done { next }, at(0));
        self.note_changes();
    }

    fn collect(&mut self, done: &Done) -> Vec<PendingCommit> {
        self.commits.collect(&mut self.scheduler, &mut self.tranches, done)
    }
}

const PLAIN: Rules = Rules {
    plain_positions: false,
    max_set: Some(1_000),
    with_effects: false,
    write_positions: false,
    require_all: false,
    indexes: Indexes::Dense,
    interval: INTERVAL,
};
const WITH_EFFECTS: Rules = Rules { with_effects: true, ..PLAIN };

#[test]
fn r68_an_idle_tranche_commits_nothing() {
    let mut fixture = Fixture::new(PLAIN, 2);
    assert!(fixture.collect(&Done::default()).is_empty());
    assert!(!fixture.commits.is_due(at(100)), "and it is not looked at again");
}

#[test]
fn c11_a_commit_carries_the_number_after_the_stored_one() {
    let mut fixture = Fixture::new(PLAIN, 2);
    fixture.handle();
    assert!(!fixture.commits.is_due(at(4)) && fixture.commits.is_due(at(5)));
    let mut commits = fixture.collect(&Done::default());
    let commit = commits.pop().unwrap();
    assert_eq!((commit.sequence, commit.fence, commit.completed), (8, Fence(1), 1));
    assert!(fixture.commits.stored(&mut fixture.tranches, commit, 5, at(5)));
    assert!(fixture.collect(&Done::default()).is_empty());
    fixture.handle();
    assert_eq!(fixture.collect(&Done::default())[0].sequence, 9);
}

#[test]
fn c11_a_commit_with_unknown_outcome_is_repeated_unchanged() {
    let mut fixture = Fixture::new(PLAIN, 3);
    fixture.handle();
    let first = fixture.collect(&Done::default()).pop().unwrap();
    let (sequence, progress) = (first.sequence, first.progress.clone());
    keep_unsure(&mut fixture.tranches, first);
    fixture.handle();
    assert!(fixture.commits.are_wanted(&mut fixture.scheduler, &mut fixture.tranches));
    let again = fixture.collect(&Done::default()).pop().unwrap();
    assert_eq!((again.sequence, &again.progress, again.is_repeated), (sequence, &progress, true));
    fixture.commits.stored(&mut fixture.tranches, again, 5, at(5));
    let next = fixture.collect(&Done::default()).pop().unwrap();
    assert!(next.sequence == sequence + 1 && next.progress != progress);
}

#[test]
fn c15_a_commit_of_an_older_claim_does_not_move_the_chain_of_the_newer_one() {
    let mut fixture = Fixture::new(PLAIN, 2);
    fixture.handle();
    let old = fixture.collect(&Done::default()).pop().unwrap();
    let state = fixture.tranches.get_mut(&fixture.tranche).unwrap();
    (state.claim.fence, state.claim.sequence) = (Some(Fence(2)), 20);
    assert!(!fixture.commits.stored(&mut fixture.tranches, old, 5, at(5)));
    assert_eq!(fixture.tranches.get(&fixture.tranche).unwrap().claim.sequence, 20);
}

#[test]
fn s1_a_transaction_commits_its_effects_although_a_plain_position_does_not_move() {
    let mut fixture = Fixture::new(Rules { plain_positions: true, ..WITH_EFFECTS }, 2);
    let work = fixture.take();
    let mut done = Done::default();
    done.add(&fixture.scheduler, &work, work.next);
    let commit = fixture.collect(&done).pop().expect("the transaction checks its fence");
    assert_eq!((commit.progress.position, commit.progress.handled.is_empty()), (None, true));
}

#[test]
fn c14_progress_with_effects_covers_them_and_leaves_room_for_the_oldest_event() {
    let mut fixture = Fixture::new(Rules { max_set: Some(60), ..WITH_EFFECTS }, 9);
    let first = fixture.take();
    // Every second event is handled without effects: that need not be stored.
    for number in 0..7 {
        let work = fixture.take();
        let outcome =
            if number % 2 == 0 { Outcome::Done { next: work.next } } else { Outcome::Defer { until: at(99) } };
        fixture.scheduler.finish(work, outcome, at(0));
    }
    let last = fixture.take();
    let mut done = Done::default();
    done.add(&fixture.scheduler, &last, last.next);
    let commit = fixture.collect(&done).pop().unwrap();
    let at = last.events[0].at();
    assert_eq!(commit.progress.handled.runs(), [(at, at)]);
    assert_eq!(commit.needed, commit.progress.handled);
    drop(first);
}

#[test]
fn c14_the_ordinals_of_one_tranche_take_no_room_in_the_set_of_another() {
    let mut fixture = Fixture::new(Rules { max_set: Some(60), ..WITH_EFFECTS }, 9);
    let first = fixture.take();
    // The others are handled without effects. Their set has no room.
    for number in 1..9 {
        let work = fixture.take();
        let outcome =
            if number % 2 == 0 { Outcome::Done { next: work.next } } else { Outcome::Defer { until: at(99) } };
        fixture.scheduler.finish(work, outcome, at(0));
    }
    fixture.note_changes();
    fixture.open("1", 9);
    let effects: Vec<_> = (0..9).map(|_| fixture.take()).collect();
    let mut done = Done::default();
    effects.iter().for_each(|work| done.add(&fixture.scheduler, work, work.next));
    let commits = fixture.collect(&done);
    let sets: Vec<_> = commits.iter().map(|commit| (commit.tranche().as_str(), &commit.progress.handled)).collect();
    assert!(sets.iter().all(|(_, handled)| handled.is_empty()) && sets.len() == 1, "{sets:?}");
    drop(first);
}

#[test]
fn c14_decisions_without_room_in_the_stored_set_are_split_off() {
    let mut fixture = Fixture::new(Rules { max_set: Some(60), ..WITH_EFFECTS }, 20);
    let mut decided: Vec<_> = (0..20).map(|_| decided(fixture.take())).collect();
    // Every second event: each is a run of four bytes. The room for the run of the oldest event stays free.
    let mut odd: Vec<_> = decided.extract_if(.., |decided| decided.work.events[0].at().major % 2 == 1).collect();
    odd.reverse();
    let unfit = fixture.commits.split_off_unfit(&mut fixture.scheduler, &fixture.tranches, &mut odd);
    assert_eq!(odd.iter().map(|decided| decided.work.events[0].at().major).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(unfit.len(), 8);
    // With the others they move the position, and need no set.
    decided.extend(odd.into_iter().chain(unfit));
    let unfit = fixture.commits.split_off_unfit(&mut fixture.scheduler, &fixture.tranches, &mut decided);
    assert_eq!((decided.len(), unfit.len()), (20, 0));
}

fn decided(work: Work) -> Decided {
    Decided { next: work.next, effects: Effects::Emitted(Vec::new().into()), work, accepted: 0 }
}

#[test]
fn c14_a_commit_beyond_the_room_of_the_store_does_not_fit() {
    for (max_set, fits) in [(Some(5), true), (Some(4), false), (None, true)] {
        let mut fixture = Fixture::new(Rules { max_set, ..WITH_EFFECTS }, 2);
        let first = fixture.take();
        let work = fixture.take();
        let mut done = Done::default();
        done.add(&fixture.scheduler, &work, work.next);
        let commits = fixture.collect(&done);
        assert_eq!(fixture.commits.fit(&commits), fits, "{max_set:?}");
        drop(first);
    }
}

#[test]
fn a_tranche_is_completed_when_its_last_event_is_handled_and_stored() {
    let mut fixture = Fixture::new(PLAIN, 1);
    let is_completed = |fixture: &Fixture| is_completed(&fixture.scheduler, &fixture.tranches, &fixture.tranche);
    fixture.tranches.get_mut(&fixture.tranche).unwrap().phase = Phase::Ended;
    assert!(!is_completed(&fixture));
    fixture.handle();
    assert!(!is_completed(&fixture), "its progress is not stored");
    let commit = fixture.collect(&Done::default()).pop().unwrap();
    fixture.commits.stored(&mut fixture.tranches, commit, 0, at(1));
    assert!(is_completed(&fixture));
}
