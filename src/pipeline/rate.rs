//! The rate of handled events, over a short window.

use std::time::Duration;

use crate::clock::Timestamp;

/// The window, in seconds.
const WINDOW: u64 = 10;

/// The handled events of the last seconds, counted by second.
#[derive(Clone, Debug)]
pub struct Rate {
    counts: [u64; WINDOW as usize],
    /// The latest second with a count.
    latest: u64,
    started: Timestamp,
}

impl Rate {
    pub fn new(now: Timestamp) -> Self {
        Self { counts: [0; WINDOW as usize], latest: seconds(now), started: now }
    }

    pub(super) fn add(&mut self, now: Timestamp, events: usize) {
        let second = seconds(now);
        // The seconds since the latest count had none. Their slots still hold counts of the window before.
        for passed in self.latest + 1..=second.min(self.latest + WINDOW) {
            self.counts[slot(passed)] = 0;
        }
        self.latest = self.latest.max(second);
        self.counts[slot(second)] += events as u64;
    }

    /// Returns the mean of the window that ends now, or of the time since the start if that is shorter.
    pub fn per_second(&self, now: Timestamp) -> f64 {
        let first = seconds(now).saturating_sub(WINDOW - 1);
        let known = (self.latest.saturating_sub(WINDOW - 1)..=self.latest).filter(|second| *second >= first);
        let events: u64 = known.map(|second| self.counts[slot(second)]).sum();
        let begin = self.started.max(Timestamp::ZERO + Duration::from_secs(first));
        // A count of the first moments is no rate yet.
        events as f64 / now.since(begin).as_secs_f64().max(1.0)
    }
}

fn seconds(at: Timestamp) -> u64 {
    at.since(Timestamp::ZERO).as_secs()
}

fn slot(second: u64) -> usize {
    (second % WINDOW) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_rate_is_the_mean_of_the_window_and_falls_to_zero() {
        let mut rate = Rate::new(at(100_000));
        rate.add(at(100_200), 50);
        assert_eq!(rate.per_second(at(100_500)), 50.0, "less than a second counts as one");
        rate.add(at(103_900), 150);
        assert_eq!(rate.per_second(at(104_000)), 50.0);
        assert_eq!(rate.per_second(at(110_000)), 150.0 / 9.0, "the first second has left the window");
        assert_eq!(rate.per_second(at(114_000)), 0.0);
        assert_eq!(rate.per_second(at(900_000)), 0.0);
    }

    #[test]
    fn a_pause_of_any_length_leaves_no_old_counts() {
        for pause in [3_000, 9_000, 10_000, 11_000, 25_000, 3_600_000] {
            let mut rate = Rate::new(at(0));
            (0..10).for_each(|second| rate.add(at(second * 1_000), 1_000));
            let resumed = 9_500 + pause;
            rate.add(at(resumed), 90);
            let left = 10_u64.saturating_sub(resumed / 1_000 - 9) * 1_000;
            let window = resumed - (resumed / 1_000 - 9) * 1_000;
            let expected = (left + 90) as f64 / (window as f64 / 1_000.0);
            assert!((rate.per_second(at(resumed)) - expected).abs() < 1e-9, "{pause}");
        }
    }
}
