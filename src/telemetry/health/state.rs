//! The life of a pipeline.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a pipeline. Each has an exit (R34).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The source, store and sink are being connected, the tranches claimed.
    Starting,
    Running,
    /// The operator paused it: nothing is read or handled, and handled events are committed.
    Paused,
    /// Reading has ended; calls in flight end, and their progress is committed.
    Draining,
    /// A run failed or is being replaced; the next one starts by itself after a delay (R36).
    Restarting,
    /// Another process owns the tranches (C15).
    Fenced,
    /// The error policy stopped it (`then = "halt"`) until the operator acts (C22).
    Halted,
    /// A finite job that is done.
    Finished,
    /// The operator stopped it, or its file was removed.
    Stopped,
}

/// A command to a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Pause,
    Resume,
    Restart,
    /// Run, if no run is under way or paused.
    Start,
    /// The changed files of the pipeline passed `check`.
    Reload,
    /// Drain, and rest until told to start.
    Stop,
}

/// The name in the API and in logs.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Stop => "drain",
        })
    }
}

/// The effect of a [`Command`] in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The pipeline enters this state.
    Becomes(State),
    /// The state stays, and the delay before the next start ends at once.
    Hurries,
    /// The state stays: it is the wanted one, or the command is obeyed after the current step. (A reload is applied in
    /// place, or followed by a restart, as the difference demands.)
    Stays,
}

impl State {
    pub const ALL: [Self; 9] = [
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Draining,
        Self::Restarting,
        Self::Fenced,
        Self::Halted,
        Self::Finished,
        Self::Stopped,
    ];

    /// Returns the name in metrics, logs and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
            Self::Fenced => "fenced",
            Self::Halted => "halted",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
        }
    }

    /// Returns the effect of a command in this state. No state refuses one.
    pub const fn after(self, command: Command) -> Transition {
        use Transition::{Becomes, Hurries, Stays};
        match (command, self) {
            (Command::Pause, Self::Starting | Self::Running | Self::Restarting | Self::Fenced) => Becomes(Self::Paused),
            (Command::Pause, _) => Stays,

            (Command::Resume, Self::Paused) => Becomes(Self::Running),
            (Command::Resume, Self::Fenced | Self::Halted) => Becomes(Self::Starting),
            (Command::Resume | Command::Restart | Command::Start | Command::Reload, Self::Restarting) => Hurries,
            (Command::Resume, _) => Stays,

            (Command::Restart, Self::Starting | Self::Running | Self::Paused) => Becomes(Self::Restarting),
            (Command::Restart, Self::Fenced) => Becomes(Self::Starting),
            (Command::Restart | Command::Start | Command::Reload, Self::Halted | Self::Finished | Self::Stopped) => {
                Becomes(Self::Starting)
            }
            (Command::Restart, Self::Draining) => Stays,

            (Command::Start, Self::Fenced) => Becomes(Self::Starting),
            (Command::Start, Self::Starting | Self::Running | Self::Paused | Self::Draining) => Stays,

            // A changed file is no reason for a fenced pipeline to claim again (C15).
            (Command::Reload, Self::Starting | Self::Running | Self::Paused | Self::Draining | Self::Fenced) => Stays,

            (Command::Stop, Self::Starting | Self::Running | Self::Paused) => Becomes(Self::Draining),
            (Command::Stop, Self::Restarting | Self::Fenced | Self::Halted | Self::Finished) => Becomes(Self::Stopped),
            (Command::Stop, Self::Draining | Self::Stopped) => Stays,
        }
    }

    /// Returns whether a pipeline may enter `next` from this state, by a command or by itself.
    pub fn may_become(self, next: Self) -> bool {
        self.successors().contains(&next)
    }

    const fn successors(self) -> &'static [Self] {
        match self {
            Self::Starting => {
                &[Self::Running, Self::Paused, Self::Draining, Self::Restarting, Self::Fenced, Self::Halted]
            }
            Self::Running => {
                &[Self::Paused, Self::Draining, Self::Restarting, Self::Fenced, Self::Halted, Self::Finished]
            }
            Self::Paused => &[Self::Running, Self::Draining, Self::Restarting, Self::Fenced, Self::Halted],
            Self::Draining => &[Self::Restarting, Self::Fenced, Self::Halted, Self::Finished, Self::Stopped],
            Self::Restarting => &[Self::Starting, Self::Paused, Self::Fenced, Self::Halted, Self::Stopped],
            Self::Fenced => &[Self::Starting, Self::Paused, Self::Stopped],
            Self::Halted | Self::Finished => &[Self::Starting, Self::Stopped],
            Self::Stopped => &[Self::Starting],
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const COMMANDS: [Command; 6] =
        [Command::Pause, Command::Resume, Command::Restart, Command::Start, Command::Reload, Command::Stop];

    #[test]
    fn r58_every_command_is_legal_in_every_state() {
        let mut table = String::from("             pause       resume      restart     start       reload      stop\n");
        for state in State::ALL {
            let row: Vec<_> = COMMANDS
                .map(|command| match state.after(command) {
                    Transition::Becomes(next) => format!("{next:<12}"),
                    Transition::Hurries => format!("{:<12}", "(hurries)"),
                    Transition::Stays => format!("{:<12}", "-"),
                })
                .into();
            table += format!("{state:<13}{}", row.concat()).trim_end();
            table.push('\n');
        }
        expect![[r#"
                         pause       resume      restart     start       reload      stop
            starting     paused      -           restarting  -           -           draining
            running      paused      -           restarting  -           -           draining
            paused       -           running     restarting  -           -           draining
            draining     -           -           -           -           -           -
            restarting   paused      (hurries)   (hurries)   (hurries)   (hurries)   stopped
            fenced       paused      starting    starting    starting    -           stopped
            halted       -           starting    starting    starting    starting    stopped
            finished     -           -           starting    starting    starting    stopped
            stopped      -           -           starting    starting    starting    -
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn every_command_causes_a_legal_transition() {
        for state in State::ALL {
            for command in COMMANDS {
                if let Transition::Becomes(next) = state.after(command) {
                    assert!(state.may_become(next), "{command:?} takes `{state}` to `{next}`");
                    assert_ne!(state, next, "{command:?}");
                }
            }
        }
    }

    #[test]
    fn r34_every_state_has_an_exit_and_a_paused_pipeline_can_stop() {
        for state in State::ALL {
            assert!(State::ALL.into_iter().any(|next| state.may_become(next)), "{state}");
            let stops = state == State::Stopped
                || matches!(state.after(Command::Stop), Transition::Becomes(State::Draining | State::Stopped))
                || state == State::Draining;
            assert!(stops, "{state}");
        }
        assert!(State::Draining.may_become(State::Stopped));
    }

    #[test]
    fn no_state_becomes_itself() {
        for state in State::ALL {
            assert!(!state.may_become(state), "{state}");
        }
    }
}
