//! Tests of scripts by the decisions of a call.

mod api;
mod batch;
mod checks;
mod contract;
mod events;
mod limits;
mod modules;
mod shortcuts;
mod upcast;
mod values;

use std::fmt::Write as _;

use expect_test::Expect;
use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;
use crate::event::{Assembler, Event, Kind, Text};
use crate::handler::{BlockingHandler, Decision, Decisions, HandlerError, NextIndex};
use crate::position::Ordinal;
use crate::work::{Work, WorkId, WorkKind};

/// Runs the body of `handle` over three events, and compares the decision.
fn check(body: &str, expected: Expect) {
    check_script(&format!("fn handle(stream, events) {{\n{body}\n}}"), &[order()], expected);
}

fn check_script(source: &str, streams: &[Work], expected: Expect) {
    let script = compile(&[("main.rhai", source)], Options::default()).unwrap();
    expected.assert_eq(&run(&script, streams));
}

/// Writes the files into a directory, and compiles the first.
fn compile(files: &[(&str, &str)], options: Options) -> Result<Script, ScriptError> {
    compile_in(&directory(files), files[0].0, options)
}

fn compile_in(directory: &TempDir, name: &str, options: Options) -> Result<Script, ScriptError> {
    let params = serde_json::json!({ "vat": 0.2, "name": "shop", "nested": { "deep": [1, 2] } });
    Script::compile(&directory.path().join(name), params.as_object().unwrap(), options)
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::create_dir_all(directory.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn run(script: &Script, streams: &[Work]) -> String {
    show(&call(&mut *script.factory().make(), streams))
}

fn call(handler: &mut dyn BlockingHandler, streams: &[Work]) -> Decisions {
    let mut decisions = Decisions::new();
    let mut taken: Vec<_> =
        streams.iter().map(|work| Work { events: work.events.clone(), trace: None, ..*work }).collect();
    handler.handle(&mut taken, &mut decisions);
    assert_eq!(decisions.len(), streams.len());
    assert_eq!(format!("{taken:?}"), format!("{streams:?}"), "the work is unchanged");
    decisions
}

fn show(decisions: &Decisions) -> String {
    decisions.iter().map(|decision| format!("{}\n", decision.as_ref().map_or_else(show_error, show_decision))).collect()
}

fn show_decision(decision: &Decision) -> String {
    let mut shown = match decision.next {
        NextIndex::All => "all".to_owned(),
        NextIndex::Upto(next) => format!("upto {next}"),
        NextIndex::Defer(delay) => format!("defer {delay:?}"),
    };
    if let Some(tag) = &decision.tag {
        write!(shown, " #{tag}").unwrap();
    }
    for effect in &decision.effects {
        write!(shown, "\n  {}", serde_json::to_string(effect).unwrap()).unwrap();
    }
    shown
}

fn show_error(error: &HandlerError) -> String {
    let mut shown = format!("{:?}", error.kind());
    if let Some(index) = error.index() {
        write!(shown, " at {index}").unwrap();
    }
    if let Some(delay) = error.delay() {
        write!(shown, " retry after {delay:?}").unwrap();
    }
    format!("{shown}\n  {}", error.message())
}

/// Three events of `order-1_a`, indexes 5 to 7.
fn order() -> Work {
    work(&[
        event("order-1_a", 5, "OrderPlaced", r#"{"total":12.5,"items":[{"sku":"A"}],"by":{"name":"Ada"}}"#),
        event("order-1_a", 6, "OrderViewed", "{}"),
        event("order-1_a", 7, "OrderPlaced", r#"{"total":3}"#),
    ])
}

fn single(data: &str) -> Work {
    work(&[event("order-1", 0, "OrderPlaced", data)])
}

fn event(stream: &str, index: i64, name: &str, data: &str) -> Event {
    Assembler::new(stream, name)
        .data(data.as_bytes())
        .text(Text::Id, &format!("id-{index}"))
        .text(Text::Timestamp, "2026-11-24T10:00:00Z")
        .build(Kind::Event, Ordinal::new(index as u64, 0), index)
        .unwrap()
}

fn work(events: &[Event]) -> Work {
    Work {
        id: WorkId { slot: 0, generation: 0 },
        kind: WorkKind::Handle,
        events: events.to_vec(),
        next: events.last().unwrap().next_index(),
        failures: 0,
        read_at: Timestamp::ZERO,
        late: false,
        trace: None,
    }
}

/// A script whose calls all run in the same handler.
fn handler(source: &str) -> Box<dyn BlockingHandler> {
    compile(&[("main.rhai", source)], Options::default()).unwrap().factory().make()
}
