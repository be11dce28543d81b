//! The end of a run: the reason to drain, its deadline, and the conditions under which the run is over.

use std::time::Duration;

use crate::clock::Timestamp;

/// The end of a pipeline, or of one of its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A finite job is done, or its time is up.
    Finished,
    /// The operator or the daemon stopped it.
    Stopped,
    /// Its error policy stopped it, until the operator acts.
    Halted(String),
    /// Other processes own its progress.
    Fenced(String),
    /// A finite job cannot reach its source.
    Unavailable(String),
    /// A part failed; the pipeline restarts.
    Failed(String),
    /// The drain deadline passed while these still ran.
    DeadlinePassed(Vec<String>),
}

/// A run of this length makes the next failure the first of its row.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The drain of a run.
#[derive(Debug, Default)]
pub(super) struct Drain {
    begun: Option<Begun>,
    /// The claims are released: the last step before the end.
    released: bool,
}

#[derive(Debug)]
struct Begun {
    ended: Ended,
    reason: String,
    deadline: Timestamp,
}

/// The work of a run that is not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unfinished {
    pub(super) calls: usize,
    pub(super) writes: usize,
    pub(super) appends: usize,
    pub(super) commits: usize,
    /// Claims and readers.
    pub(super) tranches: usize,
    /// Progress differs from the stored one.
    pub(super) uncommitted: bool,
    /// Releases of claims in flight.
    pub(super) releases: usize,
}

/// The next step of a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Wait,
    /// All progress is stored: release the claims.
    Release,
    End(Ended, String),
}

impl Drain {
    /// Begins to drain. The first reason counts. Returns whether it is the first.
    pub(super) fn begin(&mut self, ended: Ended, reason: &str, now: Timestamp, limit: Duration) -> bool {
        if self.begun.is_some() {
            return false;
        }
        self.begun = Some(Begun { ended, reason: reason.to_owned(), deadline: now + limit });
        true
    }

    pub(super) fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.begun.as_ref().map(|begun| begun.deadline)
    }

    /// Returns the next step.
    pub(super) fn next(&mut self, unfinished: &Unfinished, now: Timestamp) -> Next {
        let Some(begun) = &self.begun else { return Next::Wait };
        if now >= begun.deadline {
            return Next::End(begun.at_the_deadline(unfinished), begun.reason.clone());
        }
        let Unfinished { calls, writes, appends, commits, tranches, uncommitted, releases } = *unfinished;
        if calls + writes + appends + commits + tranches > 0 || uncommitted {
            return Next::Wait;
        }
        if !self.released {
            self.released = true;
            return Next::Release;
        }
        if releases > 0 {
            return Next::Wait;
        }
        Next::End(begun.ended.clone(), begun.reason.clone())
    }
}

impl Begun {
    /// A pipeline that halts, fails or is fenced keeps that reason when its deadline passes: it decides about the restart,
    /// the exit code, and the state that the operator sees.
    fn at_the_deadline(&self, unfinished: &Unfinished) -> Ended {
        match &self.ended {
            Ended::Finished | Ended::Stopped | Ended::DeadlinePassed(_) => Ended::DeadlinePassed(unfinished.names()),
            kept @ (Ended::Halted(_) | Ended::Fenced(_) | Ended::Unavailable(_) | Ended::Failed(_)) => kept.clone(),
        }
    }
}

impl Unfinished {
    fn names(&self) -> Vec<String> {
        let counts = [
            (self.calls, "calls being decided"),
            (self.writes, "decisions being written"),
            (self.appends, "events being parked"),
            (self.commits, "commits"),
            (self.tranches, "claims or readers"),
            (self.releases, "releases of claims"),
        ];
        let named = counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}"));
        named.chain(self.uncommitted.then(|| "progress that could not be stored".to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn drain(ended: Ended) -> Drain {
        let mut drain = Drain::default();
        assert!(drain.begin(ended, "why", at(0), LIMIT));
        drain
    }

    #[test]
    fn a_drain_waits_for_work_and_progress_then_releases_the_claims_and_ends() {
        let mut drain = drain(Ended::Stopped);
        let nothing = Unfinished::default();
        for unfinished in [
            Unfinished { calls: 1, ..nothing },
            Unfinished { writes: 1, ..nothing },
            Unfinished { appends: 1, ..nothing },
            Unfinished { commits: 1, ..nothing },
            Unfinished { tranches: 1, ..nothing },
            Unfinished { uncommitted: true, ..nothing },
        ] {
            assert_eq!(drain.next(&unfinished, at(1)), Next::Wait, "{unfinished:?}");
        }
        assert_eq!(drain.next(&nothing, at(1)), Next::Release);
        assert_eq!(drain.next(&Unfinished { releases: 1, ..nothing }, at(2)), Next::Wait);
        assert_eq!(drain.next(&nothing, at(3)), Next::End(Ended::Stopped, "why".to_owned()));
    }

    #[test]
    fn a_stop_that_takes_too_long_names_its_unfinished_work() {
        let unfinished = Unfinished { calls: 2, uncommitted: true, ..Unfinished::default() };
        let names = vec!["2 calls being decided".to_owned(), "progress that could not be stored".to_owned()];
        let end = Next::End(Ended::DeadlinePassed(names), "why".to_owned());
        assert_eq!(drain(Ended::Stopped).next(&unfinished, at(10)), end);
    }

    #[test]
    fn s3_s4_a_pipeline_that_fails_halts_or_is_fenced_keeps_its_reason_at_the_deadline() {
        let unfinished = Unfinished { uncommitted: true, ..Unfinished::default() };
        let why = || "because".to_owned();
        for ended in [Ended::Failed(why()), Ended::Halted(why()), Ended::Fenced(why()), Ended::Unavailable(why())] {
            assert_eq!(drain(ended.clone()).next(&unfinished, at(10)), Next::End(ended, "why".to_owned()));
        }
    }

    #[test]
    fn the_deadline_is_known_once_the_drain_has_begun() {
        assert_eq!(Drain::default().deadline(), None);
        assert_eq!(drain(Ended::Stopped).deadline(), Some(at(10)));
    }

    #[test]
    fn the_first_reason_to_drain_counts() {
        let mut drain = drain(Ended::Halted("because".to_owned()));
        assert!(!drain.begin(Ended::Stopped, "told to stop", at(1), LIMIT));
        let end = drain.next(&Unfinished::default(), at(10));
        assert!(matches!(end, Next::End(Ended::Halted(_), _)), "{end:?}");
    }
}
