//! The place of a span in a trace, and its W3C Trace Context form.

use std::fmt;

/// The place of a span: its trace, its own id, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
    /// The known flags: [`Context::SAMPLED`], [`Context::RANDOM`].
    flags: u8,
}

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;

impl Context {
    /// The caller may have recorded its span.
    const SAMPLED: u8 = 1;
    /// The trace's id is random.
    const RANDOM: u8 = 2;

    /// Begins a trace that is recorded. No decision depends on an id, so that ids need not be repeatable.
    pub fn root() -> Self {
        Self { trace_id: fastrand::u128(1..), span_id: fastrand::u64(1..), flags: Self::SAMPLED | Self::RANDOM }
    }

    /// Makes the place of a span of the same trace.
    pub fn child(self) -> Self {
        Self { span_id: fastrand::u64(1..), ..self }
    }

    pub fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    pub fn flags(self) -> u8 {
        self.flags
    }

    /// Reads a `traceparent` as the W3C specifies. Of an unknown version, the fields of version 00 are read; unknown
    /// flags are ignored. Returns `None` if the text is invalid, and a new trace begins.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let text = traceparent.as_bytes();
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let version = hex(&head[..2])?;
        let whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            // A later version adds its fields behind another dash.
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&at| head[at] == b'-');
        if !whole || !dashes {
            return None;
        }
        let (trace_id, span_id) = (hex(&head[3..35])?, u64::try_from(hex(&head[36..52])?).ok()?);
        let flags = hex(&head[53..])? as u8 & (Self::SAMPLED | Self::RANDOM);
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags })
    }
}

/// Reads hexadecimal digits; upper case is invalid.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// A `traceparent` of version 00.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    fn check(traceparent: &str, expected: Option<&str>) {
        let read = Context::parse(traceparent).map(|context| context.to_string());
        assert_eq!(read.as_deref(), expected, "{traceparent}");
    }

    #[test]
    fn a_valid_traceparent_round_trips() {
        for flags in ["00", "01", "02", "03"] {
            let traceparent = format!("00-{IDS}-{flags}");
            check(&traceparent, Some(&traceparent));
        }
        assert!(Context::parse(&format!("00-{IDS}-01")).unwrap().is_sampled());
        assert!(!Context::parse(&format!("00-{IDS}-02")).unwrap().is_sampled());
    }

    #[test]
    fn unknown_flags_are_not_passed_on() {
        check(&format!("00-{IDS}-ff"), Some(&format!("00-{IDS}-03")));
        check(&format!("00-{IDS}-fc"), Some(&format!("00-{IDS}-00")));
    }

    #[test]
    fn a_later_version_is_read_by_the_fields_of_version_00() {
        for later in ["cc", "01", "fe"] {
            check(&format!("{later}-{IDS}-01"), Some(&format!("00-{IDS}-01")));
            check(&format!("{later}-{IDS}-01-what-the-future-has"), Some(&format!("00-{IDS}-01")));
            check(&format!("{later}-{IDS}-01-"), Some(&format!("00-{IDS}-01")));
            check(&format!("{later}-{IDS}-01.what"), None);
            check(&format!("{later}-{IDS}-0"), None);
        }
    }

    #[test]
    fn an_invalid_traceparent_is_ignored() {
        for invalid in [
            String::new(),
            format!("ff-{IDS}-01"),
            format!("00-{IDS}-01-more"),
            format!("00-{IDS}-01 "),
            format!(" 00-{IDS}-01"),
            format!("00-{IDS}"),
            format!("00-{IDS}-1"),
            format!("0x-{IDS}-01"),
            format!("00_{IDS}-01"),
            format!("00-{}-01", IDS.to_uppercase()),
            format!("00-{IDS}-0A"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16)),
            format!("00-{}-01", IDS.replace('-', "0")),
            format!("00-{}é-00f067aa0ba902b7-01", "4".repeat(30)),
        ] {
            check(&invalid, None);
        }
    }

    #[test]
    fn a_child_is_of_the_same_trace() {
        let root = Context::root();
        let child = root.child();
        assert!(root.is_sampled() && child.is_sampled());
        assert_eq!(root.trace_id, child.trace_id);
        assert_ne!(root.span_id, child.span_id);
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,70}", ids in "[0-9a-f-]{55,58}") {
            let _read = (Context::parse(&text), Context::parse(&ids));
        }
    }
}
