//! Locates JSON values in a buffer and checks their syntax, without building values.
//!
//! serde_json accepts every text that this scanner accepts, with two exceptions: numbers beyond the range of a float, and
//! strings with an escaped surrogate without its other half.

mod careful;
mod quotes;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(in crate::formats) use careful::Careful;
pub(in crate::formats) use quotes::Quotes;

/// The maximum nesting of values, with the outermost one. serde_json refuses one level more, so it can decode every
/// accepted text.
const MAX_DEPTH: u32 = 127;

/// A syntax error, with its byte, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) struct Bad {
    pub(in crate::formats) at: usize,
    pub(in crate::formats) why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) enum Shape {
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    Number,
    True,
    False,
    Null,
    Object,
    Array,
}

/// The location of a value, with its quotes or brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) struct Token {
    pub(in crate::formats) start: u32,
    pub(in crate::formats) end: u32,
    pub(in crate::formats) shape: Shape,
}

impl Token {
    pub(in crate::formats) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Checks that the text is one JSON value, with optional white space around it.
pub(in crate::formats) fn one_value(bytes: &[u8]) -> Result<Token, Bad> {
    one_value_by(Scanner::fast(bytes)).or_else(|_| one_value_by(Scanner::new(bytes)))
}

fn one_value_by<S: Strings>(scanner: Result<Scanner<'_, S>, Bad>) -> Result<Token, Bad> {
    let mut scanner = scanner?;
    scanner.space();
    let token = scanner.value(0)?;
    scanner.end()?;
    Ok(token)
}

/// A position in a text. The loops work on a copy of it, which stays in registers.
///
/// The ends of strings are found in one of two ways. [`Quotes`] finds all quotes of 64 bytes at once, so that the
/// processor need not wait for the end of one string before it scans the next token. It serves texts without backslashes
/// and control characters. [`Careful`] scans every string, and serves all texts.
#[derive(Clone, Copy)]
pub(in crate::formats) struct Scanner<'a, S = Careful> {
    bytes: &'a [u8],
    at: usize,
    non_ascii: bool,
    strings: S,
}

/// A way to pass strings.
pub(in crate::formats) trait Strings: Copy {
    /// Passes a string from behind its first quote to behind its last. Returns whether it has escapes.
    fn pass(scanner: &mut Scanner<'_, Self>) -> Result<bool, Expected>;
}

/// The syntax expected at the position of the scanner. One byte, so that results stay in registers.
#[derive(Clone, Copy)]
pub(in crate::formats) enum Expected {
    /// A text without backslashes and control characters. [`Quotes`] fails with it, and [`Careful`] scans the text again.
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
        }
    }
}

impl<'a> Scanner<'a> {
    pub(in crate::formats) fn new(bytes: &'a [u8]) -> Result<Self, Bad> {
        Self::by(bytes, Careful)
    }
}

impl<'a> Scanner<'a, Quotes> {
    /// Makes a scanner that fails where a [`Careful`] one may not.
    pub(in crate::formats) fn fast(bytes: &'a [u8]) -> Result<Self, Bad> {
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

    /// Returns the position in the text.
    pub(in crate::formats) fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(in crate::formats) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    pub(in crate::formats) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[inline(always)]
    pub(in crate::formats) fn expect(&mut self, byte: u8, why: &'static str) -> Result<(), Bad> {
        if self.eat(byte) { Ok(()) } else { Err(Bad { at: self.at, why }) }
    }

    #[inline(always)]
    pub(in crate::formats) fn space(&mut self) {
        while self.is_at_space() {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn is_at_space(&self) -> bool {
        matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r'))
    }

    /// Eats the byte, with optional white space before it. The common case without white space comes first.
    #[inline(always)]
    pub(in crate::formats) fn eat_next(&mut self, byte: u8) -> bool {
        if self.eat(byte) {
            return true;
        }
        self.is_at_space() && {
            self.space();
            self.eat(byte)
        }
    }

    /// Passes the separator after an item of an object or array that ends with `bracket`. Returns whether an item follows.
    #[inline(always)]
    pub(in crate::formats) fn goes_on(&mut self, bracket: u8, why: &'static str) -> Result<bool, Bad> {
        if self.eat_next(b',') {
            return Ok(true);
        }
        self.expect(bracket, why)?;
        Ok(false)
    }

    /// Checks that only white space follows, and that the whole text is UTF-8.
    pub(in crate::formats) fn end(&mut self) -> Result<(), Bad> {
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

    /// Returns whether the text is ASCII. Valid only at its end.
    pub(in crate::formats) fn is_ascii(&self) -> bool {
        !self.non_ascii
    }

    /// Passes a key and its colon. Returns the location of the content of the key, and whether it has escapes.
    #[inline(always)]
    pub(in crate::formats) fn key(&mut self) -> Result<(Range<usize>, bool), Bad> {
        self.pass_key().map_err(|expected| Bad { at: self.at, why: expected.why() })
    }

    /// Passes a value that lies `depth` levels deep.
    #[inline(always)]
    pub(in crate::formats) fn value(&mut self, depth: u32) -> Result<Token, Bad> {
        self.space();
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

    /// Returns the location of the content of a key, and whether it has escapes.
    #[inline(always)]
    fn pass_key(&mut self) -> Result<(Range<usize>, bool), Expected> {
        if !self.eat_next(b'"') {
            return Err(Expected::Key);
        }
        let start = self.at;
        let escaped = S::pass(self)?;
        let end = self.at - 1;
        if !self.eat_next(b':') {
            return Err(Expected::Colon);
        }
        Ok((start..end, escaped))
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

    /// Passes a whole object or array.
    fn container(&mut self, outer: u32) -> Result<(), Expected> {
        let mut scanner = *self;
        let passed = scanner.pass_container(outer);
        *self = scanner;
        passed
    }

    /// Uses a loop and a stack of bits (1 = object) instead of recursion, so that no input overflows the stack.
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
                Some(b' ' | b'\t' | b'\n' | b'\r') => {
                    self.space();
                    continue;
                }
                _ => {
                    self.scalar()?;
                }
            }
            while !self.eat_next(b',') {
                if !self.eat(closing(in_object)) {
                    return Err(if in_object { Expected::ObjectToGoOn } else { Expected::ArrayToGoOn });
                }
                depth -= 1;
                if depth == outer {
                    return Ok(());
                }
                in_object = outer_objects & 1 == 1;
                outer_objects >>= 1;
            }
            if in_object {
                self.pass_key()?;
            }
        }
    }
}

#[inline(always)]
fn closing(object: bool) -> u8 {
    if object { b'}' } else { b']' }
}
