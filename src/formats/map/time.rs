//! The times of foreign records: RFC 3339 and its common variants, and numbers of any usual unit.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::event::EventTime;

/// A time as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// The text is RFC 3339 and can stay as it is.
    Text,
    Number(EventTime),
}

/// Parses a time: RFC 3339, its variants, or a number since 1970.
pub(super) fn parse(text: &str) -> Option<Time> {
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Some(Time::Text);
    }
    let time = of_number(text).or_else(|| of_variant(text))?;
    // Later code shows times as dates.
    time.to_date_time().map(|_| Time::Number(time))
}

/// Parses a date and time with a space for the `T`, without a zone (UTC), with a zone without a colon, or a date alone.
fn of_variant(text: &str) -> Option<EventTime> {
    let text = text.trim().replace('/', "-");
    let (date, rest) = text.split_at_checked(10)?;
    let clock = match rest.strip_prefix(['T', 't', ' ']) {
        Some(clock) => clock.trim_start(),
        None if rest.is_empty() => "00:00:00",
        None => return None,
    };
    let zone_at = clock.find(['Z', 'z', '+', '-', ' ']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    // Some loggers write a comma before the fraction.
    let clock = clock.replace(',', ".");
    let clock = if clock.len() == 5 { clock + ":00" } else { clock };
    let zone = match zone.trim() {
        "" | "Z" | "z" | "UTC" | "GMT" => "Z".to_owned(),
        zone if zone.len() == 5 && !zone.contains(':') => format!("{}:{}", &zone[..3], zone.get(3..)?),
        zone if zone.len() == 3 => format!("{zone}:00"),
        zone => zone.to_owned(),
    };
    OffsetDateTime::parse(&format!("{date}T{clock}{zone}"), &Rfc3339).ok().map(EventTime::from)
}

/// Parses a number of seconds, milliseconds, microseconds or nanoseconds since 1970. The magnitude tells the unit: each
/// limit is the year 5138 in its unit, and the first months of 1973 in the next one.
fn of_number(text: &str) -> Option<EventTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.trim_start_matches('-').is_empty() || !is_number(whole.strip_prefix('-').unwrap_or(whole)) {
        return None;
    }
    if !is_number(fraction) {
        return None;
    }
    let number: i128 = whole.parse().ok()?;
    let unit: i128 = match number.unsigned_abs() {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let part = digits.parse::<i128>().ok()? * unit / 1_000_000_000;
    let nanos = number.checked_mul(unit)?.checked_add(if whole.starts_with('-') { -part } else { part })?;
    i64::try_from(nanos.div_euclid(100)).ok().map(EventTime::from_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match parse(text) {
            Some(Time::Text) => "as it is".to_owned(),
            Some(Time::Number(time)) => time.to_date_time().unwrap().format(&Rfc3339).unwrap(),
            None => "none".to_owned(),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn text_is_a_date_and_a_time() {
        check("2026-01-31T12:00:00.5+02:00", "as it is");
        check("2026-01-31 12:00:00", "2026-01-31T12:00:00Z");
        check("2026-01-31 12:00", "2026-01-31T12:00:00Z");
        check("2026/01/31 12:00:00,250", "2026-01-31T12:00:00.25Z");
        check("2026-01-31T12:00:00+0200", "2026-01-31T10:00:00Z");
        check("2026-01-31 12:00:00 UTC", "2026-01-31T12:00:00Z");
        check("2026-01-31 12:00:00 -05", "2026-01-31T17:00:00Z");
        check("2026-01-31", "2026-01-31T00:00:00Z");
        for bad in ["", "yesterday", "2026-13-01", "31-01-2026", "12:00:00", "2026-01-31é", "2026-01-31T12:00:00+é1"]
        {
            check(bad, "none");
        }
    }

    #[test]
    fn the_magnitude_of_a_number_tells_its_unit() {
        check("1769860800", "2026-01-31T12:00:00Z");
        check("1769860800.25", "2026-01-31T12:00:00.25Z");
        check("1769860800250", "2026-01-31T12:00:00.25Z");
        check("1769860800250000", "2026-01-31T12:00:00.25Z");
        check("1769860800250000000", "2026-01-31T12:00:00.25Z");
        check("0", "1970-01-01T00:00:00Z");
        check("-1.5", "1969-12-31T23:59:58.5Z");
        for bad in ["-", "1.5.5", "1e9", "1,5", "99999999999999999999999999"] {
            check(bad, "none");
        }
    }
}
