//! Conversion of script errors to handler errors, with their kind and location.
//!
//! | cause | kind |
//! |---|---|
//! | `throw "why"`, `throw #{ class: "transient", … }` | transient |
//! | `throw #{ class: "permanent" \| "throttled" \| "unavailable" \| "malformed", … }` | that class |
//! | data that is not JSON | malformed, at that event |
//! | a call longer than `timeout` | timed out |
//! | any other: unknown function or variable, wrong type, division by zero, a limit, a panic | permanent |
//!
//! An exceeded limit on operations or sizes is permanent, as the same events exceed it again. A retry can stay within the
//! limit on time.

use std::borrow::Cow;
use std::time::Duration;

use rhai::{Dynamic, EvalAltResult, Position};

use super::api::duration;
use super::call::Fault;
use super::convert;
use crate::event::Event;
use crate::handler::{HandlerError, HandlerErrorKind};

/// The contents of a `throw` or of `span.fail`.
struct Thrown {
    kind: HandlerErrorKind,
    why: String,
    index: Option<i64>,
    retry_after: Option<Duration>,
}

/// Returns the error for `span.fail(why)`.
pub(super) fn from_thrown(why: &Dynamic) -> HandlerError {
    thrown(why).into_error(None, None)
}

/// Converts the error of a call. `file` is the script, and `suspect` the event that it read last.
pub(super) fn from_error(error: EvalAltResult, file: &str, timeout: Duration, suspect: Option<&Event>) -> HandlerError {
    let (error, file) = innermost(error, file);
    let place = place(&file, error.position());
    let thrown = match error {
        EvalAltResult::ErrorRuntime(value, _) => thrown(&value),
        EvalAltResult::ErrorTerminated(..) => Thrown::new(
            HandlerErrorKind::TimedOut,
            format!("the call ran for longer than {}", humantime::format_duration(timeout)),
        ),
        error => Thrown::new(HandlerErrorKind::Permanent, describe(error)),
    };
    thrown.into_error(Some(&place), suspect)
}

/// Returns an error that the daemon, not the script, reports about a call.
pub(super) fn about(kind: HandlerErrorKind, what: &str, file: &str, suspect: Option<&Event>) -> HandlerError {
    Thrown::new(kind, what.to_owned()).into_error(Some(file), suspect)
}

impl Thrown {
    fn new(kind: HandlerErrorKind, why: String) -> Self {
        Self { kind, why, index: None, retry_after: None }
    }

    fn into_error(self, place: Option<&str>, suspect: Option<&Event>) -> HandlerError {
        let mut message = place.map(|place| format!("{place}: ")).unwrap_or_default();
        message.push_str(&self.why);
        if let Some(event) = suspect {
            let (stream, index, name) = (event.stream(), event.index(), event.event_type());
            message.push_str(&format!(" (stream `{stream}`, index {index}, type `{name}`)"));
        }
        let mut error = HandlerError::new(self.kind, message).at_known_index(self.index);
        if let Some(delay) = self.retry_after {
            error = error.retry_after(delay);
        }
        error
    }
}

fn thrown(value: &Dynamic) -> Thrown {
    if let Some(fault) = value.read_lock::<Fault>() {
        return Thrown { kind: fault.kind, why: fault.message.clone(), index: fault.index, retry_after: None };
    }
    if value.is_map() {
        return thrown_map(value).unwrap_or_else(|why| {
            Thrown::new(HandlerErrorKind::Permanent, format!("cannot use the thrown value: {why}"))
        });
    }
    let why = if value.is_unit() { "thrown without a reason".to_owned() } else { convert::display(value) };
    Thrown::new(HandlerErrorKind::Transient, why)
}

/// Reads `#{ class, why, index, retry_after }`.
fn thrown_map(value: &Dynamic) -> Result<Thrown, String> {
    const KEYS: [&str; 4] = ["class", "why", "index", "retry_after"];
    let map = value.as_map_ref().map_err(|kind| format!("it is {kind}"))?;
    // `catch` turns an error of the engine into such a map, which a script can throw again.
    if map.contains_key("error") && map.contains_key("message") {
        return Ok(Thrown::new(HandlerErrorKind::Permanent, lower(&map["message"].to_string())));
    }
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key `{key}`, expected `class`, `why`, `index` or `retry_after`"));
    }
    let kind = match map.get("class") {
        None => HandlerErrorKind::Transient,
        Some(class) => class_of(&class.to_string())?,
    };
    let why = map.get("why").map_or_else(|| "thrown without a reason".to_owned(), ToString::to_string);
    let index = match map.get("index") {
        None => None,
        Some(index) => {
            Some(index.as_int().map_err(|_| format!("`index` is an integer, not {}", convert::kind(index)))?)
        }
    };
    let retry_after = match map.get("retry_after") {
        None => None,
        Some(delay) => Some(duration(delay).map_err(|error| describe(*error))?),
    };
    Ok(Thrown { kind, why, index, retry_after })
}

fn class_of(class: &str) -> Result<HandlerErrorKind, String> {
    Ok(match class {
        "transient" => HandlerErrorKind::Transient,
        "permanent" => HandlerErrorKind::Permanent,
        "malformed" => HandlerErrorKind::Malformed,
        "throttled" => HandlerErrorKind::Throttled,
        "unavailable" => HandlerErrorKind::Unavailable,
        _ => {
            return Err(format!(
                "unknown class `{class}`, expected `transient`, `permanent`, `malformed`, `throttled` or `unavailable`"
            ));
        }
    })
}

/// Returns the original error and its file.
pub(super) fn innermost(error: EvalAltResult, file: &str) -> (EvalAltResult, String) {
    let (mut error, mut file) = (error, file.to_owned());
    loop {
        match error {
            EvalAltResult::ErrorInFunctionCall(_, source, inner, _) => {
                if !source.is_empty() {
                    file = source;
                }
                error = *inner;
            }
            EvalAltResult::ErrorInModule(source, inner, _) => {
                if !source.is_empty() {
                    file = source;
                }
                error = *inner;
            }
            error => return (error, file),
        }
    }
}

pub(super) fn place(file: &str, position: Position) -> String {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (Some(line), None) => format!("{file}:{line}"),
        _ => file.to_owned(),
    }
}

/// Describes an error of rhai without its position.
pub(super) fn describe(error: EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorFunctionNotFound(call, _) => no_function(&call),
        EvalAltResult::ErrorVariableNotFound(name, _) => format!("there is no variable `{name}`"),
        EvalAltResult::ErrorModuleNotFound(name, _) => format!("there is no module `{name}`"),
        EvalAltResult::ErrorMismatchDataType(wanted, found, _) => {
            format!("expected a value of type `{wanted}`, found `{found}`")
        }
        EvalAltResult::ErrorTooManyOperations(_) => {
            "the call took more operations than `limits.operations` allows".to_owned()
        }
        EvalAltResult::ErrorStackOverflow(_) => {
            "functions call each other deeper than `limits.call_depth` allows".to_owned()
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => format!("{} exceeds `limits`", lower(&what)),
        EvalAltResult::ErrorRuntime(value, _) => match value.read_lock::<Fault>() {
            Some(fault) => fault.message.clone(),
            None => value.to_string(),
        },
        EvalAltResult::ErrorDotExpr(what, _) => no_property(&what).unwrap_or_else(|| lower(&what)),
        mut error => {
            error.clear_position();
            lower(&error.to_string())
        }
    }
}

/// Describes a call without a function, which rhai writes as `name (type, type)`.
fn no_function(call: &str) -> String {
    let call = call.replace("&str | ImmutableString | String", "string");
    let parts = call.strip_suffix(')').and_then(|call| call.split_once(" ("));
    let operation = parts.and_then(|(operator, types)| {
        let operands: Vec<_> = types.split(", ").map(convert::kind_of_type).collect();
        wrong_operands(operator, &operands)
    });
    operation.unwrap_or_else(|| format!("there is no function `{}`", call.replace(" (", "(")))
}

/// Describes an operator that does not suit its operands. `None` for other functions.
fn wrong_operands(operator: &str, operands: &[Cow<'_, str>]) -> Option<String> {
    let does = match (operator, operands) {
        ("-", [a]) => format!("negate {a}"),
        ("+", [a]) => format!("be the sign of {a}"),
        ("!", [a]) => format!("invert {a}"),
        ("+", [a, b]) => format!("add {b} to {a}"),
        ("-", [a, b]) => format!("subtract {b} from {a}"),
        ("*", [a, b]) => format!("multiply {a} by {b}"),
        ("/" | "%", [a, b]) => format!("divide {a} by {b}"),
        ("**", [a, b]) => format!("raise {a} to the power of {b}"),
        ("<<" | ">>", [a, b]) => format!("shift {a} by {b}"),
        ("==" | "!=" | "<" | "<=" | ">" | ">=", [a, b]) => format!("compare {a} with {b}"),
        ("&" | "|" | "^", [a, b]) => format!("combine {a} with {b}"),
        (".." | "..=", [a, b]) => format!("make a range from {a} to {b}"),
        _ => return None,
    };
    Some(format!("`{operator}` cannot {does}"))
}

/// Rewrites `Unknown property 'p' - a getter is not registered for type 't'`, and the same message for setters.
fn no_property(what: &str) -> Option<String> {
    let mut quoted = what.split('\'').skip(1).step_by(2);
    let (property, owner) = (quoted.next()?, quoted.next()?);
    if what.starts_with("Unknown property") {
        return Some(format!("there is no property `{property}` in a value of type `{owner}`"));
    }
    what.starts_with("No writable property")
        .then(|| format!("the property `{property}` of a value of type `{owner}` cannot be set"))
}

/// Lowercases the first letter, unless the text begins with an abbreviation.
pub(super) fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
