//! The circuit breaker of a pipeline's back ends, and the concurrency that throttling leaves.

use std::time::Duration;

use hashbrown::HashSet;

use super::policy::OutageRule;
use crate::clock::Timestamp;

/// The two back ends that calls can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackEnd {
    /// A system that the handler itself calls.
    Handler,
    Sink,
}

/// Limits simultaneous calls by the condition of the back ends.
#[derive(Debug)]
pub(super) struct Breaker {
    rule: OutageRule,
    concurrency: usize,
    /// The concurrency that throttling left.
    eased: usize,
    /// Successes since `eased` last changed.
    successes: usize,
    /// No call begins before this time.
    open_until: Option<Timestamp>,
    /// Outages and throttles in a row.
    outages: u32,
    outage: Option<Outage>,
    /// The latest failures of the handler, and of the sink.
    rows: [Row; 2],
}

/// Failures of one back end in a row, without a success between.
#[derive(Debug, Default)]
struct Row {
    failures: usize,
    /// Some of the streams that failed.
    streams: HashSet<Box<str>>,
}

/// A back end that cannot do its part. One probe at a time finds out when it can.
#[derive(Debug)]
struct Outage {
    of: BackEnd,
    /// Its calls fail alike, although it answers.
    answers: bool,
    /// The latest error, and the begin of the outage.
    why: (String, Timestamp),
}

impl Breaker {
    pub(super) fn new(concurrency: usize, rule: OutageRule) -> Self {
        Self {
            rule,
            concurrency,
            eased: concurrency,
            successes: 0,
            open_until: None,
            outages: 0,
            outage: None,
            rows: Default::default(),
        }
    }

    /// Returns the number of simultaneous calls that are allowed now.
    pub(super) fn limit(&self, now: Timestamp) -> usize {
        match self.open_until {
            Some(until) if now < until => 0,
            _ if self.outage.is_some() => 1,
            _ => self.eased,
        }
    }

    /// Returns whether no call may begin.
    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// Returns whether one probe at a time is allowed.
    pub(super) fn is_probing(&self) -> bool {
        self.outage.is_some()
    }

    /// Returns the latest error of an outage, and the outage's begin.
    pub(super) fn outage(&self) -> Option<&(String, Timestamp)> {
        self.outage.as_ref().map(|outage| &outage.why)
    }

    /// Returns whether the back end of the outage answers: its calls fail alike.
    pub(super) fn outage_answers(&self) -> bool {
        self.outage.as_ref().is_some_and(|outage| outage.answers)
    }

    pub(super) fn outages(&self) -> u32 {
        self.outages
    }

    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.open_until
    }

    /// Notes that a back end cannot be reached. Calls that were in flight together count as one outage.
    pub(super) fn unavailable(&mut self, of: BackEnd, delay: Duration, why: &str, now: Timestamp) {
        self.open(of, false, delay, why, now);
    }

    fn open(&mut self, of: BackEnd, answers: bool, delay: Duration, why: &str, now: Timestamp) {
        if !self.is_open(now) {
            self.outages += 1;
            self.open_until = Some(now + delay);
        }
        let since = self.outage.take().map_or(now, |outage| outage.why.1);
        self.outage = Some(Outage { of, answers, why: (why.to_owned(), since) });
    }

    /// Notes that a back end throttles: half as many calls, after a pause.
    pub(super) fn throttled(&mut self, delay: Duration, now: Timestamp) {
        if !self.is_open(now) {
            self.outages += 1;
            self.eased = (self.eased / 2).max(1);
            self.successes = 0;
        }
        self.open_until = self.open_until.max(Some(now + delay));
    }

    /// Notes that a back end answered, though with an error: an outage that made it unreachable is over.
    pub(super) fn answered(&mut self, of: BackEnd, now: Timestamp) {
        if self.outage.as_ref().is_some_and(|outage| outage.of == of && !outage.answers) && !self.is_open(now) {
            self.end_outage();
        }
    }

    /// Notes that a call or write of a stream failed while its back end answered, or timed out. Returns whether the failure
    /// belongs to an outage, and so spends no attempt.
    pub(super) fn failed(
        &mut self,
        of: BackEnd,
        stream: &str,
        answered: bool,
        delay: Duration,
        why: &str,
        now: Timestamp,
    ) -> bool {
        let row = &mut self.rows[of as usize];
        row.failures += 1;
        if row.streams.len() < self.rule.streams && !row.streams.contains(stream) {
            row.streams.insert(stream.into());
        }
        let alike = row.failures >= self.rule.calls && row.streams.len() >= self.rule.streams;
        if answered {
            // The back end is reachable again, and fails for another reason: that is a failure of the call.
            self.answered(of, now);
        }
        if alike || self.outage.as_ref().is_some_and(|outage| outage.of == of) {
            self.open(of, answered, delay, why, now);
            return true;
        }
        false
    }

    /// Notes a success of a back end.
    pub(super) fn passed(&mut self, of: BackEnd, now: Timestamp) {
        let row = &mut self.rows[of as usize];
        if row.failures > 0 {
            row.failures = 0;
            row.streams.clear();
        }
        if self.open_until.is_none() && self.eased == self.concurrency && self.outage.is_none() {
            return;
        }
        // A call that began before the outage proves nothing.
        if self.is_open(now) {
            return;
        }
        // A success of one back end proves nothing about the other.
        if self.outage.as_ref().is_some_and(|outage| outage.of != of) {
            return;
        }
        self.end_outage();
        self.successes += 1;
        // One more call for every round of successes: as fast as TCP recovers.
        if self.successes >= self.eased && self.eased < self.concurrency {
            self.eased += 1;
            self.successes = 0;
        }
    }

    fn end_outage(&mut self) {
        self.open_until = None;
        self.outage = None;
        self.outages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    const RULE: OutageRule = OutageRule { calls: 20, streams: 5 };

    #[test]
    fn an_outage_opens_the_breaker_and_then_lets_one_probe_through() {
        let mut breaker = Breaker::new(8, RULE);
        breaker.unavailable(BackEnd::Sink, SECOND, "refused", at(0));
        breaker.unavailable(BackEnd::Sink, SECOND, "refused", at(1));
        assert_eq!((breaker.limit(at(999)), breaker.limit(at(1000)), breaker.outages()), (0, 1, 1));
        breaker.passed(BackEnd::Sink, at(500));
        assert_eq!(breaker.limit(at(1000)), 1, "an answer from before the outage proves nothing");
        breaker.passed(BackEnd::Sink, at(1001));
        assert_eq!((breaker.limit(at(1001)), breaker.outages(), breaker.outage()), (8, 0, None));
    }

    #[test]
    fn s10_a_decision_without_effects_does_not_close_the_breaker_of_the_sink() {
        let mut breaker = Breaker::new(8, RULE);
        breaker.unavailable(BackEnd::Sink, SECOND, "refused", at(0));
        breaker.passed(BackEnd::Handler, at(1001));
        assert_eq!((breaker.limit(at(1001)), breaker.outages()), (1, 1));
        breaker.unavailable(BackEnd::Sink, SECOND, "refused again", at(1002));
        assert_eq!(breaker.outages(), 2, "the back-off grows");
        assert_eq!(breaker.outage(), Some(&("refused again".to_owned(), at(0))), "the outage keeps its begin");
    }

    #[test]
    fn s11_an_answer_ends_an_outage_of_an_unreachable_sink() {
        let mut breaker = Breaker::new(8, RULE);
        breaker.unavailable(BackEnd::Sink, SECOND, "refused", at(0));
        assert!(!breaker.failed(BackEnd::Sink, "a-1", true, SECOND, "500", at(1001)), "the attempt counts");
        assert_eq!(breaker.outage(), None);
    }

    #[test]
    fn calls_of_several_streams_that_fail_alike_are_an_outage_that_spends_no_attempt() {
        let mut breaker = Breaker::new(8, RULE);
        let mut fail = |call: usize, streams: usize| {
            let stream = format!("a-{}", call % streams);
            breaker.failed(BackEnd::Sink, &stream, true, SECOND, "500", at(0))
        };
        assert!((0..RULE.calls * 2).all(|call| !fail(call, RULE.streams - 1)), "too few streams");
        assert!(fail(RULE.streams - 1, RULE.streams), "one more stream");
        assert_eq!((breaker.limit(at(500)), breaker.limit(at(1000))), (0, 1));
        assert!(breaker.failed(BackEnd::Sink, "a-1", true, SECOND, "500", at(1000)), "the probe spends no attempt");
        assert_eq!(breaker.limit(at(1500)), 0);
        breaker.passed(BackEnd::Sink, at(2000));
        assert!(!breaker.failed(BackEnd::Sink, "a-1", true, SECOND, "500", at(2001)), "a success begins a new row");
    }

    #[test]
    fn r45_throttling_halves_the_concurrency_and_success_restores_it() {
        let mut breaker = Breaker::new(8, RULE);
        breaker.throttled(SECOND, at(0));
        assert_eq!((breaker.limit(at(0)), breaker.limit(at(1000))), (0, 4));
        breaker.throttled(SECOND, at(1000));
        assert_eq!(breaker.limit(at(2000)), 2);
        for _ in 0..2 {
            breaker.passed(BackEnd::Sink, at(2000));
        }
        assert_eq!(breaker.limit(at(2000)), 3);
        for _ in 0..100 {
            breaker.passed(BackEnd::Sink, at(2000));
        }
        assert_eq!(breaker.limit(at(2000)), 8);
    }
}
