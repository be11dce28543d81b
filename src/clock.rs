//! Time. Only this module reads a clock.
//!
//! Ages, delays and deadlines are [`Timestamp`]s of a monotonic [`Clock`], which a test may pause with tokio's timers.
//! Operators and other systems read [`wall`] time.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tokio::time::Instant;

/// A moment of a [`Clock`], in nanoseconds since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`; zero if it is in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A period of time, with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub began: Timestamp,
    pub ended: Timestamp,
}

impl Period {
    pub const fn took(self) -> Duration {
        self.ended.since(self.began)
    }
}

/// A monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// The time of day at the start, if it goes on with this clock and not with the system's.
    wall_at_start: Option<OffsetDateTime>,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this module is what everybody else asks")]
    pub fn start() -> Self {
        Self { started: Instant::now(), wall_at_start: None }
    }

    /// Starts a clock at a time of day, which then goes on with the clock: for tests that pause time.
    pub fn start_at(wall: OffsetDateTime) -> Self {
        Self { wall_at_start: Some(wall), ..Self::start() }
    }

    #[expect(clippy::disallowed_methods, reason = "this module is what everybody else asks")]
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + Instant::now().saturating_duration_since(self.started)
    }

    /// Returns the period that began then and ends now.
    pub fn since(&self, began: Timestamp) -> Period {
        Period { began, ended: self.now() }
    }

    /// Returns the time of day. The operator can set it, also backwards.
    pub fn wall(&self) -> OffsetDateTime {
        self.wall_at_start.map_or_else(wall, |start| start + self.now().since(Timestamp::ZERO))
    }

    /// Returns the instant that tokio's timers know `at` by.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.started + Duration::from_nanos(at.0)
    }
}

/// Returns the time of day.
#[expect(clippy::disallowed_methods, reason = "this module is what everybody else asks")]
pub fn wall() -> OffsetDateTime {
    SystemTime::now().into()
}
