//! The calls of the script.

use super::Plan;
use super::compare;
use super::plan::{self, Case, Stream};
use super::report::Tested;
use crate::connector::kind::DryRun;
use crate::handler::{BlockingHandler, Decision, Decisions, HandlerError, HandlerErrorKind, NextIndex};
use crate::script::{Entry, STACK_BYTES, Script};
use crate::work::Work;

/// Runs a pipeline's cases, on a thread as large as those that run scripts in a pipeline.
pub(super) fn run(plan: &Plan, filter: Option<&str>) -> Vec<Tested> {
    let wanted = |case: &&Case| filter.is_none_or(|text| case.name.contains(text) || plan.pipeline.contains(text));
    std::thread::scope(|scope| {
        let all = || {
            let sink = plan.sink.dry_run();
            plan.cases.iter().filter(wanted).map(|case| tested(plan, sink.as_deref(), case)).collect()
        };
        let thread = std::thread::Builder::new().name("tests".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn_scoped(scope, all).map(std::thread::ScopedJoinHandle::join);
        match spawned {
            Ok(Ok(tested)) => tested,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a thread for the tests can be started: {error}"),
        }
    })
}

fn tested(plan: &Plan, sink: Option<&dyn DryRun>, case: &Case) -> Tested {
    let script = plan.script.at(case.now);
    let mut results = call(&script, &case.streams);
    let mut excluded: Vec<_> = case.streams.iter().flat_map(|stream| stream.excluded.iter().cloned()).collect();
    if script.upcasts() {
        for (stream, result) in case.streams.iter().zip(&mut results) {
            let Some(work) = &stream.work else { continue };
            match script.excluded(&mut copy(work)) {
                Ok(events) => excluded.extend(events.iter().map(|(index, name)| plan::excluded_by_type(*index, name))),
                // The pipeline would handle the events before this one, and fail at the next call.
                Err(error) => *result = Some(Err(error)),
            }
        }
    }
    let several = case.streams.len() > 1;
    let differences = case.streams.iter().zip(&results).flat_map(|(stream, result)| {
        let of = if several { format!("of stream `{}`: ", stream.name) } else { String::new() };
        let mut differences = compare::differences(stream, result.as_ref());
        let emitted = result.as_ref().and_then(|result| result.as_ref().ok()).map(|decision| &decision.effects);
        let refused = emitted.zip(sink).and_then(|(effects, sink)| sink.check(&stream.name, effects).err());
        differences.extend(refused.map(|why| format!("the sink would refuse the emitted effects: {why}")));
        differences.into_iter().map(move |difference| format!("{of}{difference}"))
    });
    Tested {
        pipeline: plan.pipeline.clone(),
        name: case.name.clone(),
        file: case.file.clone(),
        line: case.location.line,
        column: case.location.column,
        excluded,
        differences: differences.collect(),
    }
}

/// Calls the script. `None`: no event of that stream is offered.
fn call(script: &Script, streams: &[Stream]) -> Vec<Option<Result<Decision, HandlerError>>> {
    let mut works: Vec<Work> = streams.iter().filter_map(|stream| stream.work.as_ref()).map(copy).collect();
    let mut handler = script.factory().make();
    let mut decisions = Decisions::new();
    if script.entry() == Entry::HandleEvent {
        decisions.extend(works.iter_mut().map(|work| call_by_event(&mut *handler, work)));
    } else if !works.is_empty() {
        handler.handle(&mut works, &mut decisions);
    }
    let mut decisions = decisions.into_iter();
    let silent = || Err(HandlerError::new(HandlerErrorKind::Permanent, "the script decided nothing"));
    let decision = |stream: &Stream| stream.work.as_ref().map(|_| decisions.next().unwrap_or_else(silent));
    streams.iter().map(decision).collect()
}

/// Calls the script as a pipeline would, until all events are handled, or the first event of a call is not. Returns the
/// outcome of the last call, with the effects of all calls.
fn call_by_event(handler: &mut dyn BlockingHandler, work: &mut Work) -> Result<Decision, HandlerError> {
    let mut effects = Vec::new();
    loop {
        let mut decisions = Decisions::new();
        handler.handle(std::slice::from_mut(work), &mut decisions);
        let decision = decisions.remove(0)?;
        effects.extend(decision.effects.iter().cloned());
        match decision.next {
            NextIndex::Upto(next) => work.events.retain(|event| event.is_unfold() || event.index() >= next),
            NextIndex::All | NextIndex::Defer(_) => return Ok(Decision { effects: effects.into(), ..decision }),
        }
    }
}

fn copy(work: &Work) -> Work {
    Work { events: work.events.clone(), trace: None, ..*work }
}
