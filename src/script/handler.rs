//! Runs calls, and makes decisions of what the script says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rhai::Dynamic;

use super::Inner;
use super::call::{Failure, Span, Verdict, current};
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

/// Makes a handler, with an engine of its own, for each thread.
pub(super) struct Factory(pub(super) Arc<Inner>);

impl BlockingHandlerFactory for Factory {
    fn make(&self) -> Box<dyn BlockingHandler> {
        Box::new(ScriptHandler { program: None, script: Arc::clone(&self.0) })
    }
}

struct ScriptHandler {
    script: Arc<Inner>,
    /// Absent before the first call, and after a panic.
    program: Option<Program>,
}

impl BlockingHandler for ScriptHandler {
    fn handle(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
        if let Err(error) = self.make_ready() {
            decisions.extend(streams.iter().map(|_| Err(again(&error))));
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
    /// Makes the engine, on the thread that it will run on. The script has been compiled before, so that this works.
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
        let said = self.run(|program| program.handle(span));
        let said = said.and_then(|value| verdict(&value).map_err(|what| self.wrong(&what)));
        let span = current(|call| call.end_single(work));
        said.and_then(|verdict| decide(verdict, span.effects, work))
            .map_err(|error| within(error, &self.script.file, work))
    }

    fn handle_batch(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
        let spans = current(|call| {
            call.begin(streams, true);
            Dynamic::from_array(call.spans().map(|span| Dynamic::from(SpanObject(span))).collect())
        });
        let said = self.run(|program| program.handle_batch(spans)).and_then(|value| match verdict(&value) {
            Ok(Verdict::Done { tag: None }) => Ok(()),
            Ok(_) => Err(self.wrong("`handle_batch` returns nothing: say `span.upto(n)` and the like of each span")),
            Err(what) => Err(self.wrong(&what)),
        });
        let spans = current(|call| call.end_batch(streams));
        for (work, span) in streams.iter().zip(spans) {
            decisions.push(said.as_ref().map_err(again).and_then(|()| {
                let Span { effects, verdict, failure, .. } = span;
                match failure {
                    Some(failure) => Err(failure),
                    None => decide(verdict.unwrap_or(Verdict::Done { tag: None }), effects, work),
                }
                .map_err(|error| within(error, &self.script.file, work))
            }));
        }
    }

    /// Calls a function. A panic costs the engine, which is made anew, and never the thread.
    fn run(&mut self, call: impl FnOnce(&mut Program) -> Result<Dynamic, Failure>) -> Result<Dynamic, HandlerError> {
        let script = &self.script;
        let Some(program) = &mut self.program else {
            return Err(self.wrong("the script engine failed in an earlier stream of this call"));
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
                Err(self.wrong(&format!("the script engine failed: {why}")))
            }
        }
    }

    /// Returns a permanent error about the running call.
    fn wrong(&self, what: &str) -> HandlerError {
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

/// Returns what the value that a script returned says, or what is wrong with it.
fn verdict(value: &Dynamic) -> Result<Verdict, String> {
    if value.is_unit() {
        return Ok(Verdict::Done { tag: None });
    }
    if let Some(verdict) = value.read_lock::<Verdict>() {
        return Ok(verdict.clone());
    }
    Err(format!(
        "returned {}: return nothing, or what `done(..)`, `upto(..)`, `defer(..)` or `malformed(..)` makes \
         (a last expression is returned, also with a `;`: end with `return;`)",
        convert::kind(value)
    ))
}

/// Makes the decision about a stream. Messages say what is wrong; [`within`] adds where.
fn decide(verdict: Verdict, effects: Vec<crate::effect::Value>, work: &Work) -> Result<Decision, HandlerError> {
    let wrong = |what: String| Err(HandlerError::new(HandlerErrorKind::Permanent, what));
    let first = work.first();
    let (next, tag) = match verdict {
        Verdict::Done { tag } => (NextIndex::All, tag),
        Verdict::Upto { next, .. } if next < first => {
            return wrong(format!("`upto({next})` lies before the first event offered, index {first}"));
        }
        Verdict::Upto { next, tag } => (NextIndex::Upto(next), tag),
        Verdict::Defer(delay) => (NextIndex::Defer(delay), None),
        Verdict::Malformed { why, index } => {
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
        return wrong(format!("made no progress and yet emitted {emitted}, to be written again each time"));
    }
    Ok(Decision { next, effects, tag })
}

/// Names file, stream and event, where the message does not yet.
fn within(error: HandlerError, file: &str, work: &Work) -> HandlerError {
    if error.message().starts_with(file) || error.message().contains(" (stream `") {
        return error;
    }
    let event = error.index().and_then(|index| work.events.iter().find(|event| event.index() == index));
    let named: &Event = event.unwrap_or(&work.events[0]);
    let renamed = failure::about(error.kind(), error.message(), file, Some(named));
    with_details(renamed, &error)
}

/// Returns the same error once more: a call that failed failed for each of its streams.
fn again(error: &HandlerError) -> HandlerError {
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
