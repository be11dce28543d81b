//! How a run comes to its end: why it drains, what it waits for then, and how long.

use super::Stop;
use super::driver::Driver;
use super::life::Ended;
use super::tranches::Tranche;
use crate::telemetry::health::State;

impl Driver {
    /// Begins to drain: nothing more is read or offered; what runs is finished and its progress stored.
    pub(super) fn drain(&mut self, ended: Ended, why: &str) {
        if self.draining.is_some() {
            return;
        }
        match &ended {
            Ended::Halted(_) => tracing::error!(reason = %why, "pipeline halts"),
            _ => tracing::info!(reason = %why, "pipeline drains"),
        }
        self.shared.enter(State::Draining, why);
        self.draining = Some((ended, self.now + self.options.drain));
        self.stop_reading();
        // What was decided but never handed to the sink is offered again by whoever comes next.
        self.commit_at = self.now;
    }

    pub(super) fn look_for_the_end(&mut self) {
        if self.draining.is_some() {
            return;
        }
        match self.options.stop {
            Stop::After(limit) if self.now.since(self.started) >= limit => {
                self.drain(Ended::Finished, "its time is up")
            }
            Stop::Tail if self.is_at_its_end() => self.drain(Ended::Finished, "everything is handled"),
            Stop::Tail => {
                if let Some(why) = self.what_is_missing() {
                    self.drain(Ended::Halted(why.clone()), &why);
                }
            }
            Stop::Never | Stop::After(_) => {}
        }
    }

    /// Names an event that `require_all` waits for, if everything is read and nothing else is left to do.
    fn what_is_missing(&self) -> Option<String> {
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
        self.is_read_to_its_end() && self.scheduler.tranches().iter().all(|report| report.unhandled == 0)
    }

    fn is_read_to_its_end(&self) -> bool {
        self.settled && self.is_idle() && self.tranches.values().all(Tranche::is_read_to_its_end)
    }

    /// Returns whether nothing is under way that was read.
    pub(super) fn is_idle(&self) -> bool {
        self.deciders.deciding() == 0
            && self.decided.is_empty()
            && self.writing == 0
            && self.appending == 0
            && self.to_park.is_empty()
            && !self.in_transaction
    }

    /// Returns how it ended, once nothing is under way any more or the time for that is up.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        let (ended, deadline) = self.draining.clone()?;
        if self.now >= deadline {
            return Some(Ended::DeadlinePassed(self.what_still_runs()));
        }
        let quiet =
            self.deciders.deciding() == 0 && self.decided.is_empty() && self.writing == 0 && self.appending == 0;
        if !quiet || self.in_transaction || self.plain_commit.under_way() {
            return None;
        }
        if self.has_uncommitted_progress() {
            return None; // `commit` stores it, again and again if need be, until the deadline.
        }
        if !self.released {
            self.released = true;
            self.release_keys();
        }
        (self.plain_commit.releasing() == 0).then_some(ended)
    }

    fn what_still_runs(&mut self) -> Vec<String> {
        let mut running = Vec::new();
        for (count, what) in [
            (self.deciders.deciding(), "calls being decided"),
            (self.decided.len() + self.writing, "decisions being written"),
            (self.appending, "events being parked"),
            (usize::from(self.in_transaction || self.plain_commit.under_way()), "commits"),
        ] {
            if count > 0 {
                running.push(format!("{count} {what}"));
            }
        }
        if self.has_uncommitted_progress() {
            running.push("progress that could not be stored".to_owned());
        }
        running
    }
}
