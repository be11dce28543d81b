//! Errors and lists, in the words of this program's messages.

use std::error::Error;
use std::io;

/// Returns the message of an I/O error in lowercase, without the operating system's error number.
pub fn io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let mut chars = text.split(" (os error").next().unwrap_or(&text).chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Returns an error's message, without its causes.
pub fn message(error: &(dyn Error + 'static)) -> String {
    error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), io_error)
}

/// Returns an error's message and those of its causes, separated by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        text.push_str(": ");
        text.push_str(&message(cause));
    }
    text
}
