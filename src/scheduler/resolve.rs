//! Resolution of a batch's events before their admission: their places, and their streams.

use crate::event::{Event, Indexes, Kind};
use crate::position::Ordinal;

use super::ingest::{Arrival, BatchOrigin};
use super::slab::NONE;
use super::{BrokenFeed, Order, Scheduler};

/// The number of events that go through each loop of [`resolve`](Scheduler::resolve) at a time. The lines that one loop
/// reads must still be in the nearest cache when the next loop needs them.
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
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), BrokenFeed> {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        let numbered = self.number(origin, events, arrivals, &mut hashes);
        if numbered.is_ok() && self.options.order == Order::Stream {
            let mut before = NONE;
            let chunks = arrivals.chunks_mut(CHUNK).zip(events.chunks(CHUNK)).zip(hashes.chunks(CHUNK));
            for ((arrivals, events), hashes) in chunks {
                self.guess_streams(events, arrivals, hashes);
                before = self.verify_streams(origin, before, events, arrivals);
            }
        }
        self.hashes = hashes;
        numbered
    }

    /// Numbers the events of a batch, hashes their names, and notes what their admission needs of them.
    ///
    /// This loop is apart from the others: in it, the processor foresees that the events are read one after the other.
    fn number(
        &mut self,
        origin: &BatchOrigin,
        events: &mut [Event],
        arrivals: &mut Vec<Arrival>,
        hashes: &mut Vec<u64>,
    ) -> Result<(), BrokenFeed> {
        let (scope, by_stream) = (self.scope(origin.tranche), self.options.order == Order::Stream);
        let mut numbers = self.ledger.numbers(origin.tranche, origin.batch);
        let (mut held, mut hash, mut previous): (_, _, &[u8]) = (0, 0, &[]);
        arrivals.reserve(events.len());
        hashes.reserve(events.len());
        for (place, event) in (0..).zip(events) {
            let at = event.at();
            let slot = match numbers.number(at, event.is_unfold()) {
                Ok(slot) => slot,
                Err(last) => return Err(self.descends(origin.tranche, last, at)),
            };
            let recovered = numbers.tranche.covers(at);
            if recovered {
                event.exclude();
            }
            let event: &Event = event;
            let (kind, bytes) = (event.kind(), event.held_bytes() as u64);
            held += bytes;
            let name = if by_stream { event.stream_bytes() } else { &[] };
            let is_event = kind == Kind::Event && !name.is_empty();
            // The last bytes of most names differ, and comparing those costs no call.
            let repeats = is_event && name.last() == previous.last() && name == previous;
            if !repeats && by_stream {
                hash = self.streams.hash(name, scope);
            }
            previous = if is_event { name } else { &[] };
            hashes.push(hash);
            let (index, stream) = (event.index(), NONE);
            arrivals.push(Arrival { index, bytes, at: place, slot, stream, kind, repeats, is_new: false, recovered });
        }
        numbers.tranche.counts.bytes += held;
        Ok(())
    }

    /// Finds the streams that the hashes of events most likely belong to; `NONE` for an event without a stream.
    fn guess_streams(&mut self, events: &[Event], arrivals: &mut [Arrival], hashes: &[u64]) {
        self.streams.fetch_groups(hashes.iter().copied());
        for ((event, arrival), &hash) in events.iter().zip(&mut *arrivals).zip(hashes) {
            if arrival.repeats {
                continue;
            }
            if self.adds_stream(arrival, event) {
                (arrival.stream, arrival.is_new) = self.streams.guess_or_claim(hash);
            } else if arrival.kind == Kind::Placeholder && !event.stream_bytes().is_empty() {
                arrival.stream = self.streams.guess(hash);
            }
        }
        let guessed = || arrivals.iter().map(|arrival| arrival.stream);
        self.streams.fetch_known(guessed());
        self.streams.fetch_names(guessed());
    }

    /// Replaces guesses by the streams of the events' names. `before` is the stream of the event before the first.
    /// Returns the stream of the last event.
    fn verify_streams(&mut self, origin: &BatchOrigin, before: u32, events: &[Event], arrivals: &mut [Arrival]) -> u32 {
        let (scope, dense) = (self.scope(origin.tranche), self.options.indexes == Indexes::Dense);
        let (mut previous, mut added) = (before, 0);
        for (arrival, event) in arrivals.iter_mut().zip(events) {
            let stream = arrival.stream;
            let epochs = &self.ledger.epochs;
            let same = |epoch: u32| dense || epochs[epoch as usize].tranche == scope;
            if arrival.repeats {
                arrival.stream = previous;
            } else if arrival.is_new {
                self.streams.fill(stream, event.stream_bytes(), origin.epoch);
                added += 1;
            } else if stream != NONE && !self.streams.is(stream, event.stream_bytes(), same) {
                // Another stream has the hash.
                arrival.stream = if self.adds_stream(arrival, event) {
                    self.find_or_add(event.stream_bytes(), scope, origin.epoch)
                } else {
                    self.find(event.stream_bytes(), scope).unwrap_or(NONE)
                };
            }
            previous = arrival.stream;
        }
        self.ledger.epochs[origin.epoch as usize].streams += added;
        previous
    }

    /// Returns whether reading this event makes its stream known.
    #[inline]
    fn adds_stream(&self, arrival: &Arrival, event: &Event) -> bool {
        match arrival.kind {
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
