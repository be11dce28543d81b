//! The streams that are known: their names, and how far each is handled.
//!
//! An idle stream costs its name, 32 bytes here, and an entry in a table that is split into shards, so that no resize is
//! long. The shards get unequal shares of the names, spread over an octave: they grow one after the other, never all at once.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::known::Known;
use super::names::Names;
use super::slab::{NONE, Slab};

/// A stream by a part of its name's hash: a resize needs nothing else.
#[derive(Clone, Copy, Debug)]
struct Named {
    short: u32,
    id: u32,
}

type Slots = Slab<Known, 4096>;

const SHARDS: usize = 64;
const SHARES: usize = 2048;
/// Up to this size a shard grows fourfold: moving what is in it costs more than the room.
const SMALL: usize = 1024;

/// The streams that are known.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Slots,
    names: Names,
    shards: Vec<HashTable<Named>>,
    /// Which shard a part of the hash belongs to.
    shares: Box<[u8; SHARES]>,
    hasher: FixedState,
}

impl Streams {
    pub(super) fn new(hash_seed: u64) -> Self {
        Self {
            slots: Slab::new(),
            names: Names::default(),
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            shares: shares(),
            hasher: FixedState::with_seed(hash_seed),
        }
    }

    /// Returns the hash of a name within a scope: the tranche, where that is part of a stream's identity.
    #[inline]
    pub(super) fn hash(&self, name: &[u8], scope: u32) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        hasher.write_u32(scope);
        hasher.finish()
    }

    #[inline]
    fn shard(&self, hash: u64) -> usize {
        usize::from(self.shares[(hash >> 32) as usize % SHARES])
    }

    /// Returns the stream that a hash most likely belongs to, by what is in the table alone; `NONE` if none has it.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> u32 {
        let short = hash as u32;
        self.shards[self.shard(hash)].find(spread(short), |named| named.short == short).map_or(NONE, |named| named.id)
    }

    /// Reads what is known of streams, and the beginnings of their names, so that they are in a cache when they are needed.
    #[inline]
    pub(super) fn fetch(&self, ids: impl Iterator<Item = u32>) {
        let known = ids.filter(|&id| id != NONE).map(|id| &self.slots[id]).filter(|known| !known.free);
        std::hint::black_box(known.fold(0_u32, |all, known| all ^ u32::from(self.names.first_byte(known.name))));
    }

    /// Returns whether a stream is the one of this name.
    #[inline]
    pub(super) fn is(&self, id: u32, name: &[u8], same: impl Fn(u32) -> bool) -> bool {
        let known = &self.slots[id];
        self.names.get(known.name, known.name_len) == name && same(known.epoch)
    }

    /// Finds a stream by its name, and by what holds of the epoch that it belongs to.
    pub(super) fn find(&self, hash: u64, name: &[u8], same: impl Fn(u32) -> bool) -> Option<u32> {
        let short = hash as u32;
        let is_it = |named: &Named| {
            named.short == short && {
                let known = &self.slots[named.id];
                self.names.get(known.name, known.name_len) == name && same(known.epoch)
            }
        };
        self.shards[self.shard(hash)].find(spread(short), is_it).map(|named| named.id)
    }

    /// Finds a stream, or adds it. The second value is whether it is new.
    pub(super) fn find_or_add(
        &mut self,
        hash: u64,
        name: &[u8],
        epoch: u32,
        same: impl Fn(u32) -> bool,
    ) -> (u32, bool) {
        let entry = self.entry(hash, |slots, names, id| {
            let known = &slots[id];
            names.get(known.name, known.name_len) == name && same(known.epoch)
        });
        if let (id, true) = entry {
            self.fill(id, name, epoch);
        }
        entry
    }

    /// Returns the stream that a hash most likely belongs to, by what is in the table alone. If none has it, one is added that
    /// is to be [filled](Self::fill).
    #[inline]
    pub(super) fn guess_or_claim(&mut self, hash: u64) -> (u32, bool) {
        self.entry(hash, |_, _, _| true)
    }

    #[inline]
    fn entry(&mut self, hash: u64, is_it: impl Fn(&Slots, &Names, u32) -> bool) -> (u32, bool) {
        let (short, shard) = (hash as u32, self.shard(hash));
        let Self { slots, names, shards, .. } = self;
        let is_it = |named: &Named| named.short == short && is_it(slots, names, named.id);
        let shard = &mut shards[shard];
        let len = shard.len();
        if len == shard.capacity() && len < SMALL {
            shard.reserve(3 * len, |named| spread(named.short));
        }
        match shard.entry(spread(short), is_it, |named| spread(named.short)) {
            Entry::Occupied(entry) => (entry.get().id, false),
            Entry::Vacant(entry) => {
                let id = slots.claim();
                entry.insert(Named { short, id });
                (id, true)
            }
        }
    }

    /// Fills the place of a stream that is new.
    #[inline]
    pub(super) fn fill(&mut self, id: u32, name: &[u8], epoch: u32) {
        self.slots[id] = known(&mut self.names, name, epoch);
    }

    /// Adds a stream that cannot be found: what holds one event, or a tranche's whole read order.
    pub(super) fn add_anonymous(&mut self, name: &[u8], epoch: u32) -> u32 {
        self.slots.insert(known(&mut self.names, name, epoch))
    }

    /// Gives an anonymous stream another name.
    pub(super) fn rename(&mut self, id: u32, name: &[u8]) {
        if self.name(id) == name {
            return;
        }
        let old = &self.slots[id];
        self.names.remove(old.name, old.name_len);
        let place = self.names.add(name);
        let known = &mut self.slots[id];
        (known.name, known.name_len) = (place, name.len() as u16);
    }

    pub(super) fn name(&self, id: u32) -> &[u8] {
        let known = &self.slots[id];
        self.names.get(known.name, known.name_len)
    }

    pub(super) fn text(&self, id: u32) -> &str {
        std::str::from_utf8(self.name(id)).expect("an event's texts were found to be UTF-8 when it was made")
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> &Known {
        &self.slots[id]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut Known {
        &mut self.slots[id]
    }

    pub(super) fn bound(&self) -> u32 {
        self.slots.bound()
    }

    /// Removes a stream that was found by this scope.
    pub(super) fn remove(&mut self, id: u32, scope: u32) {
        let hash = self.hash(self.name(id), scope);
        let shard = self.shard(hash);
        let entry = self.shards[shard].find_entry(spread(hash as u32), |named| named.id == id);
        entry.expect("a stream that is removed is in the table").remove();
        self.remove_anonymous(id);
    }

    pub(super) fn remove_anonymous(&mut self, id: u32) {
        let known = &mut self.slots[id];
        assert!(!known.free, "a stream is removed once");
        known.free = true;
        let (name, len) = (known.name, known.name_len);
        self.names.remove(name, len);
        self.slots.release(id);
    }

    /// Lets the table shrink after much was removed.
    pub(super) fn shrink(&mut self) {
        for shard in &mut self.shards {
            if shard.len() * 4 < shard.capacity() {
                shard.shrink_to(shard.len() * 2, |named| spread(named.short));
            }
        }
    }
}

fn known(names: &mut Names, name: &[u8], epoch: u32) -> Known {
    let len = u16::try_from(name.len()).expect("an event's stream name has at most 65,535 bytes");
    Known::new(names.add(name), len, epoch)
}

/// The table takes its tags from the upper bits of a hash and its places from the lower ones.
fn spread(short: u32) -> u64 {
    u64::from(short) << 32 | u64::from(short)
}

/// Shard `s` gets a share in proportion to `2^(s / SHARDS)`.
fn shares() -> Box<[u8; SHARES]> {
    let mut shares = Box::new([0; SHARES]);
    let whole: f64 = (0..SHARDS).map(|shard| (shard as f64 / SHARDS as f64).exp2()).sum();
    let (mut end, mut from) = (0.0, 0);
    for shard in 0..SHARDS {
        end += (shard as f64 / SHARDS as f64).exp2() / whole * SHARES as f64;
        let to = if shard + 1 == SHARDS { SHARES } else { end.round() as usize };
        shares[from..to].fill(shard as u8);
        from = to;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_found_by_name_and_scope_and_forgotten_when_removed() {
        let mut streams = Streams::new(1);
        let name = |number: u32| format!("order-{number}").into_bytes();
        let hash = |streams: &Streams, number, scope| streams.hash(&name(number), scope);
        for number in 0..20_000 {
            let hashed = hash(&streams, number, number % 2);
            let added = streams.find_or_add(hashed, &name(number), number % 2, |epoch| epoch == number % 2);
            assert_eq!(added, (number, true));
        }
        for number in 0..20_000 {
            let find = |scope| streams.find(hash(&streams, number, scope), &name(number), |epoch| epoch == scope);
            assert_eq!((find(number % 2), find(1 - number % 2)), (Some(number), None));
        }
        for number in (0..20_000).filter(|number| number % 3 == 0) {
            streams.remove(number, number % 2);
        }
        streams.shrink();
        for number in 0..20_000 {
            let found = streams.find(hash(&streams, number, number % 2), &name(number), |_| true);
            assert_eq!(found, (number % 3 != 0).then_some(number));
        }
    }

    #[test]
    fn every_shard_has_a_share_and_the_largest_twice_the_smallest() {
        let shares = shares();
        let sizes: Vec<_> =
            (0..SHARDS).map(|shard| shares.iter().filter(|&&of| usize::from(of) == shard).count()).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!((20..=26).contains(least) && (40..=48).contains(most), "{sizes:?}");
    }
}
