//! Proofs that a file still holds the bytes that were read (C2): hashes of its first bytes, its last bytes and all of them.
//!
//! Every hash here is stored, so none of them may ever change.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of bytes at each end of the read part that every check compares.
pub(super) const WINDOW: usize = 4_096;

/// The first bytes of a file: their number, and their hash (FNV-1a).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PrefixHash {
    pub(super) len: u64,
    hash: u64,
}

impl PrefixHash {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut prefix = Self { len: 0, hash: 0xcbf2_9ce4_8422_2325 };
        prefix.extend(bytes);
        prefix
    }

    /// Adds the following bytes, up to the window.
    fn extend(&mut self, bytes: &[u8]) {
        let wanted = WINDOW.saturating_sub(self.len as usize);
        let bytes = &bytes[..bytes.len().min(wanted)];
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.len += bytes.len() as u64;
    }
}

/// `4096:0123456789abcdef`
impl fmt::Display for PrefixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.len, self.hash)
    }
}

impl Serialize for PrefixHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PrefixHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = parse_counted(&text).map(|(len, hash)| Self { len, hash });
        parsed
            .filter(|prefix| prefix.len <= WINDOW as u64)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a number of bytes and their hash")))
    }
}

fn parse_counted(text: &str) -> Option<(u64, u64)> {
    let (count, hash) = text.split_once(':')?;
    Some((count.parse().ok()?, u64::from_str_radix(hash, 16).ok()?))
}

/// A hash of bytes, stored as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, std::hash::Hash)]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut sum = Sum::default();
        sum.extend(bytes);
        let rest = sum.carry[..sum.carried].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self(mix(mix(sum.state, rest), bytes.len() as u64))
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| serde::de::Error::custom(format!("`{text}` is not a hash of 16 hexadecimal digits")))
    }
}

/// Folds a 128-bit product, which spreads every bit of both operands over the result.
fn mix(state: u64, word: u64) -> u64 {
    // Odd constants with irregular bits; an all-zero operand must not stay zero.
    let product = u128::from(state ^ word ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (product as u64 ^ (product >> 64) as u64).wrapping_add(0xa076_1d64_78bd_642f)
}

/// The running hash of the read bytes, in words of eight bytes counted from the start of the file.
#[derive(Clone, Debug, Default)]
struct Sum {
    state: u64,
    /// The bytes of the last, incomplete word.
    carry: [u8; 8],
    carried: usize,
}

impl Sum {
    fn extend(&mut self, mut bytes: &[u8]) {
        if self.carried > 0 {
            let taken = bytes.len().min(8 - self.carried);
            self.carry[self.carried..self.carried + taken].copy_from_slice(&bytes[..taken]);
            self.carried += taken;
            bytes = &bytes[taken..];
            if self.carried < 8 {
                return;
            }
            self.state = mix(self.state, u64::from_le_bytes(self.carry));
        }
        let (words, rest) = bytes.as_chunks::<8>();
        self.state = words.iter().fold(self.state, |state, word| mix(state, u64::from_le_bytes(*word)));
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carried = rest.len();
    }
}

/// The hashes of all bytes before an offset, extended as reading goes on.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    head: PrefixHash,
    sum: Sum,
    /// The last bytes, at most a window of them.
    last: Vec<u8>,
}

impl Proof {
    pub(super) fn new() -> Self {
        Self { head: PrefixHash::of(&[]), sum: Sum::default(), last: Vec::new() }
    }

    /// Returns the proof at `offset` from its stored parts and the `last` bytes before the offset.
    pub(super) fn resumed(head: PrefixHash, sum: Hash, last: Vec<u8>, offset: u64) -> Self {
        let carried = (offset % 8) as usize;
        let mut carry = [0; 8];
        carry[..carried].copy_from_slice(&last[last.len() - carried..]);
        Self { head, sum: Sum { state: sum.0, carry, carried }, last }
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.head.extend(bytes);
        self.sum.extend(bytes);
        if bytes.len() >= WINDOW {
            self.last.clear();
        } else {
            let kept = WINDOW - bytes.len();
            self.last.drain(..self.last.len().saturating_sub(kept));
        }
        self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(WINDOW)..]);
    }

    pub(super) fn head(&self) -> PrefixHash {
        self.head
    }

    /// Returns the hash of all whole words.
    pub(super) fn sum(&self) -> Hash {
        Hash(self.sum.state)
    }

    /// Returns the hash of the last bytes.
    pub(super) fn tail(&self) -> Hash {
        Hash::of(&self.last)
    }
}

/// A digest of the earlier files that still exist: their number, and a hash of their names and sizes in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EarlierDigest {
    count: u64,
    hash: u64,
}

impl EarlierDigest {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn count(self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, name: &str, size: u64) {
        self.count += 1;
        self.hash = self.hash.wrapping_add(mix(Hash::of(name.as_bytes()).0, size));
    }

    pub(super) fn remove(&mut self, name: &str, size: u64) {
        self.count -= 1;
        self.hash = self.hash.wrapping_sub(mix(Hash::of(name.as_bytes()).0, size));
    }
}

impl Serialize for EarlierDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{:016x}", self.count, self.hash))
    }
}

impl<'de> Deserialize<'de> for EarlierDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_counted(&text)
            .map(|(count, hash)| Self { count, hash })
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a number of files and their hash")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stored_hashes_never_change() {
        let mut proof = Proof::new();
        proof.extend(b"the quick brown fox");
        let json = |value: Result<String, serde_json::Error>| value.unwrap();
        assert_eq!(
            [
                json(serde_json::to_string(&proof.head())),
                json(serde_json::to_string(&proof.sum())),
                json(serde_json::to_string(&proof.tail())),
            ],
            ["\"19:59aeb7b40bd8c122\"", "\"7e79c96d2a9c49fe\"", "\"1d2d83839bfbc7ff\""]
        );
    }

    proptest! {
        #[test]
        fn a_proof_depends_on_the_bytes_and_not_on_their_pieces(bytes: Vec<u8>, cuts in prop::collection::vec(0_usize..40, 0..6)) {
            let mut whole = Proof::new();
            whole.extend(&bytes);
            let (mut pieces, mut rest) = (Proof::new(), &*bytes);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.extend(piece);
                rest = after;
                let offset = (bytes.len() - rest.len()) as u64;
                pieces = Proof::resumed(pieces.head(), pieces.sum(), pieces.last.clone(), offset);
            }
            pieces.extend(rest);
            prop_assert_eq!((whole.head(), whole.sum(), whole.tail()), (pieces.head(), pieces.sum(), pieces.tail()));
        }

        #[test]
        fn a_changed_byte_changes_the_sum(mut bytes in prop::collection::vec(any::<u8>(), 8..200), at: usize, other in 1_u8..) {
            let proof_of = |bytes: &[u8]| { let mut proof = Proof::new(); proof.extend(bytes); (proof.sum(), proof.tail()) };
            let before = proof_of(&bytes);
            let at = at % bytes.len();
            bytes[at] = bytes[at].wrapping_add(other);
            prop_assert_ne!(before, proof_of(&bytes));
        }
    }
}
