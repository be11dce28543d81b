//! Runs calls of the script, and turns their results into decisions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rhai::Dynamic;

use super::Inner;
use super::call::{Failure, ScriptResult, Span, current};
use super::convert;
use super::failure;
use super::objects::SpanObject;
use super::problem::Problem;
use super::program::Program;
use crate::event::Event;
use crate::handler::{
    BlockingHandler, BlockingHandlerFactory, Decision, Decisions, HandlerError, HandlerErrorKind, NextIndex,
};
use crate::work::Work;

/// Makes a handler with its own engine for each thread.
pub(super) struct Factory(pub(super) Arc<Inner>);

impl BlockingHandlerFactory for Factory {
    fn make(&self) -> Box<dyn BlockingHandler> {
        Box::new(ScriptHandler { program: None, script: Arc::clone(&self.0) })
    }
}

struct ScriptHandler {
    script: Arc<Inner>,
    /// `None` before the first call and after a panic.
    program: Option<Program>,
}

impl BlockingHandler for ScriptHandler {
    fn handle(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
        if let Err(error) = self.make_ready() {
            decisions.extend(streams.iter().map(|_| Err(copy(&error))));
        } else if self.script.options.is_batch() {
            self.handle_batch(streams, decisions);
        } else {
            for work in streams {
                decisions.push(self.handle_stream(work));
            }
        }
    }
}

impl ScriptHandler {
    /// Makes the engine on the thread that runs it. The script has compiled before, so an error here is unexpected.
    fn make_ready(&mut self) -> Result<(), HandlerError> {
        if self.program.is_none() {
            let permanent = |problem: Problem| HandlerError::new(HandlerErrorKind::Permanent, problem.to_string());
            self.program = Some(self.script.program().map_err(permanent)?);
        }
        Ok(())
    }

    fn handle_stream(&mut self, work: &mut Work) -> Result<Decision, HandlerError> {
        let span = current(|call| {
            call.begin(std::slice::from_mut(work), false);
            call.handle(0)
        });
        let result = self.run(|program| program.handle(span));
        let result = result.and_then(|value| verdict(&value).map_err(|what| self.permanent(&what)));
        let span = current(|call| call.end_single(work));
        result
            .and_then(|verdict| decide(verdict, span.effects, work))
            .map_err(|error| within(error, &self.script.file, work))
    }

    fn handle_batch(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
        let spans = current(|call| {
            call.begin(streams, true);
            Dynamic::from_array(call.spans().map(|span| Dynamic::from(SpanObject(span))).collect())
        });
        let result = self.run(|program| program.handle_batch(spans)).and_then(|value| match verdict(&value) {
            Ok(ScriptResult::Done { tag: None }) => Ok(()),
            Ok(_) => {
                Err(self.permanent("`handle_batch` returns nothing: decide each span with `span.upto(n)` and the like"))
            }
            Err(what) => Err(self.permanent(&what)),
        });
        let spans = current(|call| call.end_batch(streams));
        for (work, span) in streams.iter().zip(spans) {
            decisions.push(result.as_ref().map_err(copy).and_then(|()| {
                let Span { effects, verdict, failure, .. } = span;
                match failure {
                    Some(failure) => Err(failure),
                    None => decide(verdict.unwrap_or(ScriptResult::Done { tag: None }), effects, work),
                }
                .map_err(|error| within(error, &self.script.file, work))
            }));
        }
    }

    /// Calls a function. After a panic the thread survives, and the next call makes a new engine.
    fn run(&mut self, call: impl FnOnce(&mut Program) -> Result<Dynamic, Failure>) -> Result<Dynamic, HandlerError> {
        let script = &self.script;
        let Some(program) = &mut self.program else {
            return Err(self.permanent("the script engine failed in an earlier stream of this call"));
        };
        match catch_unwind(AssertUnwindSafe(|| call(program))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let suspect = current(|call| call.suspect().cloned());
                Err(failure::from_error(*error, &script.file, script.options.timeout, suspect.as_ref()))
            }
            Err(panic) => {
                self.program = None;
                let why = panic_text(&*panic);
                Err(self.permanent(&format!("the script engine failed: {why}")))
            }
        }
    }

    /// Returns a permanent error for the running call.
    fn permanent(&self, what: &str) -> HandlerError {
        current(|call| failure::about(HandlerErrorKind::Permanent, what, &self.script.file, call.suspect()))
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "it panicked",
    }
}

/// Interprets the value that a script returned, or describes the reason why that is impossible.
fn verdict(value: &Dynamic) -> Result<ScriptResult, String> {
    if value.is_unit() {
        return Ok(ScriptResult::Done { tag: None });
    }
    if let Some(verdict) = value.read_lock::<ScriptResult>() {
        return Ok(verdict.clone());
    }
    Err(format!(
        "returned {}: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes \
         (a last expression is returned, also with a `;`: end with `return;`)",
        convert::kind(value)
    ))
}

/// Makes the decision about a stream. [`within`] adds the location to the messages.
fn decide(verdict: ScriptResult, effects: Vec<crate::effect::Value>, work: &Work) -> Result<Decision, HandlerError> {
    let wrong = |what: String| Err(HandlerError::new(HandlerErrorKind::Permanent, what));
    let first = work.first();
    let (next, tag) = match verdict {
        ScriptResult::Done { tag } => (NextIndex::All, tag),
        ScriptResult::Upto { next, .. } if next < first => {
            return wrong(format!("`upto({next})` lies before the first event offered, index {first}"));
        }
        ScriptResult::Upto { next, tag } => (NextIndex::Upto(next), tag),
        ScriptResult::Defer(delay) => (NextIndex::Defer(delay), None),
        ScriptResult::Malformed { why, index } => {
            let error = HandlerError::new(HandlerErrorKind::Malformed, format!("malformed: {why}"));
            return Err(match index {
                Some(index) => error.at_index(index),
                None => error,
            });
        }
    };
    let no_progress = matches!(next, NextIndex::Defer(_)) || next == NextIndex::Upto(first);
    if no_progress && !effects.is_empty() {
        let emitted = if effects.len() == 1 { "an effect".to_owned() } else { format!("{} effects", effects.len()) };
        return wrong(format!("made no progress but emitted {emitted}, which each retry would repeat"));
    }
    Ok(Decision { next, effects, tag })
}

/// Adds file, stream and event to a message that does not name them yet.
fn within(error: HandlerError, file: &str, work: &Work) -> HandlerError {
    if error.message().starts_with(file) || error.message().contains(" (stream `") {
        return error;
    }
    let event = error.index().and_then(|index| work.events.iter().find(|event| event.index() == index));
    let named: &Event = event.unwrap_or(&work.events[0]);
    let renamed = failure::about(error.kind(), error.message(), file, Some(named));
    with_details(renamed, &error)
}

/// Copies an error. A failed call fails each of its streams.
fn copy(error: &HandlerError) -> HandlerError {
    with_details(HandlerError::new(error.kind(), error.message()), error)
}

fn with_details(mut error: HandlerError, from: &HandlerError) -> HandlerError {
    if let Some(index) = from.index() {
        error = error.at_index(index);
    }
    if let Some(delay) = from.delay() {
        error = error.retry_after(delay);
    }
    error
}
