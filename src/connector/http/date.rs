//! The three forms of a date in HTTP (RFC 9110 §5.6.7). All are in UTC.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Parses a date. `this_year` decides the century of a year with two digits.
pub(super) fn parse(text: &str, this_year: i32) -> Option<OffsetDateTime> {
    let fields: Vec<_> = text.split([' ', ',', '-']).filter(|field| !field.is_empty()).collect();
    let (day, month, year, time) = match fields[..] {
        // `Sun, 06 Nov 1994 08:49:37 GMT`, and the obsolete `Sunday, 06-Nov-94 08:49:37 GMT`.
        [_weekday, day, month, year, time, "GMT"] => (day, month, year, time),
        // The obsolete form of C's `asctime`: `Sun Nov  6 08:49:37 1994`.
        [_weekday, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)?;
    let month = Month::try_from(u8::try_from(month + 1).ok()?).ok()?;
    let year = match year.len() {
        2 => with_century(year.parse().ok()?, this_year),
        _ => year.parse().ok()?,
    };
    let date = Date::from_calendar_date(year, month, day.parse().ok()?).ok()?;
    let mut clock = time.split(':').map(|field| field.parse::<u8>().ok());
    let time = Time::from_hms(clock.next()??, clock.next()??, clock.next()??).ok()?;
    clock.next().is_none().then(|| PrimitiveDateTime::new(date, time).assume_utc())
}

/// Returns the year nearest to `this_year` with these two digits, at most 50 years ahead.
fn with_century(digits: i32, this_year: i32) -> i32 {
    let year = this_year - this_year.rem_euclid(100) + digits;
    if year > this_year + 50 { year - 100 } else { year }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x6_all_three_forms_name_the_same_moment() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text, 2026).map(OffsetDateTime::unix_timestamp), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn x6_two_digits_are_a_year_at_most_fifty_years_ahead() {
        assert_eq!([76, 77, 26, 0].map(|digits| with_century(digits, 2026)), [2076, 1977, 2026, 2000]);
    }

    #[test]
    fn x6_other_texts_are_no_dates() {
        for text in [
            "",
            "soon",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text, 2026), None, "{text}");
        }
    }
}
