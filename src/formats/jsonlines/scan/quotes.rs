//! Strings by the positions of all quotes, in texts without backslashes and control characters.

use super::{Expected, Scanner, Strings};

/// The quotes of a text, found 64 bytes at a time.
#[derive(Clone, Copy, Default)]
pub(in crate::formats) struct Quotes {
    /// One bit for each quote found and not yet passed.
    found: u64,
    /// The position of the first byte after those.
    next: usize,
}

impl Strings for Quotes {
    #[inline(always)]
    fn pass(scanner: &mut Scanner<'_, Self>) -> Result<bool, Expected> {
        let Some(opening) = scanner.next_quote() else { return Err(Expected::Care) };
        debug_assert_eq!(opening + 1, scanner.at, "every quote outside of a string opens one");
        let Some(closing) = scanner.next_quote() else { return Err(Expected::Care) };
        scanner.at = closing + 1;
        Ok(false)
    }
}

impl Scanner<'_, Quotes> {
    #[inline(always)]
    fn next_quote(&mut self) -> Option<usize> {
        if self.strings.found == 0 {
            let (quotes, non_ascii) = look_ahead(self.bytes, self.strings.next)?;
            self.strings = quotes;
            self.non_ascii |= non_ascii;
        }
        let quote = self.strings.next - BLOCK + self.strings.found.trailing_zeros() as usize;
        self.strings.found &= self.strings.found - 1;
        Some(quote)
    }
}

const BLOCK: usize = 64;

/// Finds the next quotes from byte `next` on, and returns whether all bytes up to there are ASCII.
///
/// Not inlined and by value: the loops call it once per 64 bytes, stay small, and keep their state in registers.
#[inline(never)]
fn look_ahead(bytes: &[u8], mut next: usize) -> Option<(Quotes, bool)> {
    let mut non_ascii = false;
    loop {
        let rest = bytes.get(next..).filter(|rest| !rest.is_empty())?;
        let block = match rest.first_chunk::<BLOCK>() {
            Some(block) => Block::of(block),
            None => Block::of_last(bytes, rest),
        };
        next += BLOCK;
        non_ascii |= block.non_ascii;
        if block.needs_care {
            return None;
        }
        if block.quotes != 0 {
            return Some((Quotes { found: block.quotes, next }, non_ascii));
        }
    }
}

/// The facts about 64 bytes.
struct Block {
    /// One bit for each quote.
    quotes: u64,
    needs_care: bool,
    non_ascii: bool,
}

impl Block {
    /// Uses loops over arrays of a fixed size, which the compiler turns into vector instructions.
    #[inline(always)]
    fn of(bytes: &[u8; BLOCK]) -> Self {
        let mut quotes = [0_u8; BLOCK];
        let (mut care, mut all) = (0, 0);
        for (quote, byte) in quotes.iter_mut().zip(bytes) {
            *quote = u8::from(*byte == b'"');
            care |= u8::from(*byte == b'\\') | u8::from(*byte < 0x20);
            all |= byte;
        }
        let (words, _) = quotes.as_chunks::<8>();
        let mut bits = 0;
        for (word, shift) in words.iter().zip((0..).step_by(8)) {
            // The multiplication moves the lowest bits of eight bytes into the highest byte.
            bits |= (u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56) << shift;
        }
        Self { quotes: bits, needs_care: care != 0, non_ascii: all >= 0x80 }
    }

    /// Returns the facts about the `rest` of a text, which is shorter than a block. Earlier bytes, already checked, fill the
    /// block if there are enough.
    fn of_last(bytes: &[u8], rest: &[u8]) -> Self {
        if let Some(last) = bytes.last_chunk::<BLOCK>() {
            let whole = Self::of(last);
            return Self { quotes: whole.quotes >> (BLOCK - rest.len()), ..whole };
        }
        let mut block = [b' '; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        Self::of(&block)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_quote_is_found(text in "[a-z\"]{0,200}") {
            let (mut found, mut next) = (Vec::new(), 0);
            while let Some((quotes, _)) = look_ahead(text.as_bytes(), next) {
                next = quotes.next;
                found.extend((0..BLOCK).filter(|bit| quotes.found >> bit & 1 == 1).map(|bit| next - BLOCK + bit));
            }
            prop_assert_eq!(found, memchr::memchr_iter(b'"', text.as_bytes()).collect::<Vec<_>>());
        }
    }
}
