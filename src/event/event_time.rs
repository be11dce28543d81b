//! The time of an event as a number.

use time::OffsetDateTime;

/// A time of day in steps of 100 ns since 1970: the ticks of .NET, which reach every year that a date can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventTime(i64);

const NANOS_PER_TICK: i128 = 100;

impl EventTime {
    /// The number that no time has: in an [`Event`](super::Event), "the source gave no number".
    pub(super) const NONE: Self = Self(i64::MIN);

    /// The time of so many 100 ns steps since 1970.
    pub const fn from_ticks(ticks: i64) -> Self {
        Self(ticks)
    }

    /// The time of so many milliseconds since 1970, as brokers give it.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(10_000))
    }

    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// Returns the date and time in UTC, if its year has at most four digits.
    pub fn to_date_time(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * NANOS_PER_TICK).ok()
    }
}

impl From<OffsetDateTime> for EventTime {
    fn from(time: OffsetDateTime) -> Self {
        let ticks = time.unix_timestamp_nanos().div_euclid(NANOS_PER_TICK);
        Self(i64::try_from(ticks).expect("the ticks of four-digit years fit 64 bits"))
    }
}
