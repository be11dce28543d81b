//! The table that finds a stream by a part of its name's hash.
//!
//! Open addressing with linear probing: a look-up usually reads one cache line, and the line can be fetched ahead for many
//! look-ups at once. The table is split into shards, so that no resize is long. The shards get unequal shares of the names,
//! spread over an octave: they grow one after the other, never all at once.

use super::slab::NONE;

/// A stream by a part of its name's hash. A resize needs nothing else.
#[derive(Clone, Copy, Debug)]
struct Entry {
    short: u32,
    /// `NONE` marks a vacant place.
    id: u32,
}

const VACANT: Entry = Entry { short: 0, id: NONE };

const SHARDS: usize = 64;
const SHARES: usize = 2048;
/// Up to this size a shard grows fourfold: moving its entries costs more than the room.
const SMALL: usize = 1024;

/// One part of the table. Its length is a power of two, or 0.
#[derive(Debug, Default)]
struct Shard {
    entries: Vec<Entry>,
    used: usize,
}

/// A look-up's answer: the stream's id, or the vacant place that ended the search.
enum Probe {
    Found(u32),
    Vacant(usize),
}

impl Shard {
    #[inline]
    fn home(&self, short: u32) -> usize {
        short as usize & (self.entries.len() - 1)
    }

    /// Searches from the hash's home place on. The shard has a vacant place.
    #[inline]
    fn probe(&self, short: u32, is_it: impl Fn(u32) -> bool) -> Probe {
        let mask = self.entries.len() - 1;
        let mut at = self.home(short);
        loop {
            let entry = self.entries[at];
            if entry.id == NONE {
                return Probe::Vacant(at);
            }
            if entry.short == short && is_it(entry.id) {
                return Probe::Found(entry.id);
            }
            at = (at + 1) & mask;
        }
    }

    /// Makes room for one more entry: at most four places in five are used, so that probes stay short.
    #[inline]
    fn reserve(&mut self) {
        if (self.used + 1) * 5 > self.entries.len() * 4 {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.entries.len();
        self.resize(if len < SMALL { (len * 4).max(4) } else { len * 2 });
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.entries, vec![VACANT; len]);
        for entry in old.into_iter().filter(|entry| entry.id != NONE) {
            match self.probe(entry.short, |_| false) {
                Probe::Vacant(at) => self.entries[at] = entry,
                Probe::Found(_) => unreachable!("no entry matches"),
            }
        }
    }

    /// Removes an entry. Later entries of the same run move up, so that no probe ends before them.
    fn remove(&mut self, short: u32, id: u32) {
        let mask = self.entries.len() - 1;
        let mut hole = self.home(short);
        while self.entries[hole].id != id {
            assert_ne!(self.entries[hole].id, NONE, "a stream that is removed is in the table");
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry.id == NONE {
                break;
            }
            // An entry may fill the hole unless its home lies behind the hole.
            let from_home = at.wrapping_sub(self.home(entry.short)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole] = VACANT;
        self.used -= 1;
    }
}

#[derive(Debug)]
pub(super) struct StreamTable {
    shards: Vec<Shard>,
    /// The shard of each part of the hash.
    shares: Box<[u8; SHARES]>,
}

impl StreamTable {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), shares: shares() }
    }

    #[inline]
    fn shard(&self, hash: u64) -> usize {
        usize::from(self.shares[(hash >> 32) as usize % SHARES])
    }

    /// Reads the home places of hashes, so that look-ups that follow find them in a cache.
    #[inline]
    pub(super) fn fetch(&self, hashes: impl Iterator<Item = u64>) {
        let home = |hash: u64| {
            let shard = &self.shards[self.shard(hash)];
            let at = (hash as u32) as usize & shard.entries.len().wrapping_sub(1);
            shard.entries.get(at).map_or(0, |entry| entry.id)
        };
        std::hint::black_box(hashes.fold(0, |all, hash| all ^ home(hash)));
    }

    /// Finds the stream of a hash.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let shard = &self.shards[self.shard(hash)];
        if shard.entries.is_empty() {
            return None;
        }
        match shard.probe(hash as u32, is_it) {
            Probe::Found(id) => Some(id),
            Probe::Vacant(_) => None,
        }
    }

    /// Finds the stream of a hash, or adds the one that `new` returns. The second value is whether the stream was added.
    #[inline]
    pub(super) fn find_or_add(
        &mut self,
        hash: u64,
        is_it: impl Fn(u32) -> bool,
        new: impl FnOnce() -> u32,
    ) -> (u32, bool) {
        let shard = self.shard(hash);
        let shard = &mut self.shards[shard];
        shard.reserve();
        match shard.probe(hash as u32, is_it) {
            Probe::Found(id) => (id, false),
            Probe::Vacant(at) => {
                let id = new();
                shard.entries[at] = Entry { short: hash as u32, id };
                shard.used += 1;
                (id, true)
            }
        }
    }

    /// Removes a stream that was added under this hash.
    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let shard = self.shard(hash);
        self.shards[shard].remove(hash as u32, id);
    }

    /// Returns memory after many removals.
    pub(super) fn shrink(&mut self) {
        for shard in &mut self.shards {
            let fitting = (shard.used * 2).next_power_of_two().max(4);
            if fitting * 2 < shard.entries.len() {
                shard.resize(fitting);
            }
        }
    }
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
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_shard_has_a_share_and_the_largest_twice_the_smallest() {
        let shares = shares();
        let sizes: Vec<_> =
            (0..SHARDS).map(|shard| shares.iter().filter(|&&of| usize::from(of) == shard).count()).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!((20..=26).contains(least) && (40..=48).contains(most), "{sizes:?}");
    }

    proptest! {
        /// Few different hashes, so that runs are long, wrap around and are torn by removals.
        #[test]
        fn the_table_is_a_map(steps in prop::collection::vec((0..96_u64, 0..10_u32), 1..400)) {
            let (mut table, mut naive, mut next) = (StreamTable::new(), HashMap::new(), 0_u32);
            for (key, action) in steps {
                // Keys 0 to 31 share one home place; the others have neighbouring ones.
                let hash = if key < 32 { key << 8 | 3 } else { key };
                match action {
                    0..6 => {
                        let is_it = |id: u32| naive.get(&key) == Some(&id);
                        let (id, is_new) = table.find_or_add(hash, is_it, || next);
                        prop_assert_eq!(is_new, !naive.contains_key(&key));
                        if is_new {
                            naive.insert(key, id);
                            next += 1;
                        }
                    }
                    6..9 => {
                        if let Some(id) = naive.remove(&key) {
                            table.remove(hash, id);
                        }
                    }
                    _ => table.shrink(),
                }
                for key in 0..96 {
                    let hash = if key < 32 { key << 8 | 3 } else { key };
                    let found = table.find(hash, |id| naive.get(&key) == Some(&id));
                    prop_assert_eq!(found, naive.get(&key).copied());
                }
            }
        }
    }
}
