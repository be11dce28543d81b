//! Strings with any contents, scanned one by one.

use super::{Expected, Scanner, Strings};

/// The way that scans every string.
#[derive(Clone, Copy)]
pub(in crate::formats) struct Careful;

impl Strings for Careful {
    #[inline(always)]
    fn pass(scanner: &mut Scanner<'_>) -> Result<bool, Expected> {
        if let Some(chunk) = scanner.bytes[scanner.at..].first_chunk()
            && let plain = plain_prefix(chunk)
            && scanner.bytes.get(scanner.at + plain) == Some(&b'"')
        {
            scanner.at += plain + 1;
            return Ok(false);
        }
        let (passed_on, passed) = scanner.long_string();
        *scanner = passed_on;
        passed
    }
}

impl Scanner<'_> {
    /// Passes a string that is long or has escapes. Takes the scanner by value, so that the caller's copy stays in registers.
    #[inline(never)]
    fn long_string(mut self) -> (Self, Result<bool, Expected>) {
        let passed = self.pass_long_string();
        (self, passed)
    }

    fn pass_long_string(&mut self) -> Result<bool, Expected> {
        let mut escaped = false;
        loop {
            while let Some(chunk) = self.bytes[self.at..].first_chunk() {
                let plain = plain_prefix(chunk);
                self.at += plain;
                if plain < CHUNK {
                    break;
                }
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x80..) => {
                    self.non_ascii = true;
                    while let Some(0x80..) = self.peek() {
                        self.at += 1;
                    }
                }
                Some(0..0x20) => return Err(Expected::NoControl),
                Some(_) => self.at += 1,
                None => return Err(Expected::Quote),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Expected> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            // JavaScript writes surrogates without their other half. They are accepted here, although such a string cannot
            // be decoded: only a reader of this very string fails.
            Some(b'u') => self.unit(),
            _ => Err(Expected::Escape),
        }
    }

    /// Reads `u` and four hexadecimal digits.
    fn unit(&mut self) -> Result<(), Expected> {
        self.at += 1;
        for _ in 0..4 {
            if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                return Err(Expected::HexDigits);
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// The number of bytes of a string that are scanned together.
const CHUNK: usize = 16;

/// Returns the number of leading bytes that are printable ASCII other than `"` and `\`. May return fewer.
#[inline(always)]
fn plain_prefix(chunk: &[u8; CHUNK]) -> usize {
    let whole = u128::from_le_bytes(*chunk);
    let (low, high) = (marks(whole as u64), marks((whole >> 64) as u64));
    let (word, passed) = if low == 0 { (high, CHUNK / 2) } else { (low, 0) };
    word.trailing_zeros() as usize / 8 + passed
}

/// Sets the highest bit of all other bytes. The first mark is exact. Later bytes can be marked wrongly, as the subtraction
/// borrows from them.
#[inline(always)]
fn marks(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * 0x20);
    (quote | backslash | control | word) & (ONES << 7)
}
