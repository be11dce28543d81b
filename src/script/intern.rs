//! Sharing of frequent strings: keys, event types, SQL texts.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

/// The longest text that is shared. Hashing longer ones costs more than it saves.
const MAX_BYTES: usize = 512;
const SLOTS: usize = 512;
/// The number of uses of a kept text before a copy replaces it. Another thread drops the returned clones. Without fresh
/// copies both threads would write the same reference count, and its cache line would move between the processors.
const MAX_USES: u8 = 64;

/// A bounded, direct-mapped table of strings. A miss only costs a copy.
///
/// A slot keeps a text after two requests in a row, and gives it up after two requests in a row for other texts. Ids,
/// which occur once, thus do not displace frequent texts.
pub(super) struct Interner<T> {
    slots: Box<[Slot<T>]>,
    hasher: FixedState,
}

struct Slot<T> {
    hash: u64,
    kept: Option<T>,
    /// The kept text was requested since the last request for another text of this slot.
    used: bool,
    uses: u8,
}

impl<T: Clone + AsRef<str> + for<'a> From<&'a str>> Interner<T> {
    pub(super) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot { hash: 0, kept: None, used: false, uses: 0 }).collect();
        Self { slots, hasher: FixedState::default() }
    }

    pub(super) fn get(&mut self, text: &str) -> T {
        if text.len() > MAX_BYTES {
            return T::from(text);
        }
        let hash = self.hasher.hash_one(text);
        let slot = &mut self.slots[hash as usize % SLOTS];
        match &mut slot.kept {
            Some(kept) if (*kept).as_ref() == text => {
                slot.used = true;
                slot.uses += 1;
                if slot.uses == MAX_USES {
                    slot.uses = 0;
                    *kept = T::from(text);
                }
                return kept.clone();
            }
            Some(_) if slot.used => slot.used = false,
            _ if slot.hash == hash => {
                let made = T::from(text);
                slot.kept = Some(made.clone());
                return made;
            }
            _ => (slot.hash, slot.kept) = (hash, None),
        }
        T::from(text)
    }
}
