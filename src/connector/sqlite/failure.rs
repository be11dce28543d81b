//! What can go wrong with a database, sorted by what is to be done about it.

use std::path::Path;

use rusqlite::{Error, ErrorCode};
use time::OffsetDateTime;

use crate::checkpoint::{CheckpointError, CheckpointErrorKind};
use crate::handler::{HandlerError, HandlerErrorKind};

/// What is to be done about a [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The file cannot be used at the moment: locked, full, out of reach.
    Unavailable,
    /// The file is no database, damaged, or of a newer version.
    Unreadable,
    /// The statement will never work.
    Statement,
    /// The transaction was undone by one of its statements.
    Undone,
    Fenced {
        by: String,
        since: Option<OffsetDateTime>,
    },
    /// It is not known whether the commit happened.
    OutcomeUnknown,
}

/// Why a request was not fulfilled. Can be given to everybody who waits for the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) why: String,
    /// The connection should not be used any further.
    pub(super) reopen: bool,
}

impl Failure {
    pub(super) fn new(trouble: Trouble, why: impl Into<String>) -> Self {
        Self { trouble, why: why.into(), reopen: false }
    }

    pub(super) fn unavailable(why: impl Into<String>) -> Self {
        Self::new(Trouble::Unavailable, why)
    }

    pub(super) fn unreadable(why: impl Into<String>) -> Self {
        Self::new(Trouble::Unreadable, why)
    }

    /// Puts what was being done before the reason.
    pub(super) fn while_doing(mut self, doing: impl std::fmt::Display) -> Self {
        self.why = format!("{doing}: {}", self.why);
        self
    }

    /// Returns whether the database is at fault, not what was asked of it.
    pub(super) fn is_of_the_database(&self) -> bool {
        matches!(self.trouble, Trouble::Unavailable | Trouble::Unreadable | Trouble::OutcomeUnknown)
    }

    pub(super) fn into_checkpoint_error(self, doing: impl std::fmt::Display, path: &Path) -> CheckpointError {
        let kind = match self.trouble {
            Trouble::Unavailable | Trouble::Undone => CheckpointErrorKind::Unavailable,
            // Our own statements fail only on tables that are not as we made them.
            Trouble::Unreadable | Trouble::Statement => CheckpointErrorKind::Unreadable,
            Trouble::Fenced { by, since } => CheckpointErrorKind::Fenced { by, since },
            Trouble::OutcomeUnknown => CheckpointErrorKind::OutcomeUnknown,
        };
        CheckpointError::new(kind, format!("{doing} `{}`", path.display())).caused_by(anyhow::Error::msg(self.why))
    }

    /// As a sink reports it. The message names the file where that is at fault.
    pub(super) fn to_handler_error(&self, path: &Path) -> HandlerError {
        match self.trouble {
            Trouble::Statement => HandlerError::new(HandlerErrorKind::Permanent, self.why.clone()),
            Trouble::Undone => HandlerError::new(HandlerErrorKind::Transient, self.why.clone()),
            _ => HandlerError::new(
                HandlerErrorKind::Unavailable,
                format!("cannot write to the database `{}`: {}", path.display(), self.why),
            ),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = error.sqlite_error_code();
        let trouble = match code {
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
            ) => Trouble::Unavailable,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Unreadable,
            _ => Trouble::Statement,
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
            // SQLite's own words, without the statement, which is named by whoever ran it.
            Error::SqlInputError { msg, .. } | Error::SqliteFailure(_, Some(msg)) => msg,
            Error::MultipleStatement => "it is more than one statement".to_owned(),
            other => other.to_string(),
        };
        Self { trouble, why, reopen }
    }
}

/// What became of a COMMIT that returned an error: a failed write to the log leaves it open whether what was written
/// counts, as the last frame may have reached the disk (C11).
pub(super) fn of_commit(error: Error) -> Failure {
    let io = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
    let mut failure = Failure::from(error);
    if io {
        failure.trouble = Trouble::OutcomeUnknown;
    }
    failure
}
