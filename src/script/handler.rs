//! Runs calls of the script, and turns their results into decisions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rhai::Dynamic;

use super::Inner;
use super::call::{Failure, Handle, ScriptResult, Span, current, index_at};
use super::convert;
use super::entry::Entry;
use super::failure;
use super::objects::SpanObject;
use super::problem::Problem;
use super::program::Program;
use super::upcast::Newest;
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
            self.program = Some(Program::build(&self.script).map_err(permanent)?);
        }
        Ok(())
    }

    /// Begins a call over `streams`.
    fn begin(&mut self, streams: &mut [Work], is_batch: bool) {
        current(|call| call.begin(streams, is_batch));
        if let Some(program) = &mut self.program {
            program.begin();
        }
    }

    fn handle_stream(&mut self, work: &mut Work) -> Result<Decision, HandlerError> {
        self.begin(std::slice::from_mut(work), false);
        let span = current(|call| call.handle(0));
        let result = self.upcast_span(span).and_then(|offer| {
            let verdict = match offer.is_empty {
                true => DONE,
                false => self.run(|program| program.handle(span)).and_then(|value| self.verdict(&value))?,
            };
            Ok((offer, verdict))
        });
        let span = current(|call| call.end_single(work));
        result
            .and_then(|(offer, verdict)| Ok(offer.end(decide(verdict, span.effects, work)?)))
            .map_err(|error| about_work(error, &self.script.file, work))
    }

    fn handle_batch(&mut self, streams: &mut [Work], decisions: &mut Decisions) {
        self.begin(streams, true);
        let spans = current(|call| call.spans().collect::<Vec<_>>());
        let offers: Vec<_> = spans.iter().map(|span| self.upcast_span(*span)).collect();
        let offered = spans.into_iter().zip(&offers).filter(|(_, offer)| offer.as_ref().is_ok_and(|of| !of.is_empty));
        let offered: Vec<_> = offered.map(|(span, _)| Dynamic::from(SpanObject(span))).collect();
        let result = match offered.is_empty() {
            true => Ok(()),
            false => self.run_batch(offered),
        };
        let spans = current(|call| call.end_batch(streams));
        for ((work, span), offer) in streams.iter().zip(spans).zip(offers) {
            let decision = offer.and_then(|offer| {
                if !offer.is_empty {
                    result.as_ref().map_err(copy)?;
                }
                let Span { effects, verdict, failure, .. } = span;
                match failure {
                    Some(failure) => Err(failure),
                    None => Ok(offer.end(decide(verdict.unwrap_or(DONE), effects, work)?)),
                }
            });
            decisions.push(decision.map_err(|error| about_work(error, &self.script.file, work)));
        }
    }

    fn run_batch(&mut self, spans: Vec<Dynamic>) -> Result<(), HandlerError> {
        let value = self.run(|program| program.handle_batch(Dynamic::from_array(spans)))?;
        match self.verdict(&value)? {
            ScriptResult::Done { tag: None } => Ok(()),
            _ => {
                Err(self.permanent("`handle_batch` returns nothing: decide each span with `span.upto(n)` and the like"))
            }
        }
    }

    /// Upcasts the events of a stream, and leaves out those that the filter excludes. An event that fails ends the call before
    /// it, and comes first in the next one.
    fn upcast_span(&mut self, span: Handle) -> Result<Offer, HandlerError> {
        if self.script.upcast.is_none() {
            return Ok(Offer { is_empty: false, before: None });
        }
        let trace = current(|call| call.trace());
        let (mut position, mut kept) = (0, 0);
        let mut before = None;
        while let Ok(Some(event)) = current(|call| call.event_of(span, position as i64)) {
            match self.upcast(event) {
                Ok(true) => {
                    current(|call| call.keep(span, position, kept));
                    kept += 1;
                }
                Ok(false) => {}
                Err(error) => {
                    let (next, index) =
                        current(|call| (call.offer_before(span, kept, position), call.index_at(span, position)));
                    before = Some(next.ok_or_else(|| error.at_index(index))?);
                    break;
                }
            }
            position += 1;
        }
        current(|call| {
            if before.is_none() {
                call.offer(span, kept);
            }
            // An error of the handler must not name an event that only `upcast` read.
            call.restore(trace);
        });
        Ok(Offer { is_empty: current(|call| call.events_in(span)).is_ok_and(|events| events == 0), before })
    }

    /// Replaces the fields of an event by those of its newest form. Returns whether the filter by type lets it pass.
    fn upcast(&mut self, event: Handle) -> Result<bool, HandlerError> {
        if self.script.upcast.is_none() {
            return Ok(true);
        }
        current(|call| call.is_upcasting = true);
        let returned = self.run(|program| program.upcast(event));
        current(|call| call.is_upcasting = false);
        let (script, returned) = (&self.script, returned?);
        let limit = script.options.limits.memory_bytes;
        let newest = current(|call| {
            let newest = Newest::read(call, event, returned)?;
            call.replace(event, newest, limit)?;
            call.event_type(event)
        });
        match newest {
            Ok(event_type) => Ok(script.types.as_ref().is_none_or(|filter| filter.event(&event_type))),
            Err(error) => {
                let suspect = current(|call| call.suspect().cloned());
                let place = script.upcast.as_ref().map_or(&script.file, |upcast| &upcast.place);
                Err(failure::from_error(*error, place, script.options.timeout, suspect.as_ref()))
            }
        }
    }

    /// Runs `handle_event` for one event after the other. An event that is not handled ends the call before it, and comes
    /// first in the next call. The outcome of a call is therefore that of its first event. An event that the filter excludes
    /// once it is upcast counts as handled.
    fn handle_events(&mut self, work: &mut Work) -> Result<Decision, HandlerError> {
        self.begin(std::slice::from_mut(work), false);
        let span = current(|call| call.handle(0));
        let (mut ends, mut tag, mut unhandled) = (Ends::new(), None, None);
        while let Ok(Some(event)) = current(|call| call.event_of(span, ends.len() as i64)) {
            let result = self.upcast(event).and_then(|is_wanted| match is_wanted {
                true => self.run(|program| program.handle_event(span, event)),
                false => Ok(Dynamic::UNIT),
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
        let position = ends.len();
        let emitted = effects.len() - ends.last().map_or(0, |end| *end as usize);
        let decision = outcome.and_then(|verdict| decide_event(verdict, emitted));
        let index = index_at(&work.events, position);
        decision.map_err(|error| within(error, &self.script.file, &work.events[position]).at_index(index))
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

/// The events of a stream that remain for the handler once they are upcast.
#[derive(Clone, Copy)]
struct Offer {
    /// The filter excludes every event.
    is_empty: bool,
    /// The index of the event that ends the call, as its `upcast` failed.
    before: Option<i64>,
}

impl Offer {
    /// Limits a decision to the offered events.
    fn end(self, decision: Decision) -> Decision {
        match (decision.next, self.before) {
            (NextIndex::All, Some(next)) => Decision { next: NextIndex::Upto(next), ..decision },
            _ => decision,
        }
    }
}

const DONE: ScriptResult = ScriptResult::Done { tag: None };

/// Upcasts events without handling them: see [`Script::excluded`](super::Script::excluded).
pub(super) fn excluded(script: &Arc<Inner>, work: &mut Work) -> Result<Vec<(i64, String)>, HandlerError> {
    let mut handler = ScriptHandler { program: None, script: Arc::clone(script) };
    handler.make_ready()?;
    handler.begin(std::slice::from_mut(work), false);
    let span = current(|call| call.handle(0));
    let (mut position, mut excluded) = (0, Vec::new());
    let mut failed = None;
    while let (None, Ok(Some(event))) = (&failed, current(|call| call.event_of(span, position as i64))) {
        match handler.upcast(event) {
            Ok(true) => {}
            Ok(false) => {
                let event_type = current(|call| call.event_type(event)).unwrap_or_default();
                excluded.push((current(|call| call.index_at(span, position)), event_type.to_string()));
            }
            Err(error) => failed = Some(error.at_index(current(|call| call.index_at(span, position)))),
        }
        position += 1;
    }
    current(|call| call.end_single(work));
    failed.map_or(Ok(excluded), Err)
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
