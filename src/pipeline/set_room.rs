//! The room that a store has for the set of handled ordinals (C14), where effects and progress commit together.
//!
//! A transaction must cover the ordinals of its effects, and those of the events that it parks: once they are retried, their
//! effects must not come again (C13). It need not cover others: a filtered event that is read again is filtered again. Decisions are taken oldest first. A decision that does not lead
//! to the oldest event of its tranche leaves room for a run. So the oldest event can always be stored, and the position moves.

use super::tranches::Tranches;
use crate::event::Event;
use crate::position::{Ordinal, OrdinalSet};
use crate::scheduler::Scheduler;
use crate::sink::Decided;
use crate::work::WorkId;

/// The room that is kept for the run of a tranche's oldest event: twice its largest encoded size, as later runs can grow by a
/// few bytes.
pub(super) const RESERVED_BYTES: usize = 48;
/// The number of single decisions that are tried if no prefix has room.
const SINGLE_TRIES: usize = 64;

/// Returns the smallest part of the handled ordinals that covers the needed ones, and the given ordinals.
pub(super) fn smallest_cover(full: &OrdinalSet, needed: &OrdinalSet, ordinals: &[Ordinal]) -> OrdinalSet {
    let needed = needed.runs().iter().copied();
    let mut needed: Vec<(Ordinal, Ordinal)> = needed.chain(ordinals.iter().map(|at| (*at, *at))).collect();
    needed.sort_unstable();
    let mut needed = needed.into_iter().peekable();
    let mut handled = OrdinalSet::new();
    for &(first, last) in full.runs() {
        // Ordinals below the first run are below the position.
        while needed.next_if(|(_, end)| *end < first).is_some() {}
        let mut cover: Option<(Ordinal, Ordinal)> = None;
        while let Some((from, to)) = needed.next_if(|(from, _)| *from <= last) {
            let (from, to) = (from.max(first), to.min(last));
            cover = Some(cover.map_or((from, to), |(start, end)| (start.min(from), end.max(to))));
        }
        if let Some((from, to)) = cover {
            handled.push(from, to);
        }
    }
    handled
}

/// Returns the encoded size of a set.
pub(super) fn set_bytes(set: &OrdinalSet) -> usize {
    if set.is_empty() { 0 } else { set.encode().len() }
}

/// Splits off the decisions whose ordinals have no room in the stored sets. They wait until a position moves.
pub(super) fn split_off_unfit(
    scheduler: &mut Scheduler,
    tranches: &Tranches,
    max: usize,
    decided: &mut Vec<Decided>,
) -> Vec<Decided> {
    if has_ample_room(scheduler, tranches, max, decided) {
        return Vec::new();
    }
    decided.sort_by_key(|decided| (decided.work.read_at, decided.work.events.first().map(Event::at)));
    let all = decided.len();
    if fits(scheduler, tranches, max, decided.iter()) {
        return Vec::new();
    }
    // The size grows with nearly every decision; one that fills a gap shrinks it. The search need not find the longest
    // prefix, only one that fits.
    let (mut low, mut high) = (0, all - 1);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(scheduler, tranches, max, decided[..middle].iter()) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if low == 0
        && let Some(fitting) =
            (0..all.min(SINGLE_TRIES)).find(|&at| fits(scheduler, tranches, max, decided[at..=at].iter()))
    {
        decided.swap(0, fitting);
        low = 1;
    }
    decided.split_off(low)
}

/// Returns whether a decision has several events and leads to the oldest of its tranche. If it has no room by itself, its
/// events are decided singly.
pub(super) fn can_be_split(scheduler: &Scheduler, decided: &Decided) -> bool {
    !decided.work.is_single() && scheduler.leads_to_oldest(decided.work.id)
}

/// Returns whether the sets stay far below their limit even if each event adds a run.
fn has_ample_room(scheduler: &Scheduler, tranches: &Tranches, max: usize, decided: &[Decided]) -> bool {
    let events: usize = decided.iter().map(|decided| decided.work.events.len()).sum();
    decided.iter().all(|decided| {
        let Some(tranche) = scheduler.tranche_of(decided.work.id) else { return true };
        let (Some(state), Some(report)) = (tranches.get(&tranche), scheduler.tranche(&tranche)) else { return true };
        state.claim.set_bytes(report.set_runs + events) * 2 + RESERVED_BYTES < max
    })
}

fn fits<'a>(
    scheduler: &mut Scheduler,
    tranches: &Tranches,
    max: usize,
    decided: impl Iterator<Item = &'a Decided> + Clone,
) -> bool {
    let done: Vec<(WorkId, i64)> = decided.clone().map(|decided| (decided.work.id, decided.next)).collect();
    let ahead = scheduler.progress_with(&done);
    ahead.iter().all(|(tranche, full)| {
        let of_tranche =
            decided.clone().filter(|decided| scheduler.tranche_of(decided.work.id).as_ref() == Some(tranche));
        let ordinals: Vec<_> = of_tranche.flat_map(|decided| decided.work.events.iter().map(Event::at)).collect();
        let Some(state) = tranches.get(tranche) else { return true };
        let size = set_bytes(&smallest_cover(&full.handled, &state.claim.needed, &ordinals));
        let oldest = scheduler.tranche(tranche).and_then(|report| report.blocked_at);
        // A newer event can settle the oldest one: a stale unfold (C3). A position that moves has passed it.
        let has_oldest = oldest.is_some_and(|oldest| ordinals.contains(&oldest) || full.handled.contains(oldest));
        let stored = state.claim.committed.as_ref().and_then(|stored| stored.position.as_ref());
        let moves = stored != full.position.as_ref();
        // The stream of the oldest event goes first, in its own order. After out-of-order arrival the oldest event can follow
        // this work, and a stale unfold is handled with a newer event (C3).
        let leads = || {
            decided
                .clone()
                .map(|decided| decided.work.id)
                .any(|work| scheduler.tranche_of(work).as_ref() == Some(tranche) && scheduler.leads_to_oldest(work))
        };
        size <= if has_oldest || moves || leads() { max } else { max.saturating_sub(RESERVED_BYTES) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointKey, Claimed, Fence};
    use crate::clock::Timestamp;
    use crate::event::{Assembler, Indexes, Kind};
    use crate::position::{Position, Progress, TrancheId};
    use crate::scheduler::{self, IngestBatch, Order, Outcome};
    use crate::sink::Effects;

    fn set(runs: &[(u64, u64)]) -> OrdinalSet {
        let mut set = OrdinalSet::new();
        runs.iter().for_each(|&(first, last)| set.push(Ordinal::new(first, 0), Ordinal::new(last, 0)));
        set
    }

    fn check(full: &[(u64, u64)], needed: &[(u64, u64)], ordinals: &[u64], expected: &[(u64, u64)]) {
        let ordinals: Vec<_> = ordinals.iter().map(|&major| Ordinal::new(major, 0)).collect();
        assert_eq!(smallest_cover(&set(full), &set(needed), &ordinals), set(expected));
    }

    #[test]
    fn c14_the_stored_set_covers_effects_and_nothing_that_they_do_not_need() {
        check(&[(3, 9), (11, 11), (20, 30)], &[], &[5, 7], &[(5, 7)]);
        check(&[(3, 9), (11, 11), (20, 30)], &[(11, 11)], &[25], &[(11, 11), (25, 25)]);
        // A run of handled events joins two needed ones.
        check(&[(3, 30)], &[(4, 6)], &[20], &[(4, 20)]);
        // The position has passed the stored set.
        check(&[(20, 22)], &[(4, 6)], &[20], &[(20, 20)]);
        check(&[], &[(4, 6)], &[5], &[]);
    }

    /// A scheduler with one tranche `t`, and a batch of events by stream, ordinal and index. `u` marks an unfold.
    fn scheduler(events: &[(&str, u64, i64)]) -> Scheduler {
        let mut scheduler = Scheduler::new(scheduler::Options {
            order: Order::Stream,
            indexes: Indexes::Dense,
            require_all: false,
            streams_per_call: 1,
            max_events: 2,
            max_bytes: usize::MAX,
            hash_seed: 0,
        });
        let tranche = TrancheId::new("t");
        scheduler.open(&tranche, None);
        let event = |&(stream, at, index): &(&str, u64, i64)| {
            let (stream, kind) = match stream.strip_suffix("/u") {
                Some(stream) => (stream, Kind::Unfold),
                None => (stream, Kind::Event),
            };
            Assembler::new(stream, "T").build(kind, Ordinal::new(at, 0), index).unwrap()
        };
        let events = events.iter().map(event).collect();
        let batch = IngestBatch { tranche, events, resume_at: Position::Number(100), write_positions: Vec::new() };
        scheduler.ingest(batch, Timestamp::ZERO).unwrap();
        scheduler
    }

    /// Takes the next call, decided as a whole.
    fn decide(scheduler: &mut Scheduler) -> Decided {
        let work = scheduler.take_call(Timestamp::ZERO).unwrap().pop().unwrap();
        Decided { next: work.next, effects: Effects::Emitted(Vec::new().into()), work, accepted: 0 }
    }

    /// Opens the tranche of a [`scheduler`], with this set as the needed part of its last commit.
    fn tranches(needed: &[(u64, u64)]) -> Tranches {
        let (mut tranches, tranche) = (Tranches::default(), TrancheId::new("t"));
        let key = CheckpointKey { group: "g".into(), source: "s".into(), tranche: tranche.clone() };
        tranches.added(key, None, 1, Timestamp::ZERO);
        tranches.take_due_claims(Timestamp::ZERO, |_| false);
        assert!(tranches.claim_returned(&tranche, 1));
        let progress = Progress { handled: set(needed), ..Progress::default() };
        let claimed = Claimed { fence: Fence(1), progress: Some(progress), sequence: 1 };
        tranches.claimed(&tranche, &claimed, Timestamp::ZERO);
        tranches
    }

    /// Returns the streams whose decisions fit together into a set of `max` bytes. Every second event of the tranche is
    /// decided, after the oldest one if `with_oldest`.
    fn fitting(max: usize, with_oldest: bool) -> Vec<String> {
        let names: Vec<_> = (0..20).map(|number| format!("s-{number:02}")).collect();
        let events: Vec<_> = names.iter().zip(1..).map(|(name, at)| (name.as_str(), at, 0)).collect();
        let mut held = scheduler(&events);
        let all: Vec<_> = (0..20).map(|_| decide(&mut held)).collect();
        let is_wanted = |number: usize| number.is_multiple_of(2) && (with_oldest || number > 0);
        let mut decided: Vec<_> =
            all.into_iter().enumerate().filter(|(number, _)| is_wanted(*number)).map(|(_, decided)| decided).collect();
        let unfit = split_off_unfit(&mut held, &tranches(&[]), max, &mut decided);
        assert_eq!(decided.len() + unfit.len(), if with_oldest { 10 } else { 9 }, "no decision is lost");
        decided.iter().map(|decided| decided.work.stream().to_owned()).collect()
    }

    #[test]
    fn c14_decisions_are_taken_oldest_first_as_far_as_their_runs_have_room() {
        let even =
            |numbers: std::ops::Range<usize>| numbers.map(|number| format!("s-{:02}", number * 2)).collect::<Vec<_>>();
        // A run of one event takes four bytes here, the version one more.
        assert_eq!(fitting(1_000, true), even(0..10));
        assert_eq!(fitting(1_000, false), even(1..10));
        // Without the oldest event, room for its run is kept.
        let (with, without) = (fitting(RESERVED_BYTES + 13, true), fitting(RESERVED_BYTES + 13, false));
        assert_eq!(with, even(0..10), "the position moves, and passes the first run");
        assert_eq!(without, even(1..4));
        // A set that is full without the oldest event takes nothing else.
        assert_eq!(fitting(RESERVED_BYTES, false), even(0..0));
    }

    #[test]
    fn c14_a_span_whose_stream_holds_the_oldest_ordinal_is_split() {
        // The span has the oldest event itself.
        let mut held = scheduler(&[("a-1", 1, 0), ("b-1", 2, 0), ("b-1", 3, 1), ("a-1", 4, 1)]);
        for span in [decide(&mut held), decide(&mut held)] {
            let is_oldest = span.work.stream() == "a-1";
            assert_eq!(can_be_split(&held, &span), is_oldest, "{:?}", span.work.events);
        }
        // The oldest event follows the span in the order of its stream.
        let mut held = scheduler(&[("a-1", 1, 2), ("a-1", 2, 0), ("a-1", 3, 1)]);
        let span = decide(&mut held);
        assert!(can_be_split(&held, &span), "{:?}", span.work.events);
        // The oldest is a stale unfold, which is handled with the newer event.
        let mut held = scheduler(&[("a-1", 1, 1), ("a-1/u", 2, 2), ("a-1", 3, 2), ("a-1", 4, 3)]);
        let Decided { work, .. } = decide(&mut held);
        held.finish(work, Outcome::Done { next: 2 }, Timestamp::ZERO);
        let span = decide(&mut held);
        assert!(can_be_split(&held, &span), "{:?}", span.work.events);
        // A single event cannot be split.
        let mut held = scheduler(&[("a-1", 1, 0)]);
        let single = decide(&mut held);
        assert!(!can_be_split(&held, &single));
    }
}
