//! Formats errors and lists for messages.

use std::error::Error;
use std::fmt;
use std::io;

/// Returns the message of an I/O error in lowercase, without the operating system's error number.
pub(crate) fn io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let mut chars = text.split(" (os error").next().unwrap_or(&text).chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Returns an error's message, without its causes.
pub(crate) fn message(error: &(dyn Error + 'static)) -> String {
    error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), io_error)
}

/// Returns an error's message and those of its causes, separated by colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        text.push_str(": ");
        text.push_str(&message(cause));
    }
    text
}

/// Writes text with its control characters escaped, so that it neither ends its line nor controls a terminal (X3).
pub(crate) struct Escaped<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            self.0.write_str(&rest[..at])?;
            let mut tail = rest[at..].chars();
            for escaped in tail.next().into_iter().flat_map(char::escape_debug) {
                self.0.write_char(escaped)?;
            }
            rest = tail.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Returns whether a character ends a line, controls a terminal, or reorders the text around it.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn x3_text_stays_within_its_line() {
        let mut out = String::new();
        write!(Escaped(&mut out), "a\nb\r\u{1b}[31m\u{7f}\u{85}\u{2028}\u{202e}é\t\u{0}").unwrap();
        assert_eq!(out, "a\\nb\\r\\u{1b}[31m\\u{7f}\\u{85}\\u{2028}\\u{202e}é\\t\\0");
    }
}
