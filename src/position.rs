//! Positions: the place of an event in its tranche, the point at which reading resumes, and the handled ordinals above
//! it.
//!
//! * [`Ordinal`]: the place of one event in its tranche. Ordinals strictly increase in read order and never denote
//!   another event later (C1).
//! * [`Position`]: the point at which reading resumes. Only the source that made it interprets it.
//! * [`OrdinalSet`]: the handled ordinals above a position, as runs.
//! * [`Progress`]: a position and the set that belongs to it (C12). Checkpoint stores hold progress.
//! * [`Ahead`]: the part of the progress above the position, as a source sees it.
//! * [`WritePosition`]: the handled indexes of one stream, for feeds that repeat events (C13).

use std::fmt;
use std::sync::Arc;

/// The name of an independently readable and checkpointable part of a source (a partition, a category, a file).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrancheId(Arc<str>);

impl TrancheId {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrancheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrancheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The place of an event in its tranche.
///
/// Sources with one number per event put it into `major` and leave `minor` at 0; sources with two (file and
/// line, epoch and event, document and event) use both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ordinal {
    pub major: u64,
    pub minor: u32,
}

impl Ordinal {
    pub const fn new(major: u64, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The point at which reading of a tranche resumes. Only its source may interpret or compare it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    Number(i64),
    Token(Arc<str>),
}

impl Position {
    pub fn token(text: impl Into<Arc<str>>) -> Self {
        Self::Token(text.into())
    }
}

impl Position {
    /// Compares two numbers. Sources whose positions count events use it. `None`: one of them is a token.
    pub fn compare_numbers(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Number(number), Self::Number(other)) => Some(number.cmp(other)),
            _ => None,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Token(token) => f.write_str(token),
        }
    }
}

/// The point at which reading of a tranche starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Nothing was ever committed: the tranche's first event.
    Origin,
    Position(Position),
}

/// The handled ordinals, as ascending, disjoint runs with both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrdinalSet {
    runs: Vec<(Ordinal, Ordinal)>,
}

/// The error of an encoded [`OrdinalSet`] that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the set of handled ordinals is corrupt: {0}")]
pub struct CorruptSet(&'static str);

impl OrdinalSet {
    pub const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn runs(&self) -> &[(Ordinal, Ordinal)] {
        &self.runs
    }

    /// Returns the greatest ordinal of the set.
    pub fn last(&self) -> Option<Ordinal> {
        self.runs.last().map(|run| run.1)
    }

    /// Appends a run that begins after the last one. Runs that touch in read order should be joined by the caller,
    /// who knows which ordinals exist between them.
    ///
    /// # Panics
    /// If the run is inverted or does not begin after the last one.
    pub fn push(&mut self, first: Ordinal, last: Ordinal) {
        assert!(first <= last, "a run of ordinals must not be inverted");
        assert!(self.last().is_none_or(|end| end < first), "runs of ordinals must ascend");
        self.runs.push((first, last));
    }

    pub fn contains(&self, ordinal: Ordinal) -> bool {
        let after = self.runs.partition_point(|run| run.0 <= ordinal);
        after > 0 && self.runs[after - 1].1 >= ordinal
    }

    /// Encodes the set: a version byte, then the ends of each run as differences to the end before, in LEB128.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_within(usize::MAX).0
    }

    /// Drops the last runs if the encoded set would be longer than `max` (C14). The dropped ordinals count as unhandled
    /// after a restart.
    pub fn fit(&mut self, max: usize) {
        let fitting = self.encode_within(max).1;
        self.runs.truncate(fitting);
    }

    /// Encodes as many of the first runs as fit into `max` bytes, and returns their number.
    fn encode_within(&self, max: usize) -> (Vec<u8>, usize) {
        let mut out = Vec::with_capacity(1 + self.runs.len() * 4);
        out.push(SET_VERSION);
        let mut at = Ordinal::default();
        for (number, &(first, last)) in self.runs.iter().enumerate() {
            let len = out.len();
            for next in [first, last] {
                let major = next.major - at.major;
                put(&mut out, major);
                // Within one major the minor only grows, so that its difference stays small.
                put(&mut out, u64::from(if major == 0 { next.minor - at.minor } else { next.minor }));
                at = next;
            }
            if out.len() > max {
                out.truncate(len);
                return (out, number);
            }
        }
        (out, self.runs.len())
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptSet> {
        let (&version, mut rest) = bytes.split_first().ok_or(CorruptSet("it is empty"))?;
        if version != SET_VERSION {
            return Err(CorruptSet("its version is unknown"));
        }
        let mut set = Self::new();
        let mut at = Ordinal::default();
        while !rest.is_empty() {
            let mut ends = [Ordinal::default(); 2];
            for end in &mut ends {
                let major = take(&mut rest)?;
                let minor = u32::try_from(take(&mut rest)?).map_err(|_| CorruptSet("a minor is too large"))?;
                let overflow = CorruptSet("an ordinal is too large");
                at = if major == 0 {
                    Ordinal::new(at.major, at.minor.checked_add(minor).ok_or(overflow)?)
                } else {
                    Ordinal::new(at.major.checked_add(major).ok_or(overflow)?, minor)
                };
                *end = at;
            }
            if set.last().is_some_and(|last| last >= ends[0]) {
                return Err(CorruptSet("its runs do not ascend"));
            }
            set.runs.push((ends[0], ends[1]));
        }
        Ok(set)
    }
}

const SET_VERSION: u8 = 1;

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, CorruptSet> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(CorruptSet("it is truncated"))?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(CorruptSet("a number is too large"))
}

/// The progress of a tranche: everything before `position` is handled, and so are the later ordinals in `handled`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// `None`: the tranche's origin.
    pub position: Option<Position>,
    pub handled: OrdinalSet,
    /// The end of the read that brought the last ordinal of `handled`. `None` if there is no such ordinal, or if an earlier
    /// version of the daemon stored the progress.
    pub read_to: Option<Position>,
}

impl Progress {
    pub fn at(position: Position) -> Self {
        Self { position: Some(position), handled: OrdinalSet::new(), read_to: None }
    }

    /// Returns the part that lies above the position; `None` if nothing is handled there.
    pub fn ahead(&self) -> Option<Ahead> {
        Some(Ahead { last: self.handled.last()?, read_to: self.read_to.clone() })
    }
}

/// The handled events above a position, for the source that resumes below them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The last handled ordinal.
    pub last: Ordinal,
    /// The end of the read that brought it; `None` in progress that an earlier version of the daemon stored.
    pub read_to: Option<Position>,
}

/// The handled indexes of a stream. They tell a repeated event from a late one (C5, C13).
///
/// The indexes from `first` up to `next` were handled or passed, except those in `gaps`. Other indexes are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePosition {
    pub first: i64,
    /// The next index of interest.
    pub next: i64,
    /// Half-open ranges between `first` and `next`, ascending, none of them empty. A range that ends at `next` is not
    /// missing: filtered events passed there, which supersede no unfolds (C3).
    pub gaps: Vec<(i64, i64)>,
}

impl WritePosition {
    /// Returns the position of a stream with everything below `next` handled.
    pub fn upto(next: i64) -> Self {
        Self { first: 0, next, gaps: Vec::new() }
    }

    /// Returns the gaps, apart from the trailing placeholders, and the index at which those placeholders begin.
    pub fn split(&self) -> (&[(i64, i64)], i64) {
        match self.gaps.split_last() {
            Some((&(from, next), gaps)) if next == self.next => (gaps, from),
            _ => (&self.gaps, self.next),
        }
    }

    /// Writes the gaps as text, such as `3..5 9..12`; empty if there are none.
    pub fn gaps_as_text(&self) -> String {
        let ranges: Vec<_> = self.gaps.iter().map(|(from, next)| format!("{from}..{next}")).collect();
        ranges.join(" ")
    }

    /// Reads the text that [`gaps_as_text`](Self::gaps_as_text) wrote. Returns `None` for any other text.
    pub fn gaps_from_text(text: &str) -> Option<Vec<(i64, i64)>> {
        let range = |text: &str| {
            let (from, next) = text.split_once("..")?;
            let range: (i64, i64) = (from.parse().ok()?, next.parse().ok()?);
            (range.0 < range.1).then_some(range)
        };
        let gaps: Vec<_> = text.split_whitespace().map(range).collect::<Option<_>>()?;
        gaps.is_sorted_by(|a, b| a.1 <= b.0).then_some(gaps)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Pair = (u64, u32);

    fn set(runs: &[(Pair, Pair)]) -> OrdinalSet {
        let mut set = OrdinalSet::new();
        for &((a, b), (c, d)) in runs {
            set.push(Ordinal::new(a, b), Ordinal::new(c, d));
        }
        set
    }

    #[test]
    fn a_run_covers_both_of_its_ends_and_nothing_beyond() {
        let set = set(&[((1, 2), (1, 4)), ((3, 0), (3, 0))]);
        let covered: Vec<_> = [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 0), (3, 0), (3, 1)]
            .map(|(major, minor)| set.contains(Ordinal::new(major, minor)))
            .into();
        assert_eq!(covered, [false, true, true, true, false, false, true, false]);
    }

    #[test]
    fn gaps_are_read_as_they_were_written() {
        let position = WritePosition { first: 1, next: 20, gaps: vec![(3, 5), (9, 12)] };
        assert_eq!(position.gaps_as_text(), "3..5 9..12");
        assert_eq!(WritePosition::gaps_from_text("3..5 9..12"), Some(position.gaps));
        assert_eq!(WritePosition::gaps_from_text(""), Some(vec![]));
        for corrupt in ["3", "3..", "5..3", "3..3", "3..5 4..6", "9..12 3..5", "a..b", "3-5"] {
            assert_eq!(WritePosition::gaps_from_text(corrupt), None, "{corrupt}");
        }
    }

    #[test]
    fn corrupt_sets_are_refused() {
        for bytes in [
            &[][..],
            &[9],
            &[1, 0x80],
            &[1, 1],
            &[1, 1, 1, 0, 0, 0, 0, 0, 0],
            &[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 9, 0],
        ] {
            assert!(OrdinalSet::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_set_decodes_to_the_same_set(mut ends in prop::collection::btree_set((any::<u64>(), any::<u32>()), 0..40)) {
            if ends.len() % 2 == 1 {
                ends.pop_last();
            }
            let ends: Vec<_> = ends.into_iter().collect();
            let set = set(&ends.chunks(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>());
            prop_assert_eq!(OrdinalSet::decode(&set.encode()), Ok(set));
        }

        #[test]
        fn c14_a_set_cut_to_fit_loses_its_last_runs_only(count in 0..200_u64, max in 0..900_usize) {
            let runs: Vec<_> = (0..count).map(|at| ((at * at * 99, 0), (at * at * 99 + 50, 7))).collect();
            let (whole, mut fitted) = (set(&runs), set(&runs));
            fitted.fit(max);
            let kept = fitted.runs().len();
            prop_assert_eq!(fitted.runs(), &whole.runs()[..kept]);
            prop_assert!(fitted.is_empty() || fitted.encode().len() <= max);
            prop_assert!(kept == runs.len() || set(&runs[..=kept]).encode().len() > max);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ignored = OrdinalSet::decode(&bytes);
        }
    }
}
