//! The life of a pipeline.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a pipeline is in its life. None is without an exit (R34).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its parts are being connected, its tranches claimed.
    Starting,
    Running,
    /// Somebody asked it to wait: nothing is read or handled; what was handled is committed.
    Paused,
    /// No longer reads; calls in flight end and are committed.
    Draining,
    /// It failed, or was asked to: it is being taken down or waits, and starts again by itself (R36).
    Restarting,
    /// Somebody else owns its tranches now (C15).
    Fenced,
    /// Its policy stopped it (`then = "halt"`) until a person acts (C22).
    Halted,
    /// A finite job that is done.
    Finished,
    /// Somebody asked it to stop, or its file is gone.
    Stopped,
}

/// What may be asked of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Pause,
    Resume,
    Restart,
    /// Its files changed, and those that changed are sound.
    Reload,
    Stop,
}

/// What a [`Verb`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The pipeline is on its way into this state.
    Becomes(State),
    /// The same state, but a delay that it waits for is cut short.
    Hurries,
    /// The same state: what was asked for is so already, or comes after what is going on. (A reload is taken in in
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

    /// Returns the name by which metrics, logs and the API know it.
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

    /// Returns what a verb does in this state. There is no state in which one is refused.
    pub const fn after(self, verb: Verb) -> Effect {
        use Effect::{Becomes, Hurries, Stays};
        match (verb, self) {
            (Verb::Pause, Self::Starting | Self::Running | Self::Restarting | Self::Fenced) => Becomes(Self::Paused),
            (Verb::Pause, _) => Stays,

            (Verb::Resume, Self::Paused) => Becomes(Self::Running),
            (Verb::Resume, Self::Fenced | Self::Halted) => Becomes(Self::Starting),
            (Verb::Resume | Verb::Restart | Verb::Reload, Self::Restarting) => Hurries,
            (Verb::Resume, _) => Stays,

            (Verb::Restart, Self::Starting | Self::Running | Self::Paused) => Becomes(Self::Restarting),
            (Verb::Restart, Self::Fenced) => Becomes(Self::Starting),
            (Verb::Restart | Verb::Reload, Self::Halted | Self::Finished | Self::Stopped) => Becomes(Self::Starting),
            (Verb::Restart, Self::Draining) => Stays,

            // A fenced pipeline does not claim because a file was touched (C15).
            (Verb::Reload, Self::Starting | Self::Running | Self::Paused | Self::Draining | Self::Fenced) => Stays,

            (Verb::Stop, Self::Starting | Self::Running | Self::Paused) => Becomes(Self::Draining),
            (Verb::Stop, Self::Restarting | Self::Fenced | Self::Halted | Self::Finished) => Becomes(Self::Stopped),
            (Verb::Stop, Self::Draining | Self::Stopped) => Stays,
        }
    }

    /// Returns whether a pipeline may go from this state into that one, by a verb or by itself.
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

    const VERBS: [Verb; 5] = [Verb::Pause, Verb::Resume, Verb::Restart, Verb::Reload, Verb::Stop];

    #[test]
    fn r58_every_verb_is_legal_in_every_state() {
        let mut table = String::from("             pause       resume      restart     reload      stop\n");
        for state in State::ALL {
            let row: Vec<_> = VERBS
                .map(|verb| match state.after(verb) {
                    Effect::Becomes(next) => format!("{next:<12}"),
                    Effect::Hurries => format!("{:<12}", "(hurries)"),
                    Effect::Stays => format!("{:<12}", "-"),
                })
                .into();
            table += format!("{state:<13}{}", row.concat()).trim_end();
            table.push('\n');
        }
        expect![[r#"
                         pause       resume      restart     reload      stop
            starting     paused      -           restarting  -           draining
            running      paused      -           restarting  -           draining
            paused       -           running     restarting  -           draining
            draining     -           -           -           -           -
            restarting   paused      (hurries)   (hurries)   (hurries)   stopped
            fenced       paused      starting    starting    -           stopped
            halted       -           starting    starting    starting    stopped
            finished     -           -           starting    starting    stopped
            stopped      -           -           starting    starting    -
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn what_a_verb_does_is_a_legal_transition() {
        for state in State::ALL {
            for verb in VERBS {
                if let Effect::Becomes(next) = state.after(verb) {
                    assert!(state.may_become(next), "{verb:?} takes `{state}` to `{next}`");
                    assert_ne!(state, next, "{verb:?}");
                }
            }
        }
    }

    #[test]
    fn r34_no_state_is_without_an_exit_and_a_paused_pipeline_can_stop() {
        for state in State::ALL {
            assert!(State::ALL.into_iter().any(|next| state.may_become(next)), "{state}");
            let stops = state == State::Stopped
                || matches!(state.after(Verb::Stop), Effect::Becomes(State::Draining | State::Stopped))
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
