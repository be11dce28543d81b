//! Integers beyond 64 bits, which reach the sink as text.
//!
//! A script sees an integer that 64 bits cannot hold as text, with all its digits. SQLite stores such text in a numeric
//! column as a float and drops digits silently. No interface of SQLite tells the column of a parameter. So a
//! statement with such a parameter returns the rows that it wrote, and a float among them is the loss.

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection};

use super::errors::{Failure, FailureKind};
use super::sql;
use crate::effect::Value;

/// The digits of the shortest integer that 64 bits may not hold.
const MIN_DIGITS: usize = 19;

/// Returns the values that are integers beyond 64 bits, as text.
pub(super) fn large_integers(values: &[Value]) -> Vec<&str> {
    values.iter().filter_map(Value::as_text).filter(|text| is_large_integer(text)).collect()
}

fn is_large_integer(text: &str) -> bool {
    // SQLite ignores white space around a number, too.
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.len() >= MIN_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<i64>().is_err()
}

/// Compiles a statement such that it returns the rows that it writes; `None` if it cannot.
pub(super) fn returning<'c>(connection: &'c Connection, text: &str) -> Option<CachedStatement<'c>> {
    let statement = *sql::statements(text).first()?;
    // The line break ends a comment at the end of the statement.
    connection.prepare_cached(&format!("{statement}\nRETURNING *")).ok()
}

/// Runs a bound statement, and refuses it if a returned row holds one of the large integers as a float.
pub(super) fn check_rows(statement: &mut rusqlite::Statement<'_>, large: &[&str]) -> Result<(), Failure> {
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.raw_query();
    // All rows are read: a statement that is reset early undoes nothing, but may not have written every row.
    let mut lost = None;
    while let Some(row) = rows.next()? {
        for (at, column) in columns.iter().enumerate() {
            let ValueRef::Real(stored) = row.get_ref(at)? else { continue };
            // The same conversion as SQLite's, so that equal floats come from equal texts.
            let is_from = |text: &&&str| text.trim().parse() == Ok(stored);
            lost = lost.or_else(|| large.iter().find(is_from).map(|text| (column.clone(), (*text).to_owned())));
        }
    }
    match lost {
        None => Ok(()),
        Some((column, text)) => Err(Failure::new(
            FailureKind::Statement,
            format!(
                "column `{column}` would store `{text}`, an integer beyond 64 bits, as a float (declare it TEXT in \
                 `init` and run `propulsiond rebuild`)"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l13_only_integers_beyond_64_bits_are_large() {
        for text in ["9223372036854775808", "-9223372036854775809", " 123456789012345678901 ", "+9999999999999999999"] {
            assert!(is_large_integer(text), "{text}");
        }
        for text in ["9223372036854775807", "-9223372036854775808", "", "12345678901234567890x", "1e30", "0.5"] {
            assert!(!is_large_integer(text), "{text}");
        }
    }
}
