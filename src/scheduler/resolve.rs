//! Resolution of a batch's events before their admission: their places, and their streams.

use crate::event::{Event, Indexes, Kind};
use crate::position::Ordinal;

use super::ingest::BatchOrigin;
use super::slab::NONE;
use super::{BrokenFeed, Order, Scheduler};

/// An event's place and stream, before its admission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    pub(super) slot: u32,
    pub(super) stream: u32,
    hash: u64,
    /// Whether the stream is new.
    is_new: bool,
    /// Whether the event before is of the same stream.
    pub(super) repeats: bool,
    /// Whether the event was handled before the tranche was opened.
    pub(super) recovered: bool,
}

/// The number of events that go through each loop of [`resolve`](Scheduler::resolve) at a time. The lines that one loop
/// fetches must still be in the nearest cache when the next loop needs them.
const CHUNK: usize = 64;

impl Scheduler {
    /// Numbers the events of a batch, and finds their streams.
    ///
    /// Finding a stream reads three places that are rarely in a cache: the table, the stream's entry, its name. Each
    /// has a loop of its own, short enough that the processor waits for many of them at the same time.
    pub(super) fn resolve(
        &mut self,
        origin: &BatchOrigin,
        events: &mut [Event],
        resolved: &mut Vec<Resolved>,
    ) -> Result<(), BrokenFeed> {
        let scope = self.scope(origin.tranche);
        let by_stream = self.options.order == Order::Stream;
        let (mut numbers, mut bytes) = (self.ledger.numbers(origin.tranche, origin.batch), 0);
        resolved.reserve(events.len());
        let (mut previous, mut previous_hash): (&[u8], u64) = (&[], 0);
        for event in events.iter_mut() {
            let at = event.at();
            let slot = match numbers.number(at, event.is_unfold()) {
                Ok(slot) => slot,
                Err(last) => return Err(self.descends(origin.tranche, last, at)),
            };
            let recovered = numbers.tranche.covers(at);
            if recovered {
                event.exclude();
            }
            bytes += event.held_bytes() as u64;
            let event: &Event = event;
            let name = if by_stream && event.kind() == Kind::Event { event.stream_bytes() } else { &[] };
            let repeats = name.last() == previous.last() && name == previous && !name.is_empty();
            if !repeats && by_stream {
                previous_hash = self.streams.hash(event.stream_bytes(), scope);
            }
            previous = name;
            resolved.push(Resolved { slot, stream: NONE, hash: previous_hash, is_new: false, repeats, recovered });
        }
        numbers.tranche.counts.bytes += bytes;
        if !by_stream {
            return Ok(());
        }
        let (mut added, mut previous) = (0, NONE);
        for (resolved, events) in resolved.chunks_mut(CHUNK).zip(events.chunks(CHUNK)) {
            self.guess_streams(events, resolved);
            previous = self.verify_streams(origin, events, resolved, previous, &mut added);
        }
        self.ledger.epochs[origin.epoch as usize].streams += added;
        Ok(())
    }

    /// Replaces guesses by the streams of the events' names. `previous` is the stream of the event before the first.
    /// Returns the stream of the last event.
    fn verify_streams(
        &mut self,
        origin: &BatchOrigin,
        events: &[Event],
        resolved: &mut [Resolved],
        mut previous: u32,
        added: &mut usize,
    ) -> u32 {
        let (scope, dense) = (self.scope(origin.tranche), self.options.indexes == Indexes::Dense);
        for (resolved, event) in resolved.iter_mut().zip(events) {
            let (stream, name) = (resolved.stream, event.stream_bytes());
            let epochs = &self.ledger.epochs;
            let same = |epoch: u32| dense || epochs[epoch as usize].tranche == scope;
            if resolved.repeats {
                resolved.stream = previous;
            } else if resolved.is_new {
                self.streams.fill(stream, name, origin.epoch);
                *added += 1;
            } else if stream != NONE && !self.streams.is(stream, name, same) {
                // Another stream has the hash.
                resolved.stream = if self.adds_stream(event) {
                    self.find_or_add(name, scope, origin.epoch)
                } else {
                    self.streams.find(resolved.hash, name, same).unwrap_or(NONE)
                };
            }
            previous = resolved.stream;
        }
        previous
    }

    /// Finds the streams that the hashes of events most likely belong to; `NONE` for an event without a stream.
    fn guess_streams(&mut self, events: &[Event], resolved: &mut [Resolved]) {
        self.streams.fetch_groups(resolved.iter().map(|resolved| resolved.hash));
        for (resolved, event) in resolved.iter_mut().zip(events) {
            if resolved.repeats {
                continue;
            }
            if self.adds_stream(event) {
                (resolved.stream, resolved.is_new) = self.streams.guess_or_claim(resolved.hash);
            } else if event.kind() == Kind::Placeholder && !event.stream_bytes().is_empty() {
                resolved.stream = self.streams.guess(resolved.hash);
            }
        }
        let guessed = || resolved.iter().filter(|resolved| !resolved.is_new).map(|resolved| resolved.stream);
        self.streams.fetch_known(guessed());
        self.streams.fetch_names(guessed());
    }

    /// Returns whether reading this event makes its stream known.
    #[inline]
    fn adds_stream(&self, event: &Event) -> bool {
        match event.kind() {
            Kind::Event | Kind::Unfold => true,
            Kind::Placeholder => self.options.require_all && !event.stream_bytes().is_empty(),
            Kind::Malformed => false,
        }
    }

    fn descends(&self, tranche: u32, last: Ordinal, at: Ordinal) -> BrokenFeed {
        BrokenFeed::OrdinalsDescend { tranche: self.ledger.tranches[tranche as usize].id.clone(), last, at }
    }

    /// Returns the part of a stream's identity beside its name.
    pub(super) fn scope(&self, tranche: u32) -> u32 {
        if self.options.indexes.identify_by_tranche() { tranche } else { 0 }
    }

    pub(super) fn find(&self, name: &[u8], scope: u32) -> Option<u32> {
        let dense = self.options.indexes == Indexes::Dense;
        let epochs = &self.ledger.epochs;
        self.streams
            .find(self.streams.hash(name, scope), name, |epoch| dense || epochs[epoch as usize].tranche == scope)
    }

    #[inline]
    pub(super) fn find_or_add(&mut self, name: &[u8], scope: u32, epoch: u32) -> u32 {
        let dense = self.options.indexes == Indexes::Dense;
        let hash = self.streams.hash(name, scope);
        let epochs = &self.ledger.epochs;
        let (id, is_new) =
            self.streams.find_or_add(hash, name, epoch, |epoch| dense || epochs[epoch as usize].tranche == scope);
        self.ledger.epochs[epoch as usize].streams += usize::from(is_new);
        id
    }
}
