//! Bodies of pushed events: JSON lines, or one JSON array of such objects.

use bytes::Bytes;

use super::scan::{Bad, Scanner};
use super::{BadLine, Indexing, LineOrigin, parse};
use crate::event::Event;

/// The error of a rejected body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// Line numbers start at 1.
    #[error("line {line}: {why}")]
    Line { line: usize, why: BadLine },
    /// Item numbers start at 1.
    #[error("item {item}: {why}")]
    Item { item: usize, why: BadLine },
    #[error("the array: {0}")]
    Array(BadLine),
}

/// Appends the events of a body, whose lines or items get the majors from `first` on. Returns the number of majors.
/// Blank lines and comments get none. A bad body appends nothing.
pub fn parse_body(body: &Bytes, first: u64, indexing: Indexing, events: &mut Vec<Event>) -> Result<usize, BadBody> {
    let before = events.len();
    let body = &body.slice_ref(without_byte_order_mark(body));
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let parsed =
        if is_array { parse_array(body, first, indexing, events) } else { parse_lines(body, first, indexing, events) };
    if parsed.is_err() {
        events.truncate(before);
    }
    parsed
}

fn parse_lines(body: &Bytes, first: u64, indexing: Indexing, events: &mut Vec<Event>) -> Result<usize, BadBody> {
    let (mut start, mut count) = (0, 0);
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if !is_blank_or_comment(line) {
            let origin = LineOrigin { major: first + count as u64, indexing };
            parse(body.slice(start..start + line.len()), origin, events)
                .map_err(|why| BadBody::Line { line: number + 1, why })?;
            count += 1;
        }
        start += line.len() + 1;
    }
    Ok(count)
}

fn parse_array(body: &Bytes, first: u64, indexing: Indexing, events: &mut Vec<Event>) -> Result<usize, BadBody> {
    let array = |bad: Bad| BadBody::Array(bad.into());
    let mut scanner = Scanner::new(body).map_err(array)?;
    scanner.space();
    scanner.eat(b'[');
    scanner.space();
    let mut count = 0;
    let mut more = !scanner.eat(b']');
    while more {
        let item = scanner.value(1).map_err(|bad| BadBody::Item { item: count + 1, why: bad.into() })?;
        let origin = LineOrigin { major: first + count as u64, indexing };
        parse(body.slice(item.range()), origin, events).map_err(|why| BadBody::Item { item: count + 1, why })?;
        count += 1;
        more = scanner.goes_on(b']', "expected `,` or `]`").map_err(array)?;
    }
    scanner.end().map_err(array)?;
    Ok(count)
}

/// Removes the byte order mark at the start of a text, if there is one.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Returns whether a line is blank or a comment (`#` after white space).
pub fn is_blank_or_comment(line: &[u8]) -> bool {
    line.trim_ascii_start().first().is_none_or(|byte| *byte == b'#')
}
