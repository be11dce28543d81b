//! The exit codes.

use std::process::ExitCode;

/// The end of the process, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// A finite job is done, a daemon drained after a signal, a command succeeded.
    Ok,
    /// The process failed, or the policy halted a pipeline of a finite job.
    Failed,
    /// The files or the command line are wrong.
    BadFiles,
    /// The environment is wrong: a port is taken, the data directory is locked or unwritable. For one-shot commands, also
    /// an unavailable store.
    BadEnvironment,
    /// The process stopped after the drain deadline.
    DrainTimedOut,
    /// A second signal ended the process.
    Signalled(u8),
}

impl ExitStatus {
    pub(super) const HELP: &str = "Exit status: 0 ok, 1 failed, 2 the files or the command line are wrong, 3 the \
        environment is wrong, 4 stopped but not drained in time, 128+n ended by signal n";

    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::BadFiles => 2,
            Self::BadEnvironment => 3,
            Self::DrainTimedOut => 4,
            Self::Signalled(signal) => 128_u8.saturating_add(signal),
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_status_has_its_own_code() {
        use ExitStatus::{BadEnvironment, BadFiles, DrainTimedOut, Failed, Ok, Signalled};
        let codes = [Ok, Failed, BadFiles, BadEnvironment, DrainTimedOut, Signalled(2), Signalled(15)];
        assert_eq!(codes.map(ExitStatus::code), [0, 1, 2, 3, 4, 130, 143]);
    }
}
