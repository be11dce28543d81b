use super::*;
use crate::position::Ordinal;
use crate::scheduler::TrancheReport;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn key(tranche: &str) -> CheckpointKey {
    CheckpointKey { group: "g".into(), source: "s".into(), tranche: TrancheId::new(tranche) }
}

fn id(tranche: &str) -> TrancheId {
    TrancheId::new(tranche)
}

fn claimed(fence: u64) -> Claimed {
    Claimed { fence: Fence(fence), progress: None, sequence: 0 }
}

fn due(tranches: &mut Tranches, now: u64) -> Vec<(String, u64)> {
    let due = tranches.take_due_claims(at(now), |_| false);
    due.into_iter().map(|(key, epoch)| (key.tranche.to_string(), epoch)).collect()
}

/// Assigns a tranche and opens it.
fn open(tranches: &mut Tranches, tranche: &str, epoch: u64) -> mpsc::Receiver<Room> {
    tranches.added(key(tranche), None, epoch, at(0));
    assert_eq!(due(tranches, 0), [(tranche.to_owned(), epoch)]);
    assert!(tranches.claim_returned(&id(tranche), epoch));
    tranches.claimed(&id(tranche), &claimed(epoch), at(0));
    let (_, credits, _) = tranches.opened(&id(tranche)).unwrap();
    credits
}

fn end_reader(tranches: &mut Tranches, tranche: &str) {
    let opening = tranches.get(&id(tranche)).unwrap().reader.as_ref().unwrap().opening;
    tranches.reader_ended(&id(tranche), opening);
}

fn report(batches: usize, bytes: usize, unhandled: u64) -> TrancheReport {
    TrancheReport {
        tranche: id("0"),
        batches,
        batches_held: batches,
        bytes,
        ahead: unhandled,
        unhandled,
        in_flight: 0,
        set_runs: 0,
        version: 0,
        completed_batches: 0,
        completed_events: 0,
        blocked_at: None::<Ordinal>,
        blocked_since: None,
    }
}

const LIMITS: Limits = Limits { batches: 10, bytes: 1_000, events: 100, set_bytes: None, finite: false };

#[test]
fn one_call_claims_all_tranches_that_are_due() {
    let mut tranches = Tranches::default();
    tranches.added(key("a"), None, 1, at(0));
    tranches.added(key("b"), None, 1, at(0));
    assert_eq!(due(&mut tranches, 0), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!(due(&mut tranches, 0), [], "the claims are in flight");
    assert!(tranches.claim_returned(&id("a"), 1));
    tranches.claim_failed(&id("a"), "away".to_owned(), at(50), at(10));
    assert_eq!(tranches.next_wake(), Some(at(50)));
    assert_eq!(due(&mut tranches, 49), []);
    assert_eq!(due(&mut tranches, 50), [("a".to_owned(), 1)]);
}

#[test]
fn c26_a_claim_of_a_tranche_that_was_lost_meanwhile_is_not_wanted() {
    let mut tranches = Tranches::default();
    tranches.added(key("a"), None, 1, at(0));
    due(&mut tranches, 0);
    assert_eq!(tranches.lost(&id("a")), [Step::Forget(id("a"))]);
    assert_eq!(tranches.claims_and_readers(), 1, "the drain waits for the answer");
    assert!(!tranches.claim_returned(&id("a"), 1));
}

#[test]
fn c27_a_tranche_that_comes_back_is_claimed_once_the_first_claim_has_returned() {
    let mut tranches = Tranches::default();
    tranches.added(key("a"), None, 1, at(0));
    due(&mut tranches, 0);
    tranches.lost(&id("a"));
    assert_eq!(tranches.added(key("a"), None, 2, at(1)), [Step::Begin(id("a"))]);
    assert_eq!(due(&mut tranches, 1), [], "the first claim could be served later");
    assert!(!tranches.claim_returned(&id("a"), 1), "it belongs to the first assignment");
    assert_eq!(due(&mut tranches, 1), [("a".to_owned(), 2)]);
}

#[test]
fn c26_an_answer_for_another_assignment_is_not_wanted() {
    let mut tranches = Tranches::default();
    tranches.added(key("a"), None, 2, at(0));
    due(&mut tranches, 0);
    assert!(!tranches.claim_returned(&id("a"), 1));
    assert!(tranches.claim_returned(&id("a"), 2));
}

#[test]
fn c27_a_claim_waits_for_a_commit_of_its_key() {
    let mut tranches = Tranches::default();
    tranches.added(key("a"), None, 2, at(0));
    assert!(tranches.take_due_claims(at(0), |tranche| *tranche == id("a")).is_empty());
    assert_eq!(due(&mut tranches, 0), [("a".to_owned(), 2)]);
}

#[test]
fn c26_a_revoked_tranche_leaves_once_its_claim_has_returned() {
    let mut tranches = Tranches::default();
    tranches.added(key("a"), None, 1, at(0));
    due(&mut tranches, 0);
    assert_eq!(tranches.removed(&id("a"), Duration::ZERO, at(0)), [Step::StopOffering(id("a"))]);
    assert_eq!(tranches.take_left(at(9), |_, _| true), [], "its claim is in flight, though its time is up");
    assert!(!tranches.claim_returned(&id("a"), 1));
    let left = Step::Release { key: key("a"), epoch: 1, fence: None };
    assert_eq!(tranches.take_left(at(9), |_, _| true), [left]);
}

#[test]
fn a_tranche_that_is_not_claimed_yet_leaves_at_once() {
    let mut tranches = Tranches::default();
    tranches.added(key("a"), None, 1, at(0));
    let left = Step::Release { key: key("a"), epoch: 1, fence: None };
    assert_eq!(tranches.removed(&id("a"), Duration::from_secs(9), at(0)), [left]);
}

#[test]
fn c29_a_reader_ends_before_its_claim_is_released() {
    let mut tranches = Tranches::default();
    let _credits = open(&mut tranches, "a", 1);
    tranches.removed(&id("a"), Duration::from_millis(5), at(0));
    assert!(tranches.get(&id("a")).unwrap().reader.as_ref().unwrap().stop.is_cancelled());
    assert_eq!(tranches.take_left(at(9), |_, _| true), [], "the reader has not ended");
    let opening = tranches.get(&id("a")).unwrap().reader.as_ref().unwrap().opening;
    assert!(tranches.reading(&id("a"), opening).is_none(), "its batches do not count any more");
    end_reader(&mut tranches, "a");
    assert_eq!(tranches.take_left(at(4), |_, _| false), [], "calls run, and there is time");
    let left = Step::Release { key: key("a"), epoch: 1, fence: Some(Fence(1)) };
    assert_eq!(tranches.take_left(at(5), |_, _| false), [left], "its time is up");
}

#[test]
fn an_assignment_that_follows_a_drain_begins_after_it() {
    let mut tranches = Tranches::default();
    let _credits = open(&mut tranches, "a", 1);
    tranches.removed(&id("a"), Duration::from_secs(9), at(0));
    assert_eq!(tranches.added(key("a"), None, 2, at(1)), []);
    end_reader(&mut tranches, "a");
    let left = Step::Release { key: key("a"), epoch: 1, fence: Some(Fence(1)) };
    assert_eq!(tranches.take_left(at(2), |_, _| true), [left, Step::Begin(id("a"))]);
    assert_eq!(due(&mut tranches, 2), [("a".to_owned(), 2)]);
}

#[test]
fn a_repeated_assignment_changes_nothing() {
    let mut tranches = Tranches::default();
    let _credits = open(&mut tranches, "a", 3);
    assert_eq!(tranches.added(key("a"), None, 3, at(1)), []);
    assert_eq!(tranches.get(&id("a")).unwrap().phase, Phase::Reading);
}

#[test]
fn c15_a_fenced_tranche_stays_visible_and_is_not_claimed_again() {
    let mut tranches = Tranches::default();
    let _a = open(&mut tranches, "a", 1);
    let _b = open(&mut tranches, "b", 1);
    assert_eq!(tranches.fenced_by(&id("a"), "other".to_owned()), Some(1));
    assert!(!tranches.are_all_fenced());
    assert_eq!(due(&mut tranches, 1_000_000), []);
    assert_eq!(tranches.fenced().collect::<Vec<_>>(), [(&id("a"), "other")]);
    tranches.fenced_by(&id("b"), "other".to_owned());
    assert!(tranches.are_all_fenced());
    // A new assignment makes it claim again.
    tranches.added(key("a"), None, 2, at(1));
    assert_eq!(due(&mut tranches, 1), [("a".to_owned(), 2)]);
}

#[test]
fn bytes_are_limited_over_all_tranches_but_each_may_hold_one_batch() {
    let mut tranches = Tranches::default();
    let mut a = open(&mut tranches, "a", 1);
    let mut b = open(&mut tranches, "b", 1);
    tranches.grant(&id("a"), &report(2, 1_000, 20), &LIMITS, 0);
    assert!(a.try_recv().is_err(), "the bytes are used up");
    tranches.grant(&id("b"), &report(0, 0, 0), &LIMITS, 0);
    assert_eq!(b.try_recv().unwrap(), Room { events: 100, bytes: 1 });
    assert!(b.try_recv().is_err(), "one batch");
    assert_eq!(tranches.take_starved(&LIMITS), []);
    tranches.grant(&id("a"), &report(1, 100, 10), &LIMITS, 0);
    assert_eq!(a.try_recv().unwrap(), Room { events: 90, bytes: 900 });
    assert_eq!(tranches.take_starved(&LIMITS), [id("b")], "there is room again");
}

#[test]
fn batches_of_waiting_retries_do_not_count_as_read_ahead() {
    let mut tranches = Tranches::default();
    let mut credits = open(&mut tranches, "a", 1);
    tranches.grant(&id("a"), &report(10, 10, 10), &LIMITS, 0);
    assert!(credits.try_recv().is_err());
    tranches.grant(&id("a"), &report(10, 10, 10), &LIMITS, 2);
    assert!(credits.try_recv().is_ok() && credits.try_recv().is_ok() && credits.try_recv().is_err());
}

#[test]
fn c14_reading_stops_while_the_set_is_too_large_unless_only_reading_can_shrink_it() {
    let mut tranches = Tranches::default();
    let mut credits = open(&mut tranches, "a", 1);
    let limits = Limits { set_bytes: Some(40), ..LIMITS };
    let full = |unhandled| TrancheReport { set_runs: 10, ..report(1, 10, unhandled) };
    tranches.grant(&id("a"), &full(1), &limits, 0);
    assert!(credits.try_recv().is_err());
    tranches.grant(&id("a"), &full(0), &limits, 0);
    assert!(credits.try_recv().is_ok());
}

#[test]
fn a_finite_run_reads_nothing_behind_the_tail() {
    let mut tranches = Tranches::default();
    let mut credits = open(&mut tranches, "a", 1);
    tranches.get_mut(&id("a")).unwrap().at_tail = true;
    tranches.grant(&id("a"), &report(0, 0, 0), &Limits { finite: true, ..LIMITS }, 0);
    assert!(credits.try_recv().is_err());
    assert!(tranches.are_read_to_their_end());
}

#[test]
fn s15_a_tranche_that_has_ended_is_forgotten_once_its_reader_is_gone() {
    let mut tranches = Tranches::default();
    let _credits = open(&mut tranches, "a", 3);
    assert!(tranches.take_ended(&id("a")).is_none(), "it is still read");
    tranches.get_mut(&id("a")).unwrap().phase = Phase::Ended;
    assert!(tranches.take_ended(&id("a")).is_none(), "its reader still runs");
    end_reader(&mut tranches, "a");
    assert_eq!(tranches.take_ended(&id("a")), Some((key("a"), 3, Some(Fence(3)))));
    assert!(tranches.get(&id("a")).is_none());
    assert!(tranches.take_ended(&id("a")).is_none(), "it is forgotten once");
}

#[test]
fn a_revoked_tranche_wakes_the_driver_at_its_deadline() {
    let mut tranches = Tranches::default();
    let _credits = open(&mut tranches, "a", 1);
    assert_eq!(tranches.next_wake(), None);
    tranches.removed(&id("a"), Duration::from_millis(70), at(10));
    assert_eq!(tranches.next_wake(), Some(at(80)));
}
