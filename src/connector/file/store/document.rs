//! The contents of a key's file.

use anyhow::{Context, bail, ensure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::checkpoint::{
    CheckpointError, CheckpointErrorKind, CheckpointKey, Claimed, CommitOrder, Fence, Listed, MAX_SET_BYTES,
    NEVER_CLAIMED, Owner, RELEASED,
};
use crate::clock;
use crate::position::{OrdinalSet, Position, Progress, TrancheId};

/// The newest version of the format that this program reads and writes.
const VERSION: u32 = 1;
/// The most bytes of a name without its ending; most file systems take 255.
const MAX_NAME_BYTES: usize = 200;

/// The claim and the progress of one key.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Document {
    version: u32,
    group: String,
    source: String,
    tranche: String,
    fence: u64,
    owner: Option<String>,
    since: Option<String>,
    sequence: u64,
    /// Whether the key was ever committed.
    committed: bool,
    /// A number, a token, or `null` for the origin.
    position: Option<StoredPosition>,
    /// The encoded set of handled ordinals, in hexadecimal digits.
    handled: String,
    /// The end of the read that brought the last ordinal of the set. Absent if the set is empty, and in documents of earlier
    /// versions of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_to: Option<StoredPosition>,
    updated_at: Option<String>,
}

/// The stored form of a position.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum StoredPosition {
    Number(i64),
    Token(String),
}

/// The stored form of progress in the log.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StoredProgress {
    position: Option<StoredPosition>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    handled: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_to: Option<StoredPosition>,
}

impl StoredProgress {
    pub(super) fn of(progress: &Progress) -> Self {
        Self {
            position: progress.position.as_ref().map(StoredPosition::of),
            handled: if progress.handled.is_empty() { String::new() } else { to_hex(&progress.handled.encode()) },
            read_to: progress.read_to.as_ref().map(StoredPosition::of),
        }
    }

    /// Returns the progress; `None` if its set is corrupt.
    pub(super) fn progress(&self) -> Option<Progress> {
        let handled = match &*self.handled {
            "" => OrdinalSet::new(),
            digits => OrdinalSet::decode(&from_hex(digits)?).ok()?,
        };
        let [position, read_to] =
            [&self.position, &self.read_to].map(|stored| stored.as_ref().map(StoredPosition::position));
        Some(Progress { position, handled, read_to })
    }
}

impl StoredPosition {
    fn of(position: &Position) -> Self {
        match position {
            Position::Number(number) => Self::Number(*number),
            Position::Token(token) => Self::Token(token.to_string()),
        }
    }

    fn position(&self) -> Position {
        match self {
            Self::Number(number) => Position::Number(*number),
            Self::Token(token) => Position::token(&**token),
        }
    }
}

impl Document {
    pub(super) fn new(key: &CheckpointKey) -> Self {
        Self {
            version: VERSION,
            group: key.group.to_string(),
            source: key.source.to_string(),
            tranche: key.tranche.to_string(),
            fence: 0,
            owner: None,
            since: None,
            sequence: 0,
            committed: false,
            position: None,
            handled: String::new(),
            read_to: None,
            updated_at: None,
        }
    }

    /// Reads the document of `key`.
    pub(super) fn parse(text: &[u8], key: &CheckpointKey) -> anyhow::Result<Self> {
        let document = Self::parse_any(text)?;
        if document.key() != *key {
            bail!("it belongs to {}", document.key());
        }
        Ok(document)
    }

    /// Reads the document of any key.
    pub(super) fn parse_any(text: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(text).context("it is truncated, or is no checkpoint")?;
        ensure!(version <= VERSION, "a newer propulsiond wrote it (version {version}, this program knows {VERSION})");
        let document: Self = serde_json::from_slice(text).context("it is corrupt")?;
        document.set()?;
        Ok(document)
    }

    pub(super) fn key(&self) -> CheckpointKey {
        CheckpointKey {
            group: self.group.as_str().into(),
            source: self.source.as_str().into(),
            tranche: TrancheId::new(self.tranche.as_str()),
        }
    }

    /// Returns the time of the last commit, RFC 3339.
    pub(super) fn updated_at(&self) -> Option<&str> {
        self.updated_at.as_deref()
    }

    pub(super) fn render(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    fn set(&self) -> anyhow::Result<OrdinalSet> {
        if self.handled.is_empty() {
            return Ok(OrdinalSet::new());
        }
        let bytes = from_hex(&self.handled).context("its set of handled ordinals is corrupt")?;
        Ok(OrdinalSet::decode(&bytes)?)
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        let [position, read_to] =
            [&self.position, &self.read_to].map(|stored| stored.as_ref().map(StoredPosition::position));
        let handled = self.set().expect("`parse_any` decoded the set");
        self.committed.then_some(Progress { position, handled, read_to })
    }

    pub(super) fn claim(&mut self, owner: &Owner) -> Claimed {
        self.fence += 1;
        self.owner = Some(owner.0.to_string());
        self.since = Some(now());
        Claimed { fence: Fence(self.fence), progress: self.progress(), sequence: self.sequence }
    }

    /// Applies a commit that follows the stored one.
    pub(super) fn commit(
        &mut self,
        doing: &str,
        fence: Fence,
        sequence: u64,
        progress: &Progress,
    ) -> Result<CommitOrder, CheckpointError> {
        let handled = if progress.handled.is_empty() { Vec::new() } else { progress.handled.encode() };
        let refuse = |kind, why: String| Err(CheckpointError::new(kind, doing).caused_by(anyhow::Error::msg(why)));
        if handled.len() > MAX_SET_BYTES {
            let why = format!("the set of handled ordinals has {} bytes, the limit is {MAX_SET_BYTES}", handled.len());
            return refuse(CheckpointErrorKind::TooLarge, why);
        }
        self.owned(doing, fence)?;
        match CommitOrder::of(sequence, self.sequence) {
            Some(CommitOrder::Next) => {}
            Some(CommitOrder::Repeat) => return Ok(CommitOrder::Repeat),
            None => {
                let why = format!("commit {sequence} does not follow the stored commit {}", self.sequence);
                return refuse(CheckpointErrorKind::OutcomeUnknown, why);
            }
        }
        self.sequence = sequence;
        self.take(Some(progress));
        Ok(CommitOrder::Next)
    }

    fn take(&mut self, progress: Option<&Progress>) {
        self.committed = progress.is_some();
        let stored = progress.map(StoredProgress::of);
        (self.position, self.handled, self.read_to) =
            stored.map(|stored| (stored.position, stored.handled, stored.read_to)).unwrap_or_default();
        self.updated_at = Some(now());
    }

    /// Replaces the progress as an operator decides, and returns the replaced one.
    pub(super) fn set_progress(
        &mut self,
        doing: &str,
        fence: Fence,
        progress: Option<&Progress>,
    ) -> Result<Option<Progress>, CheckpointError> {
        self.owned(doing, fence)?;
        let replaced = self.progress();
        self.sequence += 1;
        self.take(progress);
        Ok(replaced)
    }

    pub(super) fn listed(&self) -> Listed {
        let committed_at = self.updated_at.as_ref().filter(|_| self.committed);
        Listed {
            key: self.key(),
            progress: self.progress(),
            owner: self.owner.as_deref().map(|owner| Owner(owner.into())),
            committed_at: committed_at.and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok()),
        }
    }

    /// Returns the fence of the key's owner and the number of the stored commit.
    pub(super) fn last_commit(&self) -> (Fence, u64) {
        (Fence(self.fence), self.sequence)
    }

    pub(super) fn release(&mut self, doing: &str, fence: Fence) -> Result<(), CheckpointError> {
        self.owned(doing, fence)?;
        self.owner = None;
        Ok(())
    }

    fn owned(&self, doing: &str, fence: Fence) -> Result<(), CheckpointError> {
        if self.fence == fence.0 && self.fence > 0 {
            return Ok(());
        }
        let by = match &self.owner {
            Some(owner) => owner.clone(),
            None if self.fence == 0 => NEVER_CLAIMED.to_owned(),
            None => RELEASED.to_owned(),
        };
        let since = self.since.as_deref().and_then(|since| OffsetDateTime::parse(since, &Rfc3339).ok());
        let cause = anyhow::anyhow!("the owner is {by}");
        Err(CheckpointError::new(CheckpointErrorKind::Fenced { by, since }, doing).caused_by(cause))
    }
}

/// Returns the name of a key's file: the parts of the key, percent-encoded for every file system. Capital letters are
/// encoded as well, because some file systems ignore case.
pub(super) fn file_name(key: &CheckpointKey) -> String {
    let mut name = String::new();
    for part in [&*key.group, &*key.source, key.tranche.as_str()] {
        // Existing files have their escapes in small letters. All capitals of a name are escaped themselves.
        name.push_str(&utf8_percent_encode(part, ESCAPED).to_string().to_ascii_lowercase());
        name.push('~');
    }
    name.pop();
    if name.len() > MAX_NAME_BYTES {
        // The document names its key, so that a collision of two hashes is an error and never a mix-up.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        name.truncate(MAX_NAME_BYTES);
        name.push_str(&format!("~~{hash:016x}"));
    }
    name + ".json"
}

/// The bytes of a key that are escaped in the name of its file.
const ESCAPED: &AsciiSet = &with_capitals(NON_ALPHANUMERIC.remove(b'-').remove(b'_'));

const fn with_capitals(mut set: AsciiSet) -> AsciiSet {
    let mut letter = b'A';
    while letter <= b'Z' {
        set = set.add(letter);
        letter += 1;
    }
    set
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("a nibble is one hexadecimal digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn now() -> String {
    clock::wall().format(&Rfc3339).unwrap_or_default()
}
