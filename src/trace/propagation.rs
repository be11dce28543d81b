//! Trace context propagation: reads the W3C fields from an event's metadata.

use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;

use super::Context;

/// The trace context that an event carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub context: Context,
    /// The vendors' own fields (`tracestate`), if valid.
    pub state: Option<Arc<str>>,
}

#[derive(Deserialize)]
struct Fields {
    traceparent: Value,
    #[serde(default)]
    tracestate: Value,
}

impl Propagation {
    /// Reads the trace context from an event's metadata, a JSON object with `traceparent` and perhaps `tracestate`.
    /// Returns `None` if the metadata has no valid `traceparent`.
    pub fn from_meta(meta: &[u8]) -> Option<Self> {
        memmem::find(meta, b"\"traceparent\"")?;
        let fields: Fields = serde_json::from_slice(meta).ok()?;
        let context = Context::parse(fields.traceparent.as_str()?)?;
        let state = fields.tracestate.as_str().filter(|state| is_state(state)).map(Into::into);
        Some(Self { context, state })
    }
}

/// The longest `tracestate` to pass on: the length that W3C Trace Context requires every system to accept.
const LONGEST_STATE: usize = 512;
const MOST_MEMBERS: usize = 32;

fn is_state(state: &str) -> bool {
    let members = state.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty());
    let mut keys = Vec::new();
    for member in members {
        match member.split_once('=') {
            Some((key, value)) if is_key(key) && is_value(value) && !keys.contains(&key) => keys.push(key),
            _ => return false,
        }
    }
    state.len() <= LONGEST_STATE && (1..=MOST_MEMBERS).contains(&keys.len())
}

fn is_key(key: &str) -> bool {
    let is_part = |part: &str, longest: usize| {
        part.len() <= longest
            && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    match key.split_once('@') {
        Some((tenant, system)) => is_part(tenant, 241) && is_part(system, 14),
        None => is_part(key, 256),
    }
}

fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn check(meta: &str, expected: Option<Option<&str>>) {
        let read = Propagation::from_meta(meta.as_bytes());
        if let Some(read) = &read {
            assert_eq!(read.context.to_string(), PARENT);
        }
        assert_eq!(read.as_ref().map(|read| read.state.as_deref()), expected, "{meta}");
    }

    #[test]
    fn context_is_read_from_metadata_wherever_it_stands_there() {
        check(&format!(r#"{{"traceparent":"{PARENT}"}}"#), Some(None));
        check(
            &format!(
                r#"{{"a":[1],"tracestate":"congo=t61rcWkgMzE,a@b=1","traceparent":"{PARENT}","$correlationId":"c"}}"#
            ),
            Some(Some("congo=t61rcWkgMzE,a@b=1")),
        );
    }

    #[test]
    fn metadata_without_valid_context_has_none() {
        check("", None);
        check("null", None);
        check("not JSON \"traceparent\"", None);
        check(&format!(r#"{{"inner":{{"traceparent":"{PARENT}"}}}}"#), None);
        check(&format!(r#"["traceparent","{PARENT}"]"#), None);
        check(r#"{"traceparent":5}"#, None);
        check(r#"{"traceparent":null}"#, None);
        check(&format!(r#"{{"traceparent":"{}"}}"#, PARENT.replacen("00", "ff", 1)), None);
        check(r#"{"$correlationId":"4bf92f3577b34da6a3ce929d0e0e4736"}"#, None);
    }

    #[test]
    fn a_state_that_is_invalid_is_left_out_and_the_parent_kept() {
        let check_state = |state: &str, valid: bool| {
            let meta = serde_json::json!({ "traceparent": PARENT, "tracestate": state }).to_string();
            check(&meta, Some(valid.then_some(state)));
        };
        for valid in ["a=1", "a=1 , b=2", "a=1,,b=2", "0a-_*/@sys=x y", &format!("a={}", "x".repeat(256))] {
            check_state(valid, true);
        }
        let many: Vec<_> = (0..33).map(|number| format!("k{number}=1")).collect();
        for invalid in
            ["", ",", "a", "a=", "=1", "A=1", "a=1=2", "a=1,a=2", "a@b@c=1", "a=é", "a=1\nb", &many.join(",")]
        {
            check_state(invalid, false);
        }
        check_state(&many[..32].join(","), true);
        check_state(&format!("a={},b={}", "x".repeat(255), "y".repeat(255)), false);
        check(&format!(r#"{{"traceparent":"{PARENT}","tracestate":["a=1"]}}"#), Some(None));
    }
}
