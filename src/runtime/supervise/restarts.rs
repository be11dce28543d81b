//! The delays before a failed pipeline restarts.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::runtime::retry::Backoff;

/// Counts consecutive failures and computes the delay after each. A pipeline restarts without limit (R36).
#[derive(Clone, Debug)]
pub struct Restarts {
    backoff: Backoff,
    healthy_after: Duration,
    in_a_row: u32,
}

impl Restarts {
    /// Creates a counter. A run of at least `healthy_after` resets it.
    pub fn new(backoff: Backoff, healthy_after: Duration) -> Self {
        Self { backoff, healthy_after, in_a_row: 0 }
    }

    /// Counts a failure at `now` of a run that began at `started`. Returns the delay before the next start.
    pub fn failed(&mut self, started: Timestamp, now: Timestamp, random: &mut fastrand::Rng) -> Duration {
        if now.since(started) >= self.healthy_after {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.backoff.delay(self.in_a_row, random)
    }

    /// Returns the number of consecutive failures as of `now`, for a run that began at `started`. A healthy run has
    /// none.
    pub fn in_a_row(&self, started: Timestamp, now: Timestamp) -> u32 {
        if now.since(started) >= self.healthy_after { 0 } else { self.in_a_row }
    }

    /// Resets the counter, because the operator asked for the start.
    pub fn reset(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn r36_restarts_are_unlimited_and_their_delays_grow_to_a_cap() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut restarts = Restarts::new(BACKOFF, Duration::from_secs(300));
        for (failure, full) in [1, 2, 4, 8, 16, 32, 60, 60, 60].into_iter().enumerate() {
            let delay = restarts.failed(at(10), at(11), &mut random).as_secs_f64();
            assert!(delay >= f64::from(full) / 2.0 && delay <= f64::from(full), "{failure}: {delay}");
        }
        assert_eq!(restarts.in_a_row(at(10), at(11)), 9);
    }

    #[test]
    fn a_healthy_run_resets_the_failures() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut restarts = Restarts::new(BACKOFF, Duration::from_secs(300));
        for _ in 0..6 {
            restarts.failed(at(0), at(299), &mut random);
        }
        assert_eq!(restarts.in_a_row(at(400), at(699)), 6);
        assert_eq!(restarts.in_a_row(at(400), at(700)), 0);
        assert!(restarts.failed(at(400), at(700), &mut random) <= BACKOFF.initial);
        assert_eq!(restarts.in_a_row(at(701), at(702)), 1);
    }

    #[test]
    fn a_start_by_the_operator_resets_the_failures() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut restarts = Restarts::new(BACKOFF, Duration::from_secs(300));
        restarts.failed(at(0), at(1), &mut random);
        restarts.reset();
        assert_eq!(restarts.in_a_row(at(0), at(1)), 0);
    }
}
