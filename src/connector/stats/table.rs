//! Counts as a table for people.

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::Row;

/// A table longer than this is for `snapshot` to show.
const MOST_SHOWN: usize = 50;

/// Returns the counts with the greatest first, one a line.
pub(super) fn table(rows: &[Row]) -> String {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.events));
    let left_out = rows.len().saturating_sub(MOST_SHOWN);
    rows.truncate(MOST_SHOWN);
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

/// Names come from outside: none may break the table or the log.
fn printable(name: &str) -> String {
    const LONGEST: usize = 60;
    let mut printable: String =
        name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(LONGEST).collect();
    if name.chars().count() > LONGEST {
        printable.push('…');
    }
    printable
}

fn moment(at: OffsetDateTime) -> String {
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{date} {hour:02}:{minute:02}:{second:02}")
}
