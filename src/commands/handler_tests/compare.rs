//! The comparison of a call's result with the expected one.

use serde_json::Value;

use super::file::{Class, Fails, Returns};
use super::plan::{Emits, Ends, Stream};
use crate::formats::diff;
use crate::handler::{Decision, HandlerError, NextIndex};

/// Returns the differences from the expected result, as messages for the author of the test. `result`: `None` if no event was
/// offered.
pub(super) fn differences(stream: &Stream, result: Option<&Result<Decision, HandlerError>>) -> Vec<String> {
    match (result, &stream.ends) {
        (None, ends) => not_offered(stream, ends).into_iter().collect(),
        (Some(Err(error)), Ends::Fails(fails)) => fails_otherwise(fails, error).into_iter().collect(),
        (Some(Err(error)), Ends::Returns(_)) => vec![format!("the call failed ({}): {error}", class(error))],
        (Some(Ok(decision)), Ends::Fails(fails)) => {
            vec![format!("expected a failure ({}), but it returned {}", failure(fails), returned(decision))]
        }
        (Some(Ok(decision)), Ends::Returns(returns)) => {
            let returned = (!is_as(decision, returns))
                .then(|| format!("expected to return {}, but it returned {}", wanted(returns), returned(decision)));
            returned.into_iter().chain(emitted_otherwise(&stream.emits, decision)).collect()
        }
    }
}

/// Returns the differences for a stream whose events the filter excludes. It counts as handled, without effects.
fn not_offered(stream: &Stream, ends: &Ends) -> Option<String> {
    let emits_nothing = matches!(&stream.emits, Emits::Exactly(values) | Emits::Some(values) if values.is_empty());
    let is_fine = emits_nothing && matches!(ends, Ends::Returns(Returns::All));
    (!is_fine).then(|| "the script was not called: the pipeline's filter excludes every event of the stream".to_owned())
}

fn is_as(decision: &Decision, returns: &Returns) -> bool {
    let tagged = |wanted: &Option<String>| wanted.is_none() || wanted.as_deref() == decision.tag.as_deref();
    match (returns, decision.next) {
        (Returns::All, NextIndex::All) => true,
        (Returns::Done(tag), NextIndex::All) => decision.tag.as_deref() == Some(tag),
        (Returns::Upto { next, tag }, NextIndex::Upto(n)) => *next == n && tagged(tag),
        (Returns::Defer(delay), NextIndex::Defer(d)) => *delay == d,
        _ => false,
    }
}

fn wanted(returns: &Returns) -> String {
    match returns {
        Returns::All => "nothing (all handled)".to_owned(),
        Returns::Done(tag) => format!("`done({tag:?})`"),
        Returns::Upto { next, tag: None } => format!("`upto({next})`"),
        Returns::Upto { next, tag: Some(tag) } => format!("`upto({next}, {tag:?})`"),
        Returns::Defer(delay) => format!("`defer(\"{}\")`", humantime::format_duration(*delay)),
        Returns::Malformed(why) => format!("`malformed({why:?})`"),
    }
}

fn returned(decision: &Decision) -> String {
    let tag = decision.tag.as_deref().map(str::to_owned);
    wanted(&match (decision.next, tag) {
        (NextIndex::All, None) => Returns::All,
        (NextIndex::All, Some(tag)) => Returns::Done(tag),
        (NextIndex::Upto(next), tag) => Returns::Upto { next, tag },
        (NextIndex::Defer(delay), _) => Returns::Defer(delay),
    })
}

fn class(error: &HandlerError) -> &'static str {
    Class::of(error.kind()).as_str()
}

fn fails_otherwise(fails: &Fails, error: &HandlerError) -> Option<String> {
    let is_as = fails.class.is_none_or(|class| class == Class::of(error.kind()))
        && fails.why.as_ref().is_none_or(|why| error.message().contains(why))
        && fails.index.is_none_or(|index| error.index() == Some(index));
    let named = error.index().map(|index| format!(", index {index}")).unwrap_or_default();
    (!is_as).then(|| {
        format!("expected a failure ({}), but it failed otherwise ({}{named}): {error}", failure(fails), class(error))
    })
}

fn failure(fails: &Fails) -> String {
    let class = fails.class.map(|class| class.as_str().to_owned());
    let index = fails.index.map(|index| format!("index {index}"));
    let why = fails.why.as_ref().map(|why| format!("saying `{why}`"));
    let words: Vec<_> = [class, index, why].into_iter().flatten().collect();
    if words.is_empty() { "of any kind".to_owned() } else { words.join(", ") }
}

fn emitted_otherwise(emits: &Emits, decision: &Decision) -> Option<String> {
    let emitted: Vec<Value> =
        decision.effects.iter().map(|value| serde_json::to_value(value).unwrap_or_default()).collect();
    match emits {
        Emits::Exactly(wanted) if *wanted == emitted => None,
        Emits::Exactly(wanted) => Some(format!(
            "the emitted effects are not the expected ones (-: expected, +: emitted)\n{}",
            diff::of(&lines(wanted), &lines(&emitted))
        )),
        Emits::Some(wanted) => {
            let missing = missing(wanted, &emitted)?;
            let order = if missing > 0 { ", or not after those before it in `emits_some`" } else { "" };
            let (number, value) = (missing + 1, indented(&pretty(&wanted[missing])));
            let all = if emitted.is_empty() { "  nothing".to_owned() } else { indented(&lines(&emitted).join("\n")) };
            Some(format!(
                "value {number} of `emits_some` was not emitted{order}\n{value}\nthe emitted effects are\n{all}"
            ))
        }
    }
}

/// Returns the first of the values that is not found in order.
fn missing(wanted: &[Value], emitted: &[Value]) -> Option<usize> {
    let mut rest = emitted.iter();
    wanted.iter().position(|wanted| !rest.any(|emitted| holds(emitted, wanted)))
}

/// Returns whether a value is the wanted one; its tables may have more keys.
fn holds(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| value.get(key).is_some_and(|value| holds(value, wanted)))
        }
        (Value::Array(value), Value::Array(wanted)) => {
            value.len() == wanted.len() && value.iter().zip(wanted).all(|(value, wanted)| holds(value, wanted))
        }
        (value, wanted) => value == wanted,
    }
}

fn lines(values: &[Value]) -> Vec<String> {
    values.iter().flat_map(|value| pretty(value).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
