//! The functions of the host for scripts: decisions, effects, logs, metrics, time and JSON. **No files, no network, no
//! waiting.**

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rhai::{Dynamic, Engine, EvalContext, ImmutableString, Map, Token};
use time::OffsetDateTime;

use super::call::{Call, Failure, Fault, Handle, ScriptResult, current, misuse};
use super::convert;
use super::document::Document;
use super::failure::from_thrown;
use super::json;
use super::memory;
use super::metrics::{ScriptMetrics, is_name};
use super::objects::{SpanObject, TimeObject, parse_time};
use crate::clock;
use crate::config::scalar;

/// The type of `log`.
#[derive(Clone, Copy)]
pub(super) struct LogApi;
/// The type of `metric`.
#[derive(Clone, Copy)]
pub(super) struct MetricApi;
/// The type of `time`.
#[derive(Clone, Copy)]
pub(super) struct TimeApi;
/// The type of `json`.
#[derive(Clone, Copy)]
pub(super) struct JsonApi;

/// The predefined names of a script.
pub(super) const NAMES: [&str; 5] = ["log", "metric", "time", "json", "params"];

/// The parts of the pipeline that the functions use.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) params: Arc<Map>,
    pub(super) metrics: Arc<ScriptMetrics>,
    pub(super) max_emitted_bytes: usize,
    /// The fixed result of `time.now()`. `None` for the time of day.
    pub(super) now: Option<OffsetDateTime>,
}

impl Host {
    /// Returns the value of one of [`NAMES`].
    pub(super) fn value(&self, name: &str) -> Option<Dynamic> {
        Some(match name {
            "log" => Dynamic::from(LogApi),
            "metric" => Dynamic::from(MetricApi),
            "time" => Dynamic::from(TimeApi),
            "json" => Dynamic::from(JsonApi),
            "params" => Dynamic::from(Document::Params(Arc::clone(&self.params))),
            _ => return None,
        })
    }
}

/// Registers all functions except the methods of objects.
pub(super) fn register(engine: &mut Engine, host: &Host) {
    register_names(engine, host.clone());
    allow_debug_as_a_method(engine);
    register_results(engine);
    register_emit(engine, host);
    register_logs(engine);
    register_metrics(engine, host);
    register_time(engine, host.now);
    register_json(engine);
    engine.register_fn("sleep", |_: i64| no_sleep());
    engine.register_fn("sleep", |_: f64| no_sleep());
    #[cfg(test)]
    engine.register_fn("panic_for_a_test", || -> () { panic!("as the test asked") });
}

fn no_sleep() -> Result<(), Failure> {
    Err(misuse("a script cannot sleep: return `defer(\"5s\")`"))
}

/// Resolves the names of the host. Functions and closures cannot see them as variables, so the engine asks this hook.
#[expect(deprecated, reason = "rhai marks what may change in a later version so")]
fn register_names(engine: &mut Engine, host: Host) {
    engine.on_var(move |name, index, context: EvalContext| {
        if index == 0
            && let Some(value) = host.value(name)
        {
            return Ok(Some(value));
        }
        memory::on_access(name, &context)?;
        Ok(None)
    });
}

/// Allows `log.debug(..)`. rhai reserves the keyword `debug` and refuses it after a dot.
#[expect(deprecated, reason = "rhai marks what may change in a later version so")]
fn allow_debug_as_a_method(engine: &mut Engine) {
    let after_dot = AtomicBool::new(false);
    engine.on_parse_token(move |token, _, _| {
        let is_dot = matches!(token, Token::Period | Token::Elvis);
        match token {
            Token::Reserved(word) if after_dot.swap(is_dot, Ordering::Relaxed) && *word == "debug" => {
                Token::Identifier(word)
            }
            Token::Reserved(_) => token,
            _ => {
                after_dot.store(is_dot, Ordering::Relaxed);
                token
            }
        }
    });
}

fn register_results(engine: &mut Engine) {
    engine.register_type_with_name::<Fault>("error");
    engine.register_get("message", |fault: &mut Fault| ImmutableString::from(&fault.message));
    engine.register_fn("to_string", |fault: &mut Fault| ImmutableString::from(&fault.message));
    engine.register_type_with_name::<ScriptResult>("progress");
    engine.register_fn("done", || ScriptResult::Done { tag: None });
    engine.register_fn("done", |tag: ImmutableString| done(&tag));
    engine.register_fn("upto", |next: i64| ScriptResult::Upto { next, tag: None });
    engine.register_fn("upto", |next: i64, tag: ImmutableString| upto(next, &tag));
    engine.register_fn("defer", |delay: Dynamic| duration(&delay).map(ScriptResult::Defer));
    engine
        .register_fn("malformed", |why: ImmutableString| ScriptResult::Malformed { why: why.to_string(), index: None });
    engine.register_fn("malformed", |why: ImmutableString, index: i64| ScriptResult::Malformed {
        why: why.to_string(),
        index: Some(index),
    });
}

/// Registers the decisions about the spans of a batch.
pub(super) fn register_for_spans(engine: &mut Engine) {
    engine.register_fn("done", |span: &mut SpanObject| decide(span.0, ScriptResult::Done { tag: None }));
    engine.register_fn("done", |span: &mut SpanObject, tag: ImmutableString| decide(span.0, done(&tag)?));
    engine
        .register_fn("upto", |span: &mut SpanObject, next: i64| decide(span.0, ScriptResult::Upto { next, tag: None }));
    engine.register_fn("upto", |span: &mut SpanObject, next: i64, tag: ImmutableString| {
        decide(span.0, upto(next, &tag)?)
    });
    engine.register_fn("defer", |span: &mut SpanObject, delay: Dynamic| {
        decide(span.0, ScriptResult::Defer(duration(&delay)?))
    });
    engine.register_fn("malformed", |span: &mut SpanObject, why: ImmutableString| {
        decide(span.0, ScriptResult::Malformed { why: why.to_string(), index: None })
    });
    engine.register_fn("malformed", |span: &mut SpanObject, why: ImmutableString, index: i64| {
        decide(span.0, ScriptResult::Malformed { why: why.to_string(), index: Some(index) })
    });
    engine.register_fn("fail", |span: &mut SpanObject, why: Dynamic| {
        let failure = from_thrown(&why);
        current(|call| {
            call.span(span.0)?.failure = Some(failure);
            Ok::<_, Failure>(())
        })
    });
}

fn decide(span: Handle, verdict: ScriptResult) -> Result<(), Failure> {
    current(|call| {
        call.span(span)?.verdict = Some(verdict);
        Ok(())
    })
}

fn done(tag: &str) -> Result<ScriptResult, Failure> {
    Ok(ScriptResult::Done { tag: Some(checked_tag(tag)?) })
}

fn upto(next: i64, tag: &str) -> Result<ScriptResult, Failure> {
    Ok(ScriptResult::Upto { next, tag: Some(checked_tag(tag)?) })
}

fn checked_tag(tag: &str) -> Result<Arc<str>, Failure> {
    if is_name(tag) {
        return Ok(current(|call| call.texts.get(tag)));
    }
    Err(misuse(format!("`{tag}` cannot be a tag: use 1 to 64 of the letters a-z, A-Z, 0-9, `_`, `.`, `-`")))
}

/// Reads a duration: `"5s"`, or a number of seconds.
pub(super) fn duration(value: &Dynamic) -> Result<Duration, Failure> {
    if let Ok(text) = value.as_immutable_string_ref() {
        return scalar::duration::parse(&text).map_err(misuse);
    }
    let seconds = match value.as_int() {
        Ok(seconds) => seconds as f64,
        Err(_) => value.as_float().map_err(|_| {
            misuse(format!("a delay is a string such as \"5s\", or a number of seconds, not {}", convert::kind(value)))
        })?,
    };
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| misuse(format!("{seconds} seconds is not a valid delay: {error}")))
}

fn register_emit(engine: &mut Engine, host: &Host) {
    let limit = host.max_emitted_bytes;
    engine.register_fn("emit", move |value: Dynamic| {
        current(|call| {
            call.single("emit(..)")?;
            let value = checked_value(call, &value, limit)?;
            call.single("emit(..)")?.effects.push(value);
            Ok::<_, Failure>(())
        })
    });
    engine.register_fn("emit", move |span: &mut SpanObject, value: Dynamic| {
        current(|call| {
            let value = checked_value(call, &value, limit)?;
            call.span(span.0)?.effects.push(value);
            Ok::<_, Failure>(())
        })
    });
}

fn checked_value(call: &mut Call, value: &Dynamic, limit: usize) -> Result<crate::effect::Value, Failure> {
    let value = convert::to_value(call, value)?;
    if call.emitted_bytes > limit {
        return Err(misuse(format!("the call emitted more than {limit} bytes")));
    }
    Ok(value)
}

fn register_logs(engine: &mut Engine) {
    fn stream() -> ImmutableString {
        current(|call| call.suspect().map(|event| event.stream().into()).unwrap_or_default())
    }
    engine.register_fn("info", |_: LogApi, message: Dynamic| {
        tracing::info!(stream = %stream(), "{}", convert::display(&message));
    });
    engine.register_fn("warn", |_: LogApi, message: Dynamic| {
        tracing::warn!(stream = %stream(), "{}", convert::display(&message));
    });
    engine.register_fn("error", |_: LogApi, message: Dynamic| {
        tracing::error!(stream = %stream(), "{}", convert::display(&message));
    });
    // rhai passes the result of any function named `debug` to `on_debug`, which writes it to the log.
    engine.register_fn("debug", |_: LogApi, message: Dynamic| ImmutableString::from(convert::display(&message)));
    engine.on_print(|message| tracing::info!(stream = %stream(), "{message}"));
    engine.on_debug(|message, _, _| tracing::debug!(stream = %stream(), "{message}"));
}

fn register_metrics(engine: &mut Engine, host: &Host) {
    let metrics = Arc::clone(&host.metrics);
    engine.register_fn("inc", move |_: MetricApi, name: ImmutableString| metrics.add(&name, 1).map_err(misuse));
    let metrics = Arc::clone(&host.metrics);
    engine.register_fn("inc", move |_: MetricApi, name: ImmutableString, by: i64| {
        let by = u64::try_from(by).map_err(|_| misuse(format!("a counter cannot grow by {by}")))?;
        metrics.add(&name, by).map_err(misuse)
    });
}

fn register_time(engine: &mut Engine, now: Option<OffsetDateTime>) {
    engine.register_fn("now", move |_: TimeApi| TimeObject(now.unwrap_or_else(clock::wall)));
    engine.register_fn("parse", |_: TimeApi, text: ImmutableString| parse_time(&text));
}

fn register_json(engine: &mut Engine) {
    engine.register_fn("parse", |_: JsonApi, text: ImmutableString| {
        json::parse(text.as_bytes()).map_err(|why| misuse(format!("this is not JSON: {why}")))
    });
    engine.register_fn("text", |_: JsonApi, value: Dynamic| {
        let value = current(|call| {
            let emitted = call.emitted_bytes;
            let value = convert::to_value(call, &value);
            call.emitted_bytes = emitted;
            value
        })?;
        json::write(&value).map_err(misuse)
    });
}
