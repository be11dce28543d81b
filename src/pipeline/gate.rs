//! How many calls may be under way: the breaker that opens when a back end is away, and the ease-off when it throttles.

use std::time::Duration;

use crate::clock::Timestamp;

/// Decides how many calls may be under way at the moment.
#[derive(Debug)]
pub(super) struct Gate {
    concurrency: usize,
    /// What throttling left of the concurrency.
    eased: usize,
    /// Calls that went well since `eased` last changed.
    well: usize,
    /// Nothing may begin before.
    closed_until: Option<Timestamp>,
    /// The back end was away and has not been seen since: one call at a time finds out.
    probing: bool,
    /// How often in a row it was found away or throttling.
    outages: u32,
    /// What it said, and since when it has been away.
    why: Option<(String, Timestamp)>,
}

impl Gate {
    pub(super) fn new(concurrency: usize) -> Self {
        Self { concurrency, eased: concurrency, well: 0, closed_until: None, probing: false, outages: 0, why: None }
    }

    /// Returns how many calls may be under way.
    pub(super) fn limit(&self, now: Timestamp) -> usize {
        match self.closed_until {
            Some(until) if now < until => 0,
            _ if self.probing => 1,
            _ => self.eased,
        }
    }

    /// Returns whether everything waits for the back end.
    pub(super) fn is_closed(&self, now: Timestamp) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }

    /// Returns what the back end said if it was away when last seen, and since when it has been.
    pub(super) fn outage(&self) -> Option<&(String, Timestamp)> {
        self.why.as_ref()
    }

    pub(super) fn outages(&self) -> u32 {
        self.outages
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.closed_until
    }

    /// The back end could not be reached. Calls that were under way together count as one outage.
    pub(super) fn unavailable(&mut self, delay: Duration, why: &str, now: Timestamp) {
        if !self.is_closed(now) {
            self.outages += 1;
            self.closed_until = Some(now + delay);
        }
        self.probing = true;
        let since = self.why.take().map_or(now, |(_, since)| since);
        self.why = Some((why.to_owned(), since));
    }

    /// The back end wants to be called less often: half as many calls, after a pause.
    pub(super) fn throttled(&mut self, delay: Duration, now: Timestamp) {
        if !self.is_closed(now) {
            self.outages += 1;
            self.eased = (self.eased / 2).max(1);
            self.well = 0;
        }
        self.closed_until = self.closed_until.max(Some(now + delay));
    }

    /// A call got through.
    pub(super) fn passed(&mut self, now: Timestamp) {
        if self.closed_until.is_none() && self.eased == self.concurrency && !self.probing {
            return;
        }
        if self.is_closed(now) {
            return; // It began before the outage and says nothing about what is now.
        }
        self.closed_until = None;
        self.probing = false;
        self.why = None;
        self.outages = 0;
        self.well += 1;
        // One more for every round of calls that went well: as fast as TCP recovers, and no faster.
        if self.well >= self.eased && self.eased < self.concurrency {
            self.eased += 1;
            self.well = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_closes_the_gate_then_lets_one_probe_through() {
        let mut gate = Gate::new(8);
        let at = Timestamp::from_millis;
        gate.unavailable(SECOND, "refused", at(0));
        gate.unavailable(SECOND, "refused", at(1));
        assert_eq!((gate.limit(at(999)), gate.limit(at(1000)), gate.outages()), (0, 1, 1));
        gate.passed(at(500));
        assert_eq!(gate.limit(at(1000)), 1, "an answer from before the outage proves nothing");
        gate.passed(at(1001));
        assert_eq!((gate.limit(at(1001)), gate.outages(), gate.outage()), (8, 0, None));
    }

    #[test]
    fn r45_throttling_halves_the_concurrency_and_success_brings_it_back() {
        let mut gate = Gate::new(8);
        let at = Timestamp::from_millis;
        gate.throttled(SECOND, at(0));
        assert_eq!((gate.limit(at(0)), gate.limit(at(1000))), (0, 4));
        gate.throttled(SECOND, at(1000));
        assert_eq!(gate.limit(at(2000)), 2);
        for _ in 0..2 {
            gate.passed(at(2000));
        }
        assert_eq!(gate.limit(at(2000)), 3);
        for _ in 0..100 {
            gate.passed(at(2000));
        }
        assert_eq!(gate.limit(at(2000)), 8);
    }
}
