//! Runs calls of the script, and turns their results into decisions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rhai::Dynamic;

use super::Inner;
use super::call::{Failure, ScriptResult, Span, current};
use super::convert;
use super::entry::Entry;
use super::failure;
use super::objects::SpanObject;
use super::problem::Problem;
use super::program::Program;
use crate::effect::{Emitted, Ends, Value};
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
            return;
        }
        match self.script.entry {
            Entry::HandleEvent => streams.iter_mut().for_each(|work| decisions.push(self.handle_events(work))),
            Entry::Handle => streams.iter_mut().for_each(|work| decisions.push(self.handle_stream(work))),
            Entry::HandleBatch => self.handle_batch(streams, decisions),
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
        let result = self.run(|program| {
            program.begin();
            program.handle(span)
        });
        let result = result.and_then(|value| self.verdict(&value));
        let span = current(|call| call.end_single(work));
        result
            .and_then(|verdict| decide(verdict, span.effects, work))
            .map_err(|error| about_work(error, &self.script.file, work))
    }

    fn handle_batch(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
        let spans = current(|call| {
            call.begin(streams, true);
            Dynamic::from_array(call.spans().map(|span| Dynamic::from(SpanObject(span))).collect())
        });
        let result = self.run(|program| {
            program.begin();
            program.handle_batch(spans)
        });
        let result = result.and_then(|value| match self.verdict(&value)? {
            ScriptResult::Done { tag: None } => Ok(()),
            _ => {
                Err(self.permanent("`handle_batch` returns nothing: decide each span with `span.upto(n)` and the like"))
            }
        });
        let spans = current(|call| call.end_batch(streams));
        for (work, span) in streams.iter().zip(spans) {
            decisions.push(result.as_ref().map_err(copy).and_then(|()| {
                let Span { effects, verdict, failure, .. } = span;
                match failure {
                    Some(failure) => Err(failure),
                    None => decide(verdict.unwrap_or(ScriptResult::Done { tag: None }), effects, work),
                }
                .map_err(|error| about_work(error, &self.script.file, work))
            }));
        }
    }

    /// Runs `handle_event` for one event after the other. An event that is not handled ends the call before it, and comes
    /// first in the next call. The outcome of a call is therefore that of its first event.
    fn handle_events(&mut self, work: &mut Work) -> Result<Decision, HandlerError> {
        let span = current(|call| {
            call.begin(std::slice::from_mut(work), false);
            call.handle(0)
        });
        let (mut ends, mut tag, mut unhandled) = (Ends::new(), None, None);
        while let Ok(Some(event)) = current(|call| call.event_of(span, ends.len() as i64)) {
            let is_first = ends.is_empty();
            let result = self.run(|program| {
                if is_first {
                    program.begin();
                }
                program.handle_event(span, event)
            });
            match result.and_then(|value| self.verdict(&value)) {
                Ok(ScriptResult::Done { tag: given }) => {
                    let effects = current(|call| call.span(span).map_or(0, |span| span.effects.len()));
                    ends.push(effects as u32);
                    tag = given.or(tag);
                }
                outcome => {
                    unhandled = Some(outcome);
                    break;
                }
            }
        }
        let Span { effects, .. } = current(|call| call.end_single(work));
        let Some(outcome) = unhandled else {
            return Ok(Decision { next: NextIndex::All, effects: Emitted::by_event(effects, ends), tag });
        };
        if let Some((events, next)) = work.cut_before(ends.len()) {
            ends.truncate(events);
            return Ok(Decision { next: NextIndex::Upto(next), effects: Emitted::by_event(effects, ends), tag });
        }
        let event = &work.events[ends.len()];
        let emitted = effects.len() - ends.last().map_or(0, |end| *end as usize);
        let decision = outcome.and_then(|verdict| decide_event(verdict, emitted));
        // An unfold has no index of its own, and fails with the event before it.
        let index = if event.is_unfold() { work.first() } else { event.index() };
        decision.map_err(|error| within(error, &self.script.file, event).at_index(index))
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

    /// Interprets the value that the script returned.
    fn verdict(&self, value: &Dynamic) -> Result<ScriptResult, HandlerError> {
        if value.is_unit() {
            return Ok(ScriptResult::Done { tag: None });
        }
        if let Some(verdict) = value.read_lock::<ScriptResult>() {
            return Ok(verdict.clone());
        }
        let upto = if self.script.entry == Entry::HandleEvent { "" } else { "`upto(..)`, " };
        Err(self.permanent(&format!(
            "returned {}: return nothing, or what `done(..)`, {upto}`defer(..)` or `malformed(..)` makes \
             (a last expression is returned, also with a `;`: end with `return;`)",
            convert::kind(value)
        )))
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

/// Makes the decision about a stream. [`about_work`] adds the location to the messages.
fn decide(verdict: ScriptResult, effects: Vec<Value>, work: &Work) -> Result<Decision, HandlerError> {
    let first = work.first();
    let (next, tag) = match verdict {
        ScriptResult::Done { tag } => (NextIndex::All, tag),
        ScriptResult::Upto { next, .. } if next < first => {
            return Err(wrong(format!("`upto({next})` lies before the first event offered, index {first}")));
        }
        ScriptResult::Upto { next, tag } => (NextIndex::Upto(next), tag),
        ScriptResult::Defer(delay) => (NextIndex::Defer(delay), None),
        ScriptResult::Malformed { why, index } => {
            return Err(malformed(&why).at_known_index(index));
        }
    };
    if matches!(next, NextIndex::Defer(_)) || next == NextIndex::Upto(first) {
        refuse_effects(effects.len())?;
    }
    Ok(Decision { next, effects: effects.into(), tag })
}

/// Makes the decision about an event that is not handled, and that emitted this number of effects.
fn decide_event(verdict: ScriptResult, emitted: usize) -> Result<Decision, HandlerError> {
    match verdict {
        ScriptResult::Defer(delay) => {
            refuse_effects(emitted)?;
            Ok(Decision { next: NextIndex::Defer(delay), ..Decision::handled() })
        }
        ScriptResult::Malformed { why, .. } => Err(malformed(&why)),
        ScriptResult::Done { .. } | ScriptResult::Upto { .. } => Err(wrong(
            "returned `upto(..)`, which decides about several events: `handle_event` returns nothing, or what `done(..)`, \
             `defer(..)` or `malformed(..)` makes",
        )),
    }
}

fn wrong(what: impl Into<String>) -> HandlerError {
    HandlerError::new(HandlerErrorKind::Permanent, what)
}

fn malformed(why: &str) -> HandlerError {
    HandlerError::new(HandlerErrorKind::Malformed, format!("malformed: {why}"))
}

/// Refuses the effects of a call without progress (C13).
fn refuse_effects(number: usize) -> Result<(), HandlerError> {
    match number {
        0 => Ok(()),
        1 => Err(wrong("made no progress but emitted an effect, which each retry would repeat")),
        _ => Err(wrong(format!("made no progress but emitted {number} effects, which each retry would repeat"))),
    }
}

/// Adds file, stream and event to a message that does not name them yet: the event at fault, or else the first.
fn about_work(error: HandlerError, file: &str, work: &Work) -> HandlerError {
    let named = error.index().and_then(|index| work.events.iter().find(|event| event.index() == index));
    within(error, file, named.unwrap_or(&work.events[0]))
}

/// Adds file, stream and event to a message that does not name them yet.
fn within(error: HandlerError, file: &str, event: &Event) -> HandlerError {
    if error.message().starts_with(file) || error.message().contains(" (stream `") {
        return error;
    }
    let renamed = failure::about(error.kind(), error.message(), file, Some(event));
    with_details(renamed, &error)
}

/// Copies an error. A failed call fails each of its streams.
fn copy(error: &HandlerError) -> HandlerError {
    with_details(HandlerError::new(error.kind(), error.message()), error)
}

fn with_details(error: HandlerError, from: &HandlerError) -> HandlerError {
    let error = error.at_known_index(from.index());
    match from.delay() {
        Some(delay) => error.retry_after(delay),
        None => error,
    }
}
