//! The drain of a run, and its end.

use std::time::Duration;

use super::super::drain::{Ended, Next, Unfinished};
use super::super::messages::Assignment;
use super::super::options::Stop;
use super::super::tranches::Phase;
use super::Driver;
use crate::scheduler::Outcome;
use crate::source::Left;
use crate::telemetry::health::State;

impl Driver {
    /// Begins to drain: reading and offering stop, running calls finish, and their progress is stored.
    pub(super) fn begin_drain(&mut self, ended: Ended, reason: &str) {
        let is_halt = matches!(ended, Ended::Halted(_) | Ended::Unavailable(_));
        if !self.drain.begin(ended, reason, self.now, self.options.drain) {
            return;
        }
        match is_halt {
            true => tracing::error!(reason, "pipeline halts"),
            false => tracing::info!(reason, "pipeline drains"),
        }
        self.shared.enter(State::Draining, reason);
        self.tranches.stop_reading();
        self.take_back_calls();
        // The next owner decides again. A retry can be far ahead, and its back end unavailable.
        for decided in self.writes.take_retries() {
            self.finish(decided.work, Outcome::Return);
        }
        self.commits.hurry(self.now);
    }

    pub(super) fn look_for_the_end(&mut self) {
        if self.drain.is_begun() {
            return;
        }
        match self.options.stop {
            Stop::After(limit) if self.now.since(self.started) >= limit => {
                let reason = match self.unhandled() {
                    0 => "its time is up; everything that was read is handled".to_owned(),
                    left => format!("its time is up; events read but not handled: {left}"),
                };
                self.begin_drain(Ended::Finished, &reason);
            }
            Stop::Tail if self.is_at_its_end() => match self.why_fenced() {
                why if why.is_empty() => {
                    let reason = self.why_finished();
                    self.begin_drain(Ended::Finished, &reason);
                }
                // Other processes have the rest: this job has not handled everything.
                why => self.begin_drain(Ended::Fenced(why.clone()), &why),
            },
            Stop::Tail => {
                if let Some(why) = self.follow.as_ref().and_then(|follow| follow.waits_in_vain()) {
                    self.begin_drain(Ended::Unavailable(why.clone()), &why);
                } else if let Some(why) = self.missing_event() {
                    self.begin_drain(Ended::Halted(why.clone()), &why);
                }
            }
            Stop::Never | Stop::After(_) => {}
        }
    }

    fn why_finished(&self) -> String {
        let parked = self.snapshot().parked.streams;
        match parked {
            0 => "everything is handled".to_owned(),
            _ => format!(
                "everything else is handled, and streams are parked: {parked}; see `propulsiond parked list {}`",
                self.identity.name
            ),
        }
    }

    fn unhandled(&self) -> u64 {
        self.scheduler.tranches().iter().map(|report| report.unhandled).sum()
    }

    /// Names an event that `require_all` waits for, if everything is read and nothing else is left to do.
    pub(super) fn missing_event(&self) -> Option<String> {
        if !self.is_read_to_its_end() || self.scheduler.next_wake().is_some() {
            return None;
        }
        let missing = self.scheduler.missing(self.now);
        let (first, index) = missing.first().and_then(|first| Some((first, first.missing?)))?;
        Some(format!(
            "event {index} of stream `{}` is missing, and `require_all` offers no later one (streams that wait: {})",
            first.stream,
            missing.len()
        ))
    }

    fn is_at_its_end(&self) -> bool {
        self.is_read_to_its_end() && self.unhandled() == 0
    }

    fn is_read_to_its_end(&self) -> bool {
        self.settled
            && self.calls.deciding() == 0
            && self.writes.is_idle()
            && self.parks.is_idle()
            && self.lane.is_empty()
            && !self.looks.is_out()
            && !self.commits.is_in_flight()
            && self.tranches.are_read_to_their_end()
    }

    /// Performs the next step of the drain. Returns the end of the run and its reason, once it is over.
    pub(super) fn ended(&mut self) -> Option<(Ended, String)> {
        if !self.drain.is_begun() {
            return None;
        }
        let unfinished = Unfinished {
            calls: self.calls.deciding(),
            writes: self.writes.active() + self.writes.retries(),
            appends: self.parks.appending() + self.lane.unstored(),
            commits: usize::from(self.commits.is_in_flight()),
            tranches: self.tranches.claims_and_readers(),
            uncommitted: self.commits.are_wanted(&mut self.scheduler, &mut self.tranches),
            releases: self.releases,
        };
        match self.drain.next(&unfinished, self.now) {
            Next::Wait => None,
            Next::End(ended, reason) => Some(self.unless_fenced(ended, reason)),
            Next::Release => {
                self.release_claims();
                // The releases wake the driver; without any, the run is over.
                if self.releases == 0 { self.ended() } else { None }
            }
        }
    }

    /// Corrects the end of a finite job. Its last commit can show that another process has claimed a tranche: the progress of
    /// that tranche is not stored, and so the job has not finished (C15).
    fn unless_fenced(&self, ended: Ended, reason: String) -> (Ended, String) {
        let why = self.why_fenced();
        if ended != Ended::Finished || self.options.stop != Stop::Tail || why.is_empty() {
            return (ended, reason);
        }
        (Ended::Fenced(why.clone()), why)
    }

    fn release_claims(&mut self) {
        let held = self.tranches.iter().filter(|(_, state)| !matches!(state.phase, Phase::Fenced { .. }));
        let held: Vec<_> = held.map(|(_, state)| (state.key.clone(), state.epoch, state.claim.fence)).collect();
        for (key, epoch, fence) in held {
            self.release(key, fence, Some(Assignment { epoch, left: Left::Released }));
        }
    }

    /// Closes sink and source, until the drain deadline at most.
    pub(super) async fn close(&mut self, ended: Ended) -> Ended {
        let left = self.drain.deadline().map_or(Duration::ZERO, |deadline| deadline.since(self.clock.now()));
        let (sink, source) = (&self.sink, &self.source);
        let closing = async {
            if let Err(error) = sink.as_sink().close().await {
                tracing::error!(%error, "sink not closed");
            }
            source.close().await;
        };
        match tokio::time::timeout(left, closing).await {
            Ok(()) => ended,
            Err(_) if matches!(ended, Ended::Finished | Ended::Stopped) => {
                Ended::DeadlinePassed(vec!["the close of the sink or the source".to_owned()])
            }
            Err(_) => ended,
        }
    }
}
