//! The known streams: their names, and their write positions.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::known::Known;
use super::names::Names;
use super::slab::{NONE, Slab};
use super::stream_table::StreamTable;

type Slots = Slab<Known, 4096>;

/// The streams that are known.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Slots,
    names: Names,
    table: StreamTable,
    hasher: FixedState,
}

impl Streams {
    pub(super) fn new(hash_seed: u64) -> Self {
        Self {
            slots: Slab::new(),
            names: Names::default(),
            table: StreamTable::new(),
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

    /// Returns the stream that a hash most likely belongs to, by the table alone; `NONE` if none has it.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> u32 {
        self.table.find(hash, |_| true).unwrap_or(NONE)
    }

    /// Reads the table's groups of hashes, so that [`guess`](Self::guess) finds them in a cache.
    #[inline]
    pub(super) fn fetch_groups(&self, hashes: impl Iterator<Item = u64>) {
        self.table.fetch(hashes);
    }

    /// Reads the entries of streams, so that they are in a cache when they are needed.
    #[inline]
    pub(super) fn fetch_known(&self, ids: impl Iterator<Item = u32>) {
        let known = ids.filter(|&id| id < self.slots.bound()).map(|id| self.slots[id].name);
        std::hint::black_box(known.fold(0, |all, name| all ^ name));
    }

    /// Reads the names of streams that were [fetched](Self::fetch_known) before: the address of a name is part of the
    /// entry.
    #[inline]
    pub(super) fn fetch_names(&self, ids: impl Iterator<Item = u32>) {
        let known = ids.filter(|&id| id != NONE).map(|id| &self.slots[id]).filter(|known| !known.free);
        std::hint::black_box(known.fold(0, |all, known| all ^ self.names.ends(known.name, known.name_len)));
    }

    /// Returns whether a stream is the one of this name.
    #[inline]
    pub(super) fn is(&self, id: u32, name: &[u8], same: impl Fn(u32) -> bool) -> bool {
        let known = &self.slots[id];
        self.names.is(known.name, known.name_len, name) && same(known.epoch)
    }

    /// Finds a stream by its name, and by a condition on its epoch.
    pub(super) fn find(&self, hash: u64, name: &[u8], same: impl Fn(u32) -> bool) -> Option<u32> {
        self.table.find(hash, |id| self.is(id, name, &same))
    }

    /// Finds a stream, or adds it. The second value is whether it is new.
    pub(super) fn find_or_add(
        &mut self,
        hash: u64,
        name: &[u8],
        epoch: u32,
        same: impl Fn(u32) -> bool,
    ) -> (u32, bool) {
        if let Some(id) = self.find(hash, name, same) {
            return (id, false);
        }
        let (id, _) = self.table.find_or_add(hash, |_| false, || self.slots.claim());
        self.fill(id, name, epoch);
        (id, true)
    }

    /// Returns the stream that a hash most likely belongs to, by the table alone. If none has it, one is added that the caller
    /// [fills](Self::fill).
    #[inline]
    pub(super) fn guess_or_claim(&mut self, hash: u64) -> (u32, bool) {
        self.table.find_or_add(hash, |_| true, || self.slots.claim())
    }

    /// Fills the place of a stream that is new.
    #[inline]
    pub(super) fn fill(&mut self, id: u32, name: &[u8], epoch: u32) {
        self.slots[id] = known(&mut self.names, name, epoch);
    }

    /// Adds a stream that cannot be found by name: that of one event, or of a tranche's whole read order.
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
        self.table.remove(hash, id);
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

    /// Returns the table's memory after many removals.
    pub(super) fn shrink(&mut self) {
        self.table.shrink();
    }
}

fn known(names: &mut Names, name: &[u8], epoch: u32) -> Known {
    let len = u16::try_from(name.len()).expect("an event's stream name has at most 65,535 bytes");
    Known::new(names.add(name), len, epoch)
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
}
