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

    /// Reads the form that [`encoded`](Self::encoded) returned. Returns `None` for any other bytes.
    pub fn decode(encoded: &'a [u8]) -> Option<Self> {
        let mut rest = encoded;
        while !rest.is_empty() {
            std::str::from_utf8(take(&mut rest, 2)?).ok()?;
            take(&mut rest, 4)?;
        }
        Some(Self::new(encoded))
    }

    /// Returns the form in which the headers are kept with the event, for a store.
    pub fn encoded(&self) -> &'a [u8] {
        self.rest
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
        let complete = "headers were complete when they were encoded";
        let name = take(&mut self.rest, 2).expect(complete);
        let value = take(&mut self.rest, 4).expect(complete);
        Some((std::str::from_utf8(name).expect("a header's name was text when it was encoded"), value))
    }
}

/// Takes a field off, whose length comes first in so many bytes. Returns `None` if it is truncated.
fn take<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_at_checked(width)?;
    let len = len.iter().rev().fold(0, |len, &byte| len << 8 | usize::from(byte));
    let (field, tail) = tail.split_at_checked(len)?;
    *rest = tail;
    Some(field)
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
