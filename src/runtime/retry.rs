//! Delays between attempts.

use std::time::Duration;

/// The growth of delays: from `initial`, doubled up to `max`. Each is shortened at random by up to half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

impl Backoff {
    /// Returns the delay after `failures` failed attempts in a row (1 is the first).
    pub fn delay(&self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(32);
        let full = self.initial.saturating_mul(1 << doublings.min(31)).min(self.max);
        full.mul_f64(1.0 - random.f64() / 2.0)
    }
}

/// Rounds a delay up for display: to milliseconds below 10 s, to tenths of a second above.
pub fn rounded(delay: Duration) -> Duration {
    let unit = if delay < Duration::from_secs(10) { 1 } else { 100 };
    let units = delay.as_nanos().div_ceil(unit * 1_000_000);
    Duration::from_millis(u64::try_from(units * unit).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_vary_by_half() {
        let backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) };
        let mut random = fastrand::Rng::with_seed(1);
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (9, 25_600), (10, 30_000), (u32::MAX, 30_000)] {
            for _ in 0..100 {
                let delay = backoff.delay(failures, &mut random).as_millis();
                assert!(delay >= full / 2 && delay <= full, "{failures}: {delay} of {full}");
            }
        }
    }
    #[test]
    fn delays_are_rounded_for_display() {
        let shown = |nanos| format!("{:?}", rounded(Duration::from_nanos(nanos)));
        assert_eq!(shown(57_123_456), "58ms");
        assert_eq!(shown(1_234_567_890), "1.235s");
        assert_eq!(shown(29_876_543_210), "29.9s");
        assert_eq!(shown(123_456), "1ms");
    }
}
