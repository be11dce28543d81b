//! Finds the places of JSON values in a buffer and checks their syntax, without building anything.
//!
//! Strict: what is accepted here is accepted by serde_json too (but that numbers may be out of a float's range).

use std::ops::Range;

/// How deep values may nest, the outermost object included. One less than what serde_json refuses, so that whatever is
/// read here can be decoded later.
const MAX_DEPTH: u32 = 127;

/// What is wrong with a text, and where (0 = its first byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) at: usize,
    pub(super) why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string whose content stands in the text as it is.
    Plain,
    /// A string with escapes in it.
    Escaped,
    Number,
    True,
    False,
    Null,
    Object,
    Array,
}

/// The place of a value in the text, quotes and brackets included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) shape: Shape,
}

impl Token {
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Checks that the text is one JSON value, with white space around it at most.
pub(super) fn one_value(bytes: &[u8]) -> Result<Token, Bad> {
    one_value_by(Scanner::quick(bytes)).or_else(|_| one_value_by(Scanner::new(bytes)))
}

fn one_value_by<S: Strings>(scanner: Result<Scanner<'_, S>, Bad>) -> Result<Token, Bad> {
    let mut scanner = scanner?;
    scanner.space();
    let token = scanner.value(0)?;
    scanner.end()?;
    Ok(token)
}

/// A place in a text. Small and copied about: the loops work on a copy that lives in registers.
///
/// Where strings end is known in one of two ways. [`Quotes`] looks ahead for all quotes of 64 bytes at a time, which
/// takes the length of each string out of the chain of what has to be known before the next thing can be looked at;
/// it serves texts without backslashes and control characters. [`Careful`] looks at every string, and serves all.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'a, S = Careful> {
    bytes: &'a [u8],
    at: usize,
    non_ascii: bool,
    strings: S,
}

/// How a scanner passes strings.
pub(super) trait Strings: Copy {
    /// Passes the rest of a string, from behind its first quote to behind its last; returns whether it has escapes.
    fn pass(scanner: &mut Scanner<'_, Self>) -> Result<bool, Expected>;
}

/// What was expected at the scanner's place. One byte, so that results travel in registers.
#[derive(Clone, Copy)]
pub(super) enum Expected {
    /// A text that [`Quotes`] can serve: it has to be scanned again, carefully.
    Care,
    Value,
    Key,
    Colon,
    ObjectToGoOn,
    ArrayToGoOn,
    LessDepth,
    Digit,
    FractionDigit,
    ExponentDigit,
    Quote,
    NoControl,
    Escape,
    HexDigits,
    FirstSurrogate,
    SecondSurrogate,
}

impl Expected {
    fn why(self) -> &'static str {
        match self {
            Self::Care => "expected no backslash and no control character",
            Self::Value => "expected a value",
            Self::Key => "expected a key in quotes",
            Self::Colon => "expected `:` after a key",
            Self::ObjectToGoOn => "expected `,` or `}`",
            Self::ArrayToGoOn => "expected `,` or `]`",
            Self::LessDepth => "it nests deeper than 127 levels",
            Self::Digit => "expected a digit",
            Self::FractionDigit => "expected a digit after the decimal point",
            Self::ExponentDigit => "expected a digit in the exponent",
            Self::Quote => "expected `\"` at the end of a string",
            Self::NoControl => "expected no control character in a string",
            Self::Escape => "expected an escape that JSON has",
            Self::HexDigits => "expected four hexadecimal digits",
            Self::FirstSurrogate => "expected the first half of a surrogate pair before the second",
            Self::SecondSurrogate => "expected the second half of a surrogate pair",
        }
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Bad> {
        Self::by(bytes, Careful)
    }
}

impl<'a> Scanner<'a, Quotes> {
    /// Makes a scanner that fails where a [`Careful`] one may not.
    pub(super) fn quick(bytes: &'a [u8]) -> Result<Self, Bad> {
        Self::by(bytes, Quotes::default())
    }
}

impl<'a, S: Strings> Scanner<'a, S> {
    fn by(bytes: &'a [u8], strings: S) -> Result<Self, Bad> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(Bad { at: 0, why: "it is larger than 4 GiB" });
        }
        Ok(Self { bytes, at: 0, non_ascii: false, strings })
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[inline(always)]
    pub(super) fn expect(&mut self, byte: u8, why: &'static str) -> Result<(), Bad> {
        if self.eat(byte) { Ok(()) } else { Err(Bad { at: self.at, why }) }
    }

    #[inline(always)]
    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Checks that nothing but white space follows, and that all of the text is UTF-8.
    pub(super) fn end(&mut self) -> Result<(), Bad> {
        self.space();
        if self.at < self.bytes.len() {
            return Err(Bad { at: self.at, why: "expected nothing more" });
        }
        if !self.non_ascii {
            return Ok(());
        }
        std::str::from_utf8(self.bytes)
            .map(|_| ())
            .map_err(|error| Bad { at: error.valid_up_to(), why: "expected UTF-8" })
    }

    /// Passes a key and its colon; returns the place of the key's content, and whether it has escapes.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<(Range<usize>, bool), Bad> {
        let start = self.at + 1;
        match self.pass_key() {
            Ok((end, escaped)) => Ok((start..end, escaped)),
            Err(expected) => Err(Bad { at: self.at, why: expected.why() }),
        }
    }

    /// Passes one value, which stands `depth` levels deep.
    #[inline(always)]
    pub(super) fn value(&mut self, depth: u32) -> Result<Token, Bad> {
        let start = self.at as u32;
        match self.pass_value(depth) {
            Ok(shape) => Ok(Token { start, end: self.at as u32, shape }),
            Err(expected) => Err(Bad { at: self.at, why: expected.why() }),
        }
    }

    #[inline(always)]
    fn pass_value(&mut self, depth: u32) -> Result<Shape, Expected> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(if S::pass(self)? { Shape::Escaped } else { Shape::Plain })
            }
            Some(b'{') => self.container(depth).map(|()| Shape::Object),
            Some(b'[') => self.container(depth).map(|()| Shape::Array),
            _ => self.scalar(),
        }
    }

    /// Returns where the key's content ends, and whether it has escapes.
    #[inline(always)]
    fn pass_key(&mut self) -> Result<(usize, bool), Expected> {
        if !self.eat(b'"') {
            return Err(Expected::Key);
        }
        let escaped = S::pass(self)?;
        let end = self.at - 1;
        self.space();
        if !self.eat(b':') {
            return Err(Expected::Colon);
        }
        self.space();
        Ok((end, escaped))
    }

    #[inline(always)]
    fn scalar(&mut self) -> Result<Shape, Expected> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Shape::Number),
            Some(b't') => self.literal(b"true", Shape::True),
            Some(b'f') => self.literal(b"false", Shape::False),
            Some(b'n') => self.literal(b"null", Shape::Null),
            _ => Err(Expected::Value),
        }
    }

    fn literal(&mut self, word: &'static [u8], shape: Shape) -> Result<Shape, Expected> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Expected::Value);
        }
        self.at += word.len();
        Ok(shape)
    }

    #[inline(always)]
    fn number(&mut self) -> Result<(), Expected> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits(Expected::Digit)?;
        }
        if self.eat(b'.') {
            self.digits(Expected::FractionDigit)?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits(Expected::ExponentDigit)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn digits(&mut self, expected: Expected) -> Result<(), Expected> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(expected) } else { Ok(()) }
    }

    /// Passes an object or array with all that is in it.
    fn container(&mut self, outer: u32) -> Result<(), Expected> {
        let mut scanner = *self;
        let passed = scanner.pass_container(outer);
        *self = scanner;
        passed
    }

    /// A loop and a stack of bits (1 = object), not recursion: what comes in cannot overflow the stack.
    #[inline(always)]
    fn pass_container(&mut self, outer: u32) -> Result<(), Expected> {
        let mut depth = outer;
        let mut outer_objects = 0_u128;
        let mut in_object = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    S::pass(self)?;
                }
                Some(byte @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return Err(Expected::LessDepth);
                    }
                    self.at += 1;
                    depth += 1;
                    outer_objects = outer_objects << 1 | u128::from(in_object);
                    in_object = byte == b'{';
                    self.space();
                    if self.peek() != Some(closing(in_object)) {
                        if in_object {
                            self.pass_key()?;
                        }
                        continue;
                    }
                }
                _ => {
                    self.scalar()?;
                }
            }
            self.space();
            while !self.eat(b',') {
                if !self.eat(closing(in_object)) {
                    return Err(if in_object { Expected::ObjectToGoOn } else { Expected::ArrayToGoOn });
                }
                depth -= 1;
                if depth == outer {
                    return Ok(());
                }
                in_object = outer_objects & 1 == 1;
                outer_objects >>= 1;
                self.space();
            }
            self.space();
            if in_object {
                self.pass_key()?;
            }
        }
    }
}

/// Looks at every string by itself.
#[derive(Clone, Copy)]
pub(super) struct Careful;

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
    /// Passes a string that is not short and plain. By value, so that the caller's copy can stay in registers.
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
            Some(b'u') => match self.unit()? {
                0xdc00..0xe000 => Err(Expected::FirstSurrogate),
                0xd800..0xdc00 => {
                    if !self.eat(b'\\') {
                        return Err(Expected::SecondSurrogate);
                    }
                    match self.unit()? {
                        0xdc00..0xe000 => Ok(()),
                        _ => Err(Expected::SecondSurrogate),
                    }
                }
                _ => Ok(()),
            },
            _ => Err(Expected::Escape),
        }
    }

    /// Passes `u` and four hexadecimal digits.
    fn unit(&mut self) -> Result<u32, Expected> {
        if !self.eat(b'u') {
            return Err(Expected::SecondSurrogate);
        }
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or(Expected::HexDigits)?;
            unit = unit << 4 | digit;
            self.at += 1;
        }
        Ok(unit)
    }
}

#[inline(always)]
fn closing(object: bool) -> u8 {
    if object { b'}' } else { b']' }
}

/// How many bytes of a string are looked at together.
const CHUNK: usize = 16;

/// Returns how many bytes at the start need no attention in a string: printable ASCII but `"` and `\`. May return fewer.
#[inline(always)]
fn plain_prefix(chunk: &[u8; CHUNK]) -> usize {
    let whole = u128::from_le_bytes(*chunk);
    let (low, high) = (marks(whole as u64), marks((whole >> 64) as u64));
    let (word, passed) = if low == 0 { (high, CHUNK / 2) } else { (low, 0) };
    word.trailing_zeros() as usize / 8 + passed
}

/// Sets the highest bit of bytes that need attention. The first one is marked rightly; bytes behind it may be marked
/// too, by what was borrowed from them.
#[inline(always)]
fn marks(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * 0x20);
    (quote | backslash | control | word) & (ONES << 7)
}

/// The quotes of a text, found 64 bytes at a time.
#[derive(Clone, Copy, Default)]
pub(super) struct Quotes {
    /// One bit for each quote that was found and not yet passed.
    found: u64,
    /// Where the bytes that follow those begin.
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

const BLOCK: usize = 64;

impl Scanner<'_, Quotes> {
    #[inline(always)]
    fn next_quote(&mut self) -> Option<usize> {
        while self.strings.found == 0 {
            let rest = self.bytes.get(self.strings.next..).filter(|rest| !rest.is_empty())?;
            let block = match rest.first_chunk::<BLOCK>() {
                Some(block) => Block::of(block),
                None => Block::of_last(rest),
            };
            self.strings.next += BLOCK;
            self.strings.found = block.quotes;
            self.non_ascii |= block.non_ascii;
            if block.needs_care {
                return None;
            }
        }
        let quote = self.strings.next - BLOCK + self.strings.found.trailing_zeros() as usize;
        self.strings.found &= self.strings.found - 1;
        Some(quote)
    }
}

/// What is to be known of 64 bytes.
struct Block {
    quotes: u64,
    needs_care: bool,
    non_ascii: bool,
}

impl Block {
    /// Loops over arrays of a fixed size, which become vector instructions.
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
            // Brings the lowest bits of eight bytes together in the highest byte.
            bits |= (u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56) << shift;
        }
        Self { quotes: bits, needs_care: care != 0, non_ascii: all >= 0x80 }
    }

    #[inline(never)]
    fn of_last(rest: &[u8]) -> Self {
        let mut block = [b' '; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        Self::of(&block)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<Shape, (usize, &str)>) {
        let found = one_value(text.as_bytes()).map(|token| token.shape).map_err(|bad| (bad.at, bad.why));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn values_are_told_by_their_shape() {
        check("\"a\"", Ok(Shape::Plain));
        check("\"é and much more text\"", Ok(Shape::Plain));
        check("\"\\u00e9\\n\\ud83d\\ude00\"", Ok(Shape::Escaped));
        check(" -0.5e+7 ", Ok(Shape::Number));
        check("[]", Ok(Shape::Array));
        check("[ 1 , [ ] , {} , { \"a\" : [ true , false , null ] } ]", Ok(Shape::Array));
        check("{\"a\":{\"b\":[{\"c\":{}}]},\"d\":1}", Ok(Shape::Object));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        check("", Err((0, "expected a value")));
        check("nul", Err((0, "expected a value")));
        check("01", Err((1, "expected nothing more")));
        check("1.", Err((2, "expected a digit after the decimal point")));
        check("[1,]", Err((3, "expected a value")));
        check("[1}", Err((2, "expected `,` or `]`")));
        check("{\"a\":1,}", Err((7, "expected a key in quotes")));
        check("{\"a\" 1}", Err((5, "expected `:` after a key")));
        check("{\"a\":1]", Err((6, "expected `,` or `}`")));
        check("{\"a\":1", Err((6, "expected `,` or `}`")));
        check("\"abc", Err((4, "expected `\"` at the end of a string")));
        check("\"a\tb\"", Err((2, "expected no control character in a string")));
        check("\"\\x\"", Err((2, "expected an escape that JSON has")));
        check("\"\\ud800\"", Err((7, "expected the second half of a surrogate pair")));
        let not_utf8 = one_value(b"\"ab\xff\"").unwrap_err();
        assert_eq!((not_utf8.at, not_utf8.why), (3, "expected UTF-8"));
    }

    #[test]
    fn nesting_is_bounded_where_serde_json_still_decodes() {
        let nested = |depth: usize| "[".repeat(depth) + &*"]".repeat(depth);
        assert!(one_value(nested(127).as_bytes()).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(127)).is_ok());
        assert!(one_value(nested(128).as_bytes()).is_err());
        assert!(one_value("[".repeat(1_000_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn every_text_is_judged_as_serde_json_judges_it(text in r#"[\[\]{}",:0-9a-b\\ue.+\- \t]{0,12}|[\[{"]\PC{0,24}[\]}"]"#) {
            let theirs = match serde_json::from_str::<serde_json::Value>(&text) {
                Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
                theirs => theirs,
            };
            prop_assert_eq!(one_value(text.as_bytes()).is_ok(), theirs.is_ok(), "{}", text);
        }

        #[test]
        fn every_byte_of_a_value_matters_as_much_as_it_does_to_serde_json(at in 0_usize..90, byte: u8) {
            let mut text = br#"{"a":[1,-2.5e3,true,null,"long enough to be passed by words"],"b":{"c":"\u00e9\n"},"d":{}} "#.to_vec();
            text[at] = byte;
            let theirs = serde_json::from_slice::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(one_value(&text).is_ok(), theirs, "{}", String::from_utf8_lossy(&text));
        }
    }
}
