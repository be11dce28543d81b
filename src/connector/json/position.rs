//! Positions in a log of files: the current file, the offset in it, and proofs of the bytes before.

use serde::{Deserialize, Serialize};

use super::proof::{EarlierDigest, Hash, PrefixHash};
use crate::position::{Position, StartAt};
use crate::source::{SourceError, SourceErrorKind};

/// The point at which reading resumes, stored as JSON. `{}` is the start of a directory without files.
///
/// Its size does not depend on the number of files: the registry keeps the list of the earlier ones, and the position
/// a digest of that list. Positions that an earlier version of the daemon wrote have an old form, with `past` and
/// without `tail`, `sum` and `earlier`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FilePosition {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) file: String,
    pub(super) number: u64,
    /// The bytes read so far, decompressed.
    pub(super) offset: u64,
    /// The lines within these bytes.
    pub(super) line: u64,
    /// The last of these lines had no newline yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) open: bool,
    pub(super) inode: u64,
    /// The first bytes as stored; of a compressed file, those it had when it was opened first.
    pub(super) head: PrefixHash,
    /// The last bytes before the offset, decompressed. `None` in positions of the old form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tail: Option<Hash>,
    /// All whole words before the offset, decompressed. `None` in positions of the old form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sum: Option<Hash>,
    /// The file is a pipe: its earlier bytes are gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) pipe: bool,
    /// The files that were read before this one and still exist.
    #[serde(skip_serializing_if = "EarlierDigest::is_empty")]
    pub(super) earlier: EarlierDigest,
    /// The list of earlier files in positions of the old form. Read, never written.
    #[serde(skip_serializing)]
    pub(super) past: Vec<LeftFile>,
}

/// The state of a file when the reader left it for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeftFile {
    pub(super) file: String,
    pub(super) inode: u64,
    /// The stored size.
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) line: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) open: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<PrefixHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sum: Option<Hash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tail: Option<Hash>,
}

impl FilePosition {
    /// Returns the position of the first line of a file.
    pub(super) fn start(file: String, number: u64) -> Self {
        Self { file, number, head: PrefixHash::of(&[]), ..Self::default() }
    }

    /// Parses a stored position.
    ///
    /// # Errors
    /// [`SourceErrorKind::PositionLost`] if another source, or a later version, stored it.
    pub(super) fn parse(position: &Position) -> Result<Self, SourceError> {
        let unreadable = |cause: anyhow::Error| {
            let doing = format!("resume at `{position}`, which is not a position in JSON lines");
            SourceError::new(SourceErrorKind::PositionLost, doing).caused_by(cause)
        };
        match position {
            Position::Token(token) => serde_json::from_str(token).map_err(|error| unreadable(error.into())),
            Position::Number(_) => Err(unreadable(anyhow::anyhow!("it is a number"))),
        }
    }

    /// Returns the position to start at; `None` is the origin.
    pub(super) fn of(start: &StartAt) -> Result<Option<Self>, SourceError> {
        match start {
            StartAt::Origin => Ok(None),
            StartAt::Position(position) => Ok(Some(Self::parse(position)?).filter(|parsed| !parsed.file.is_empty())),
        }
    }

    pub(super) fn encode(&self) -> Position {
        if self.file.is_empty() {
            return Position::token("{}");
        }
        Position::token(serde_json::to_string(self).expect("numbers and texts are always JSON"))
    }
}
