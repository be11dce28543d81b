//! Failures of a database, and the one place that maps SQLite's errors to them.

use std::path::Path;

use rusqlite::{Error, ErrorCode};
use time::OffsetDateTime;

use crate::checkpoint::{CheckpointError, CheckpointErrorKind};
use crate::handler::{HandlerError, HandlerErrorKind};

/// The kind of a [`Failure`], named by the next step of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The file cannot be used at the moment: locked, full, or unreachable.
    Unavailable,
    /// The file is no database, corrupt, truncated, or of a newer version.
    Unreadable,
    /// The statement can never succeed.
    Statement,
    /// One of the transaction's statements rolled it back.
    RolledBack,
    /// The set of a commit exceeds the limit (C14).
    TooLarge,
    /// A later claim owns the key.
    Fenced { by: String, since: Option<OffsetDateTime> },
    /// The outcome of the commit is unknown.
    OutcomeUnknown,
}

/// The reason for which a request failed. Every caller that shares the transaction gets a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) why: String,
    /// The index of the event at fault, if it is known.
    pub(super) index: Option<i64>,
    /// Whether the connection must be closed and opened again.
    pub(super) reopen: bool,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), index: None, reopen: false }
    }

    pub(super) fn unavailable(why: impl Into<String>) -> Self {
        Self::new(FailureKind::Unavailable, why)
    }

    pub(super) fn unreadable(why: impl Into<String>) -> Self {
        Self::new(FailureKind::Unreadable, why)
    }

    /// Puts the failed action before the reason.
    pub(super) fn while_doing(mut self, doing: impl std::fmt::Display) -> Self {
        self.why = format!("{doing}: {}", self.why);
        self
    }

    /// Returns whether the database is at fault, rather than a statement.
    pub(super) fn is_of_the_database(&self) -> bool {
        matches!(self.kind, FailureKind::Unavailable | FailureKind::Unreadable | FailureKind::OutcomeUnknown)
    }

    /// Converts the failure to a store's error that names the action and the file.
    pub(super) fn into_checkpoint_error(self, doing: impl std::fmt::Display, path: &Path) -> CheckpointError {
        let mut why = self.why;
        let kind = match self.kind {
            FailureKind::Unavailable | FailureKind::RolledBack => CheckpointErrorKind::Unavailable,
            // The store's own statements fail only on tables that another program changed.
            FailureKind::Statement => {
                why += " (another program changed the tables; `propulsiond doctor` names the rows and the remedy)";
                CheckpointErrorKind::Unreadable
            }
            FailureKind::Unreadable => CheckpointErrorKind::Unreadable,
            FailureKind::TooLarge => CheckpointErrorKind::TooLarge,
            FailureKind::Fenced { by, since } => CheckpointErrorKind::Fenced { by, since },
            FailureKind::OutcomeUnknown => CheckpointErrorKind::OutcomeUnknown,
        };
        CheckpointError::new(kind, format!("{doing} `{}`", path.display())).caused_by(anyhow::Error::msg(why))
    }

    /// Converts the failure to a sink's error. The message names the file only if the file is at fault.
    pub(super) fn to_handler_error(&self, path: &Path) -> HandlerError {
        match self.kind {
            FailureKind::Statement => {
                HandlerError::new(HandlerErrorKind::Permanent, self.why.clone()).at_known_index(self.index)
            }
            FailureKind::RolledBack => HandlerError::new(HandlerErrorKind::Transient, self.why.clone()),
            _ => {
                let kind = match self.kind {
                    FailureKind::TooLarge => HandlerErrorKind::Unusable,
                    _ => HandlerErrorKind::Unavailable,
                };
                HandlerError::new(kind, format!("cannot write to the database `{}`: {}", path.display(), self.why))
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = error.sqlite_error_code();
        let kind = match code {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::OperationInterrupted
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::SchemaChanged
                | ErrorCode::NoLargeFileSupport,
            ) => FailureKind::Unavailable,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => FailureKind::Unreadable,
            _ => FailureKind::Statement,
        };
        let reopen = matches!(
            code,
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
            )
        );
        let why = match error {
            // SQLite's own message, without the statement: its caller names that.
            Error::SqlInputError { msg, .. } | Error::SqliteFailure(_, Some(msg)) => msg,
            Error::MultipleStatement => "it is more than one statement".to_owned(),
            other => other.to_string(),
        };
        Self { kind, why, index: None, reopen }
    }
}

/// Converts the error of a COMMIT.
pub(super) fn of_commit(error: Error) -> Failure {
    let is_io_error = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
    let mut failure = Failure::from(error);
    // After a failed write to the log, its last frame may have reached the disk. The commit then counts after the
    // next recovery, so its outcome is unknown (C11).
    if is_io_error {
        failure.kind = FailureKind::OutcomeUnknown;
    }
    failure
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn sqlite_error(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn c11_an_io_error_at_commit_leaves_the_outcome_unknown() {
        for code in [ffi::SQLITE_IOERR, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC] {
            let failure = of_commit(sqlite_error(code));
            assert_eq!(failure.kind, FailureKind::OutcomeUnknown);
            assert!(failure.reopen, "the connection's view of the log is no longer certain");
            let error = failure.into_checkpoint_error("cannot commit g/s/0 to", Path::new("p.db"));
            assert_eq!(error.kind, CheckpointErrorKind::OutcomeUnknown);
        }
    }

    #[test]
    fn c11_other_errors_at_commit_leave_nothing_committed() {
        for (code, kind) in [
            (ffi::SQLITE_FULL, FailureKind::Unavailable),
            (ffi::SQLITE_BUSY, FailureKind::Unavailable),
            (ffi::SQLITE_CONSTRAINT, FailureKind::Statement),
            (ffi::SQLITE_CORRUPT, FailureKind::Unreadable),
        ] {
            assert_eq!(of_commit(sqlite_error(code)).kind, kind, "{code}");
        }
    }

    #[test]
    fn an_io_error_before_the_commit_is_unavailable() {
        assert_eq!(Failure::from(sqlite_error(ffi::SQLITE_IOERR)).kind, FailureKind::Unavailable);
    }
    #[test]
    fn a_row_that_another_program_changed_is_reported_with_the_remedy() {
        let error = Error::InvalidColumnType(0, "position".to_owned(), rusqlite::types::Type::Blob);
        let error = Failure::from(error).into_checkpoint_error("cannot load g/s/0 from", Path::new("p.db"));
        assert_eq!(error.kind, CheckpointErrorKind::Unreadable);
        let cause = error.cause.unwrap().to_string();
        assert!(cause.ends_with("; `propulsiond doctor` names the rows and the remedy)"), "{cause}");
    }
}
