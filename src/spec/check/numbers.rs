//! The bounds of numbers.

use std::num::NonZeroUsize;

use super::Check;
use crate::config::document::Problem;
use crate::script;

impl Check<'_> {
    /// Checks numbers that are out of bounds or contradict each other.
    pub(super) fn numbers(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let (schedule, errors, rhai) = (&spec.schedule, &spec.errors, spec.handler.rhai.as_ref());
        let zeros = [
            (&["schedule", "commit_interval"][..], schedule.commit_interval.is_zero()),
            (&["schedule", "purge"], schedule.purge.is_some_and(|purge| purge.is_zero())),
            (&["schedule", "read_ahead_bytes"], schedule.read_ahead_bytes == 0),
            (&["schedule", "max_bytes"], schedule.max_bytes == Some(0)),
            (&["handler", "rhai", "timeout"], rhai.is_some_and(|rhai| rhai.timeout.is_zero())),
            (&["errors", "retry", "initial"], errors.retry.initial.is_zero()),
            (&["errors", "stuck_after"], errors.stuck_after.is_zero()),
        ];
        let zero = |path: &[&str]| self.problem(path, format!("`{}` must be greater than 0", path[path.len() - 1]));
        let mut problems: Vec<_> =
            zeros.into_iter().filter(|(_, is_zero)| *is_zero).map(|(path, _)| zero(path)).collect();
        if errors.retry.initial > errors.retry.max {
            let why = "`initial` is longer than `max`";
            problems.push(self.problem(&["errors", "retry", "initial"], why));
        }
        if errors.outage.streams > errors.outage.calls {
            let why = "`streams` exceeds `calls`, so no outage would be found";
            problems.push(self.problem(&["errors", "outage", "streams"], why));
        }
        problems.extend(self.out_of_bounds());
        problems
    }

    fn out_of_bounds(&self) -> Vec<Problem> {
        let spec = &self.pipeline.spec;
        let schedule = &spec.schedule;
        let mut given = vec![
            (vec!["schedule", "concurrency"], schedule.concurrency.get(), 1, 100_000),
            (vec!["schedule", "streams_per_call"], schedule.streams_per_call.get(), 1, 100_000),
            // The breaker keeps the names of this many streams.
            (vec!["errors", "outage", "streams"], spec.errors.outage.streams.get(), 1, 10_000),
            (vec!["schedule", "read_ahead"], schedule.read_ahead.get(), 1, 1_000_000),
        ];
        if let Some(rhai) = &spec.handler.rhai {
            let limits = |key| vec!["handler", "rhai", "limits", key];
            given.extend([
                (vec!["handler", "rhai", "threads"], rhai.threads.map_or(1, NonZeroUsize::get), 1, 1_024),
                // The stack of a thread that runs scripts has room for these depths.
                (limits("call_depth"), rhai.limits.call_depth, 1, script::MAX_CALL_DEPTH),
                (limits("expression_depth"), rhai.limits.expression_depth, 8, script::MAX_EXPRESSION_DEPTH),
            ]);
        }
        let wrong = given.into_iter().filter(|(_, number, least, most)| !(*least..=*most).contains(number));
        wrong
            .map(|(path, _, least, most)| {
                let key = path[path.len() - 1];
                self.problem(&path, format!("`{key}` must be from {least} to {most}"))
            })
            .collect()
    }
}
