//! The room that a store has for the set of handled ordinals (C14), where effects and progress commit together.
//!
//! A transaction must cover the ordinals of its effects. It need not cover others: a filtered event that is read again is
//! filtered again, and a parked one stays parked as it is (C21). Decisions are taken oldest first. One that is not the oldest of its tranche leaves room for a run, so that
//! the oldest can always be stored, and the position moves.

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

/// Returns whether a decision is the oldest of its tranche and has several events. If it has no room by itself, its events are
/// decided singly.
pub(super) fn can_be_split(scheduler: &Scheduler, decided: &Decided) -> bool {
    let oldest = scheduler.tranche_of(decided.work.id).and_then(|tranche| scheduler.tranche(&tranche)?.blocked_at);
    !decided.work.is_single()
        && oldest.is_some_and(|oldest| decided.work.events.iter().any(|event| event.at() == oldest))
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
        // The stream of the oldest event goes first, in its own order: after out-of-order arrival by a later ordinal.
        let mut of_tranche =
            decided.clone().filter(|decided| scheduler.tranche_of(decided.work.id).as_ref() == Some(tranche));
        let mut leads_to_oldest = || {
            of_tranche.any(|decided| scheduler.explain(decided.work.stream(), decided.work.read_at).blocks.is_some())
        };
        size <= if has_oldest || moves || leads_to_oldest() { max } else { max.saturating_sub(RESERVED_BYTES) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
