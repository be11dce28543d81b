//! The kinds of tasks: the consequence of a failure, and the reaction to a stop.

/// The kinds of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Serves metrics, health and the admin API.
    Http,
    /// Watches the pipelines directory and the signals.
    Watcher,
    /// Does small periodic chores: summaries of repeated log lines, the progress display.
    Chore,
    /// Sends spans to a collector.
    Exporter,
    /// Owns one pipeline: starts it, drains it, restarts it.
    Keeper,
    /// Runs the loop of a pipeline.
    Driver,
    /// Reports a source's changes of assigned tranches.
    Source,
    /// Reads one tranche.
    Reader,
    /// Runs calls until its queue closes. Script threads are of this kind.
    Worker,
    /// Runs one asynchronous call.
    Call,
    /// Writes decisions to a sink until its queue closes.
    Writer,
    /// Commits progress until its queue closes.
    Committer,
}

/// The consequence of a task's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The daemon stops.
    StopDaemon,
    /// The group stops.
    StopPipeline,
    /// A log line reports it.
    Log,
}

/// The reaction of a running task to the stop of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// The task watches the group's token, ends by itself, and is waited for.
    Drain,
    /// The future is dropped at its next await.
    Abort,
}

impl TaskKind {
    #[cfg(test)]
    pub(super) const ALL: [Self; 12] = [
        Self::Http,
        Self::Watcher,
        Self::Chore,
        Self::Exporter,
        Self::Keeper,
        Self::Driver,
        Self::Source,
        Self::Reader,
        Self::Worker,
        Self::Call,
        Self::Writer,
        Self::Committer,
    ];

    pub const fn on_error(self) -> OnError {
        match self {
            Self::Http | Self::Watcher | Self::Keeper => OnError::StopDaemon,
            Self::Driver | Self::Source | Self::Reader | Self::Worker | Self::Call | Self::Writer | Self::Committer => {
                OnError::StopPipeline
            }
            Self::Chore | Self::Exporter => OnError::Log,
        }
    }

    pub const fn on_stop(self) -> OnStop {
        match self {
            // Requests are answered, calls end, decisions are written and committed, spans are sent.
            Self::Http
            | Self::Exporter
            | Self::Keeper
            | Self::Driver
            | Self::Worker
            | Self::Call
            | Self::Writer
            | Self::Committer => OnStop::Drain,
            // These tasks wait for input that may never arrive. An abort loses no event and no assignment change.
            Self::Watcher | Self::Chore | Self::Source | Self::Reader => OnStop::Abort,
        }
    }

    /// Returns whether the task may end before its group stops. The early end of any other task is a failure.
    pub const fn may_finish(self) -> bool {
        match self {
            // A job ends, a tranche closes, a call returns, a queue closes.
            Self::Keeper | Self::Driver | Self::Reader | Self::Worker | Self::Call | Self::Writer | Self::Committer => {
                true
            }
            Self::Http | Self::Watcher | Self::Chore | Self::Exporter | Self::Source => false,
        }
    }
}
