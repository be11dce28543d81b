//! Positions: which file is being read, how far, and which ones were read before it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::position::{Position, StartAt};
use crate::source::{SourceError, SourceErrorKind};

/// Where reading goes on, written as JSON. `{}` is the start of a folder that has no files yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Place {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) file: String,
    pub(super) number: u64,
    /// How many bytes of the file (decompressed) were read.
    pub(super) offset: u64,
    /// How many lines those are.
    pub(super) line: u64,
    /// The last of those lines had no newline yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) open: bool,
    pub(super) inode: u64,
    pub(super) head: Head,
    /// The files that were read before this one and are still there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) past: Vec<Past>,
}

/// How far a file was read when it was left for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Past {
    pub(super) file: String,
    pub(super) inode: u64,
    /// Its size then.
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) line: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) open: bool,
    /// `None` in positions of versions that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<Head>,
}

impl Place {
    pub(super) fn parse(position: &Position) -> Result<Self, SourceError> {
        let unreadable = |cause: anyhow::Error| {
            let doing = format!("resume at `{position}`, which is no position in JSON lines");
            SourceError::new(SourceErrorKind::PositionLost, doing).caused_by(cause)
        };
        match position {
            Position::Token(token) => serde_json::from_str(token).map_err(|error| unreadable(error.into())),
            Position::Number(_) => Err(unreadable(anyhow::anyhow!("it is a number"))),
        }
    }

    /// Returns where to start: `None` is the origin.
    pub(super) fn of(start: &StartAt) -> Result<Option<Self>, SourceError> {
        match start {
            StartAt::Origin => Ok(None),
            StartAt::Position(position) => Ok(Some(Self::parse(position)?).filter(|place| !place.file.is_empty())),
        }
    }

    pub(super) fn position(&self) -> Position {
        if self.file.is_empty() {
            return Position::token("{}");
        }
        Position::token(serde_json::to_string(self).expect("numbers and texts are always JSON"))
    }
}

/// How many of a file's first bytes are known, and their hash (FNV-1a, which will be the same in years to come).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u64,
    hash: u64,
}

impl Head {
    /// The most bytes that are looked at.
    pub(super) const WINDOW: u64 = 4_096;

    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut head = Self { len: 0, hash: 0xcbf2_9ce4_8422_2325 };
        head.extend(bytes);
        head
    }

    /// Takes in the bytes that follow, as far as the window goes.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let wanted = usize::try_from(Self::WINDOW - self.len).unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(wanted)];
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.len += bytes.len() as u64;
    }
}

/// `4096:0123456789abcdef`
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.len, self.hash)
    }
}

impl Serialize for Head {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text
            .split_once(':')
            .and_then(|(len, hash)| Some(Self { len: len.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? }));
        parsed
            .filter(|head| head.len <= Self::WINDOW)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a number of bytes and their hash")))
    }
}
