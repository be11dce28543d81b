//! The counts as a table in the log.

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::Row;

/// The most rows of a logged table. `snapshot` returns all.
const MAX_SHOWN: usize = 50;

/// Returns a table with one line per count, the greatest first.
pub(super) fn table(rows: &[Row]) -> String {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.events));
    let left_out = rows.len().saturating_sub(MAX_SHOWN);
    rows.truncate(MAX_SHOWN);
    let width = |name: fn(&Row) -> &str, least| {
        rows.iter().map(|row| printable(name(row)).chars().count()).chain([least]).max().unwrap_or(least)
    };
    let (category, event_type) =
        (width(|row| &row.category, "category".len()), width(|row| &row.event_type, "type".len()));
    let mut table = format!(
        "{:category$}  {:event_type$}  {:>12}  {:>15}  {:19}  {}",
        "category", "type", "events", "bytes", "first seen", "last seen"
    );
    for row in rows {
        write!(
            table,
            "\n{:category$}  {:event_type$}  {:>12}  {:>15}  {}  {}",
            printable(&row.category),
            printable(&row.event_type),
            row.events,
            row.bytes,
            moment(row.first_seen),
            moment(row.last_seen)
        )
        .expect("memory can be written to");
    }
    if left_out > 0 {
        write!(table, "\n… and {left_out} more").expect("memory can be written to");
    }
    table
}

/// Shortens a name and replaces its control characters, which could break the table or the log.
fn printable(name: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut printable: String =
        name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_CHARS).collect();
    if name.chars().count() > MAX_CHARS {
        printable.push('…');
    }
    printable
}

fn moment(at: OffsetDateTime) -> String {
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{date} {hour:02}:{minute:02}:{second:02}")
}
