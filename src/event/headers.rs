//! Headers: the pairs of name and value that a broker keeps beside an event.
//!
//! They are part of the event's buffer. Each is the length of its name (two bytes), the name, the length of its value (four
//! bytes) and the value.

use super::BadEvent;

/// The headers of an event, in the order of the source. A name may occur several times.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    pub(super) fn new(encoded: &'a [u8]) -> Self {
        Self { rest: encoded }
    }

    /// Returns the last value of this name, as brokers do for a name that occurs several times.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.filter(|header| header.0 == name).last().map(|header| header.1)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name = take(&mut self.rest, 2);
        let value = take(&mut self.rest, 4);
        Some((std::str::from_utf8(name).expect("a header's name was text when it was encoded"), value))
    }
}

/// Takes a field off, whose length comes first in so many bytes.
fn take<'a>(rest: &mut &'a [u8], width: usize) -> &'a [u8] {
    let (len, tail) = rest.split_at(width);
    let len = len.iter().rev().fold(0, |len, &byte| len << 8 | usize::from(byte));
    let (field, tail) = tail.split_at(len);
    *rest = tail;
    field
}

/// Appends a header.
pub(super) fn encode(name: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), BadEvent> {
    let name_len = u16::try_from(name.len()).map_err(|_| BadEvent::TooLong("header name"))?;
    let value_len = u32::try_from(value.len()).map_err(|_| BadEvent::TooLarge)?;
    out.extend_from_slice(&name_len.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(value);
    Ok(())
}
