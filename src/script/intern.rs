//! Strings that come again and again (keys, event types, SQL texts) are made once.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

/// Longer texts are not worth hashing.
const LONGEST: usize = 512;
const SLOTS: usize = 512;
/// How often a kept text is handed out before it is made anew. Another thread lets go of what was handed out: if that
/// were the very text that is handed out here at the same time, its count would travel between processors each time.
const RENEWED: u8 = 64;

/// A small direct-mapped table of strings: bounded, and never wrong, only sometimes of no use.
///
/// A text is kept once it came twice in a row in its slot, and gives way once another did not meet it for a while,
/// so that ids that come once do not displace texts that stay.
pub(super) struct Interner<T> {
    slots: Box<[Slot<T>]>,
    hasher: FixedState,
}

struct Slot<T> {
    hash: u64,
    kept: Option<T>,
    /// The kept text was asked for since another one last wanted its place.
    used: bool,
    times: u8,
}

impl<T: Clone + AsRef<str> + for<'a> From<&'a str>> Interner<T> {
    pub(super) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot { hash: 0, kept: None, used: false, times: 0 }).collect();
        Self { slots, hasher: FixedState::default() }
    }

    pub(super) fn get(&mut self, text: &str) -> T {
        if text.len() > LONGEST {
            return T::from(text);
        }
        let hash = self.hasher.hash_one(text);
        let slot = &mut self.slots[hash as usize % SLOTS];
        match &mut slot.kept {
            Some(kept) if (*kept).as_ref() == text => {
                slot.used = true;
                slot.times += 1;
                if slot.times == RENEWED {
                    slot.times = 0;
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
