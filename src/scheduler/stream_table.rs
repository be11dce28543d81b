//! The table that finds a stream by a part of its name's hash.
//!
//! Entries stand in groups of one cache line, and a look-up usually reads one group, without a branch for each entry. The lines
//! of many look-ups can be fetched at once. The table is split into shards, so that no resize is long. The shards get unequal
//! shares of the names, spread over an octave: they grow one after the other, never all at once.

use super::slab::NONE;

const SHARDS: usize = 64;
const SHARES: usize = 2048;
/// Up to so many groups a shard grows fourfold: moving its entries costs more than the room.
const SMALL: usize = 128;
const GROUP: usize = 8;

/// In the place of an id: the entry was removed from a full group, and look-ups go on behind it.
const REMOVED: u32 = NONE - 1;

/// Streams, each by a part of its name's hash. A resize needs nothing else.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Group {
    shorts: [u32; GROUP],
    /// `NONE` marks a vacant place.
    ids: [u32; GROUP],
}

const _: () = assert!(size_of::<Group>() == 64);

const VACANT: Group = Group { shorts: [0; GROUP], ids: [NONE; GROUP] };

impl Group {
    /// Returns a byte for each place with this part of a hash.
    #[inline]
    fn matches(&self, short: u32) -> Matches {
        Matches(u64::from_le_bytes(self.shorts.map(|other| if other == short { u8::MAX } else { 0 })))
    }

    /// Returns the first vacant place. The used places of a group precede its vacant ones.
    #[inline]
    fn vacant(&self) -> Option<usize> {
        let is_used = |place: usize| usize::from(self.ids[place % GROUP] != NONE);
        if is_used(GROUP - 1) == 1 {
            return None;
        }
        // A binary search without branches: they would be mispredicted.
        let four = is_used(3) * 4;
        let six = four + is_used(four + 1) * 2;
        Some(six + is_used(six))
    }
}

/// The places of a group that may hold a stream: one byte of the word for each.
struct Matches(u64);

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let first = (self.0 != 0).then(|| self.0.trailing_zeros() as usize / 8 % GROUP)?;
        self.0 &= !(0xff << (first * 8));
        Some(first)
    }
}

/// One part of the table. The number of its groups is a power of two, or 0.
#[derive(Debug, Default)]
struct Shard {
    groups: Vec<Group>,
    /// Entries, and places of removed ones.
    used: usize,
    removed: usize,
}

/// A look-up's answer: the stream's id, or the group and the place that ended the search.
enum Probe {
    Found(u32),
    Vacant(usize, usize),
}

impl Shard {
    #[inline]
    fn home(&self, short: u32) -> usize {
        short as usize & (self.groups.len() - 1)
    }

    /// Searches from the hash's home group on. Some group has a vacant place.
    #[inline]
    fn probe(&self, short: u32, is_it: impl Fn(u32) -> bool) -> Probe {
        let mut at = self.home(short);
        loop {
            let group = &self.groups[at];
            for place in group.matches(short) {
                let id = group.ids[place];
                if id < REMOVED && is_it(id) {
                    return Probe::Found(id);
                }
            }
            if let Some(place) = group.vacant() {
                return Probe::Vacant(at, place);
            }
            at = (at + 1) & (self.groups.len() - 1);
        }
    }

    #[inline]
    fn add(&mut self, group: usize, place: usize, short: u32, id: u32) {
        let group = &mut self.groups[group];
        (group.shorts[place], group.ids[place]) = (short, id);
        self.used += 1;
    }

    /// Makes room for one more entry: at most seven places in eight are used, so that few groups are full.
    #[inline]
    fn reserve(&mut self) {
        if self.used + 1 > self.groups.len() * (GROUP - 1) {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let (len, live) = (self.groups.len(), self.used - self.removed);
        self.resize(match len {
            // Half of the places or more are those of removed entries.
            _ if live * 2 < self.used => len,
            _ if len < SMALL => (len * 4).max(1),
            _ => len * 2,
        });
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.groups, vec![VACANT; len]);
        (self.used, self.removed) = (self.used - self.removed, 0);
        // Without removed entries, a count finds the next vacant place of a group.
        let mut lens = vec![0_u8; len];
        for group in old {
            for (short, id) in group.shorts.into_iter().zip(group.ids).filter(|entry| entry.1 < REMOVED) {
                let mut at = self.home(short);
                while usize::from(lens[at]) == GROUP {
                    at = (at + 1) & (len - 1);
                }
                let place = usize::from(lens[at]);
                (self.groups[at].shorts[place], self.groups[at].ids[place]) = (short, id);
                lens[at] += 1;
            }
        }
    }

    fn remove(&mut self, short: u32, id: u32) {
        let mut at = self.home(short);
        loop {
            let group = &mut self.groups[at];
            let vacant = group.vacant();
            let Some(place) = group.ids.iter().position(|&other| other == id) else {
                assert_eq!(vacant, None, "a stream that is removed is in the table");
                at = (at + 1) & (self.groups.len() - 1);
                continue;
            };
            match vacant {
                // A look-up never passes a group with a vacant place, and so no entry lies behind this one because of it.
                Some(end) => {
                    (group.shorts[place], group.ids[place]) = (group.shorts[end - 1], group.ids[end - 1]);
                    group.ids[end - 1] = NONE;
                    self.used -= 1;
                }
                None => {
                    group.ids[place] = REMOVED;
                    self.removed += 1;
                }
            }
            return;
        }
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

    /// Reads the home groups of hashes, so that look-ups that follow find them in a cache.
    #[inline]
    pub(super) fn fetch(&self, hashes: impl Iterator<Item = u64>) {
        let home = |hash: u64| {
            let shard = &self.shards[self.shard(hash)];
            let at = (hash as u32) as usize & shard.groups.len().wrapping_sub(1);
            shard.groups.get(at).map_or(0, |group| group.ids[0])
        };
        std::hint::black_box(hashes.fold(0, |all, hash| all ^ home(hash)));
    }

    /// Finds the stream of a hash.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let shard = &self.shards[self.shard(hash)];
        if shard.groups.is_empty() {
            return None;
        }
        match shard.probe(hash as u32, is_it) {
            Probe::Found(id) => Some(id),
            Probe::Vacant(..) => None,
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
            Probe::Vacant(group, place) => {
                let id = new();
                shard.add(group, place, hash as u32, id);
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
            let live = shard.used - shard.removed;
            let fitting = (live / (GROUP / 2) + 1).next_power_of_two();
            if fitting * 2 < shard.groups.len() {
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
        /// Few different hashes, so that groups are full, and look-ups pass removed entries.
        #[test]
        fn the_table_is_a_map(steps in prop::collection::vec((0..96_u64, 0..10_u32), 1..400)) {
            let (mut table, mut naive, mut next) = (StreamTable::new(), HashMap::new(), 0_u32);
            for (key, action) in steps {
                // Keys 0 to 31 share one home group while the shard is small; the others have neighbouring ones.
                let hash = if key < 32 { key << 12 | 3 } else { key };
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
                    let hash = if key < 32 { key << 12 | 3 } else { key };
                    let found = table.find(hash, |id| naive.get(&key) == Some(&id));
                    prop_assert_eq!(found, naive.get(&key).copied());
                }
            }
        }
    }
}
