//! The kinds of tasks: the consequence of a failure, and the reaction to a stop.

/// The sorts of tasks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Serves metrics, health and the admin API.
    Http,
    /// Watches the pipelines folder and the signals.
    Watcher,
    /// Small regular chores: summaries of repeated log lines, the progress display.
    Chore,
    /// Sends spans to a collector.
    Exporter,
    /// Owns one pipeline: starts it, drains it, starts it again.
    Keeper,
    /// The loop of a pipeline.
    Driver,
    /// Reports a source's changes of assigned tranches.
    Source,
    /// Reads one tranche.
    Reader,
    /// Runs calls, for as long as its queue is open. Scripts have threads of this kind.
    Worker,
    /// One call that waits for something outside.
    Call,
    /// Writes what was decided to a sink, for as long as its queue is open.
    Writer,
    /// Commits progress, for as long as its queue is open.
    Committer,
}

/// The consequence of a task's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The daemon cannot go on.
    StopDaemon,
    /// Its group cannot go on.
    StopPipeline,
    /// A line in the log says enough.
    Log,
}

/// The reaction of a running task to the stop of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// It sees the group's token, ends by itself, and is waited for.
    Drain,
    /// Its future is dropped where it waits.
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
            // Requests are answered, calls end, what is decided is written and committed, spans are sent.
            Self::Http
            | Self::Exporter
            | Self::Keeper
            | Self::Driver
            | Self::Worker
            | Self::Call
            | Self::Writer
            | Self::Committer => OnStop::Drain,
            // These wait for input that may never come. Dropping them loses no event and no change.
            Self::Watcher | Self::Chore | Self::Source | Self::Reader => OnStop::Abort,
        }
    }

    /// Returns whether the task may end well before its group stops. One that may not has failed if it does.
    pub const fn may_finish(self) -> bool {
        match self {
            // A job is done, a tranche is closed, a call has its answer, a queue its last entry.
            Self::Keeper | Self::Driver | Self::Reader | Self::Worker | Self::Call | Self::Writer | Self::Committer => {
                true
            }
            Self::Http | Self::Watcher | Self::Chore | Self::Exporter | Self::Source => false,
        }
    }
}
