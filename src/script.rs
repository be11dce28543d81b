//! Handlers written in rhai.
//!
//! ```rhai
//! fn handle_event(stream, event) {
//!     if event.type == "OrderPlaced" {
//!         emit(#{ sql: "INSERT INTO orders ...", params: [stream.id, event.data.total] });
//!     }
//! }
//! ```
//!
//! A script defines one entry function:
//!
//! | entry | called with |
//! |---|---|
//! | `fn handle_event(stream, event)` | one event after the other of a stream |
//! | `fn handle(stream, events)` | a stream and its next events, for decisions about several events |
//! | `fn handle_batch(spans)` | several streams, if `streams_per_call` is more than 1 |
//!
//! The effects reach the sink after the function has returned. An event or a call that fails has no effects.
//!
//! # Older forms of events
//!
//! A script, or a module that it imports, may define `fn upcast(event)`. It turns an event of an older form into the newest
//! one. Every function above then sees the newest form only.
//!
//! ```rhai
//! fn upcast(event) {
//!     if event.type != "OrderPlaced" { return event; }
//!     let data = event.data;
//!     data.total_cents = (data.total * 100.0).round().to_int();
//!     #{ type: "OrderPlacedV2", data: data }
//! }
//!
//! fn handle_event(stream, event) {
//!     emit(event.data.total_cents);
//! }
//! ```
//!
//! - It returns the event itself, or a map of `type`, `data` and `meta`. A missing field stays as it is. Any other result is
//!   a permanent error.
//! - It is called once per event and call, before the function above, and cannot emit. Its clock, operations and memory are
//!   those of the call.
//! - The filter by event type (`filter.events`, `filter.exclude_events`) applies to the newest type. An excluded event counts
//!   as handled.
//! - Index, stream, time, ids and `event.raw` stay as they were read, and so do idempotency keys and parked events.
//! - An event whose `upcast` fails ends the call before it, and comes first in the next call, which then fails with its error.
//!
//! # Results
//!
//! | result | `handle_event` | `handle` |
//! |---|---|---|
//! | nothing, `done()`, `done("tag")` | the event is handled | all events are handled |
//! | `upto(n)`, `upto(n, "tag")` | an error | the events before index `n` are handled; `n` may lie beyond the offered events |
//! | `defer("5s")`, `defer(5)` | the event is offered again in 5 s | the same events are offered again in 5 s |
//! | `malformed("why")`, `malformed("why", index)` | the event is malformed | an event is malformed |
//! | `throw "why"` | the event failed, and is retried with back-off | the call failed, and is retried with back-off |
//! | `throw #{ class, why, index, retry_after }` | the same with an error of class `transient`, `permanent`, `malformed`, `throttled` or `unavailable` | the same |
//! | any other value | a permanent error | a permanent error |
//!
//! Statistics count a call as `tag`. A result without progress (`defer`, `upto` the first event) must have no effects, as
//! each retry would repeat them (C13).
//!
//! **`handle_event`.** Each effect belongs to its event. Its idempotency key names that event, however the events are
//! distributed over calls (C24). The first event that is not handled ends the call: the events before it are handled, and
//! their effects are written. The next call begins with that event, and only then does its result count. A failure therefore
//! always names its event, and logs and metrics of its first run repeat. An unfold shares the fate of the event before it.
//!
//! **`handle`.** A `throw` with `index`, or `malformed` with an index, names the event at fault. Without one, the pipeline
//! searches for the event: it offers the events singly (C19).
//!
//! **`handle_batch`.** Each span has `.stream` and `.events`, and its own result: `span.emit(value)`, `.done("tag")`,
//! `.upto(n)`, `.defer("5s")`, `.malformed("why")`, `.fail("why")` (as `throw`). The last result counts; without one all events
//! are handled. A `throw` fails the whole call.
//!
//! # Names
//!
//! | name | members |
//! |---|---|
//! | `stream` | `.name` `.category` `.id` `.ids` (the parts of the id between `_`) |
//! | `events` | `for`, `[0]`, `[-1]`, `.len()`, and the other methods of arrays |
//! | `event` | `.index` `.type` `.timestamp` `.id` `.correlation` `.causation` `.is_unfold` `.data` `.meta` `.raw` `.stream`; an absent one is `()` |
//! | `emit(value)` | emits a value for the sink |
//! | `log` | `.debug` `.info` `.warn` `.error` |
//! | `metric` | `.inc(name)` `.inc(name, n)` |
//! | `time` | `.now()` and `.parse(text)`, with `.unix()` `.unix_ms()` `.seconds_since(time or text)` |
//! | `json` | `.parse(text)` `.text(value)` |
//! | `params` | the `params` of the handler, a map |
//! | `global::NAME` | reads a `const` of the script |
//! | `import "name" as m;` | imports `name.rhai` from the directory of the script; call `m::function(..)` |
//!
//! `event.data` and `event.meta` are JSON, parsed on first use, as maps whose fields are converted one by one. `event.raw` is
//! the unchanged body. Events never change: `let data = event.data; data.x = 1;` changes a copy.
//!
//! A number that neither an integer of 64 bits nor a float can represent is a string of its digits. Arithmetic with it is
//! an error. Emitted, it stays a string: a file or an HTTP body holds it in quotes. NaN and the infinities cannot be
//! emitted.
//!
//! Functions see no variables outside themselves, and a closure cannot call itself: write a function. In a script of several files they need distinct names, also distinct
//! from built-in functions, as rhai caches resolved names for all files together.
//!
//! # Limits
//!
//! **No files, no connections, no waiting.** A call is bounded in time (`timeout`) and by [`Limits`]. They hold for all events
//! of a call together. With `handle_event`, an event that exceeds one comes first in the next call.
//! - The clock is read every 32 operations. A single operation can take milliseconds, such as a search in a text of
//!   16 MiB or a method of an array of 100,000 items. A call can therefore exceed `timeout` by about a second.
//! - Variables are measured while the call runs, and the functions that build large values check the limits while they
//!   build. Some values are measured late: the copies that one built-in function holds, and nested values added by
//!   `push` (`methods`). A call can therefore exceed `memory_bytes` by some megabytes.
//! - A closure that captures the variable that holds it is a reference cycle, and rhai has no collector. The variables of
//!   the entry function's outermost block are emptied when it returns, which frees their cycles. The memory of such a
//!   cycle in an inner block or another function, up to `memory_bytes` per call, is not freed before the process ends.

mod api;
mod builtins;
mod call;
mod check;
mod convert;
mod document;
mod entry;
mod failure;
mod handler;
mod intern;
mod json;
mod memory;
mod methods;
mod metrics;
mod number;
mod objects;
mod problem;
mod program;
mod settings;
mod shortcuts;
mod sources;
#[cfg(test)]
mod tests;
mod upcast;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rhai::Map;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use self::entry::Entry;
pub use self::metrics::ScriptMetrics;
pub use self::problem::{Problem, ScriptError};
pub use self::settings::{Params, Settings};
pub use self::sources::read;

use self::api::Host;
use self::handler::Factory;
use self::program::Program;
use self::sources::Sources;
use self::upcast::Upcast;
use crate::config::filter::Filter;
use crate::handler::{BlockingHandlerFactory, HandlerError};
use crate::work::Work;

/// The stack size of threads that run scripts. It is enough for [`MAX_CALL_DEPTH`] in every build.
pub const STACK_BYTES: usize = 16 << 20;

/// The maximum of [`Limits::call_depth`]. The deepest calls in the deepest expressions fit the stack.
pub const MAX_CALL_DEPTH: usize = 64;
/// The maximum of [`Limits::expression_depth`].
pub const MAX_EXPRESSION_DEPTH: usize = 64;

/// The limits of one call of a script. A call that exceeds one fails with a permanent error.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ScriptLimits")]
pub struct Limits {
    /// Operations of a call. One turn of a small loop takes about ten.
    pub operations: u64,
    /// Bytes of all variables and of all values in them.
    pub memory_bytes: usize,
    /// The depth of nested function calls.
    pub call_depth: usize,
    /// The depth of nested expressions.
    pub expression_depth: usize,
    /// Bytes of one string. Top-level statements of a file get at most 4 MiB.
    pub string_bytes: usize,
    /// Items of an array, with those of the arrays in it.
    pub array_items: usize,
    /// Entries of a map, with those of the maps in it.
    pub map_entries: usize,
    /// Variables at one time.
    pub variables: usize,
    /// Functions of one file.
    pub functions: usize,
    /// Files that a script may import.
    pub modules: usize,
    /// Bytes of the effects of one call.
    pub emitted_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations: 10_000_000,
            memory_bytes: 256 << 20,
            call_depth: 32,
            expression_depth: 64,
            string_bytes: 16 << 20,
            array_items: 100_000,
            map_entries: 100_000,
            variables: 1_000,
            functions: 1_000,
            modules: 64,
            emitted_bytes: 64 << 20,
        }
    }
}

/// The settings of the pipeline that a script depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The number of streams per call. The script has `handle_batch` if it is more than 1.
    pub streams_per_call: usize,
    /// The time limit of one call.
    pub timeout: Duration,
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { streams_per_call: 1, timeout: Duration::from_secs(30), limits: Limits::default() }
    }
}

impl Options {
    fn is_batch(&self) -> bool {
        self.streams_per_call > 1
    }
}

/// A compiled script.
#[derive(Clone)]
pub struct Script(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    /// The name of the script's file in messages.
    file: String,
    sources: Sources,
    host: Host,
    options: Options,
    entry: Entry,
    upcast: Option<Upcast>,
    /// The filter by the types of upcast events.
    types: Option<Arc<Filter>>,
}

impl Script {
    /// Reads, parses and links the script at `path` and its imports, and runs its top-level statements once as a test.
    pub fn compile(
        path: &Path,
        params: &serde_json::Map<String, serde_json::Value>,
        options: Options,
    ) -> Result<Self, ScriptError> {
        let host = Host {
            params: Arc::new(params_map(params)),
            metrics: Arc::new(ScriptMetrics::default()),
            max_emitted_bytes: options.limits.emitted_bytes,
            now: None,
        };
        let engine = program::engine(&host, &options);
        let scope = program::host_scope(&host);
        let sources = Sources::load(path, &engine, &scope, options.limits.modules)?;
        let asts = sources.parse(&engine, &scope)?;
        let mut problems = check::clashes(&engine, &sources, &asts);
        let upcast = Upcast::find(&sources, &asts).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let entry = match Entry::find(&sources, &asts[0], options.is_batch()) {
            Ok(entry) if problems.is_empty() => entry,
            found => {
                problems.extend(found.err());
                return Err(ScriptError { problems });
            }
        };
        let file = sources.main().name.clone();
        let script = Self(Arc::new(Inner { file, sources, host, options, entry, upcast, types: None }));
        script.try_top_level()?;
        Ok(script)
    }

    /// Runs the top-level statements once, with the stack size of the threads that run them later.
    fn try_top_level(&self) -> Result<(), Problem> {
        let inner = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("compile-script".to_owned()).stack_size(STACK_BYTES);
        let Ok(thread) = thread.spawn(move || Program::build(&inner).map(drop)) else {
            return Err(Problem::of(&self.0.file, "cannot start a thread to run the top-level statements"));
        };
        thread.join().unwrap_or_else(|_| Err(Problem::of(&self.0.file, "the script engine failed")))
    }

    /// Returns the same script with a fixed result of `time.now()` (R78).
    pub fn at(&self, now: OffsetDateTime) -> Self {
        let host = Host { now: Some(now), ..self.0.host.clone() };
        Self(Arc::new(Inner { host, ..(*self.0).clone() }))
    }

    /// Returns the same script to be run apart from its pipeline: with counters of its own, and a fixed result of `time.now()`.
    pub(crate) fn apart(&self, now: OffsetDateTime) -> Self {
        let host = Host { now: Some(now), metrics: Arc::default(), ..self.0.host.clone() };
        Self(Arc::new(Inner { host, ..(*self.0).clone() }))
    }

    /// Divides a filter between this script and the reader. The script takes the filter by type if it upcasts, as only it
    /// then knows the types to judge.
    pub fn with_filter(&self, filter: &Arc<Filter>) -> (Self, Arc<Filter>) {
        if self.0.upcast.is_none() {
            return (self.clone(), Arc::clone(filter));
        }
        let inner = Inner { types: Some(Arc::clone(filter)), ..(*self.0).clone() };
        (Self(Arc::new(inner)), Arc::new(filter.without_types()))
    }

    /// Returns whether the script defines `upcast`.
    pub fn upcasts(&self) -> bool {
        self.0.upcast.is_some()
    }

    /// Upcasts events without handling them. Returns the index and the newest type of each event that the filter excludes.
    ///
    /// # Errors
    /// The error of the first event that fails.
    pub fn excluded(&self, work: &mut Work) -> Result<Vec<(i64, String)>, HandlerError> {
        handler::excluded(&self.0, work)
    }

    /// Returns the factory of the handlers, one per thread. The threads need [`STACK_BYTES`].
    pub fn factory(&self) -> Arc<dyn BlockingHandlerFactory> {
        Arc::new(Factory(Arc::clone(&self.0)))
    }

    /// Returns the calls that fail once they are reached, such as those of unknown functions. A call that might work is
    /// not reported.
    pub fn check(&self) -> Vec<Problem> {
        let Inner { sources, host, options, entry, .. } = &*self.0;
        let mut engine = program::engine(host, options);
        // The optimizer would remove unreachable code and replace names by values.
        engine.set_optimization_level(rhai::OptimizationLevel::None);
        match sources.parse(&engine, &program::host_scope(host)) {
            Ok(asts) => check::check(&engine, sources, &asts, *entry),
            Err(problem) => vec![problem],
        }
    }

    /// Returns the function that the pipeline calls.
    pub fn entry(&self) -> Entry {
        self.0.entry
    }

    /// Returns the files of the script, for a watcher of changes.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.sources.files.iter().map(|file| file.path.clone()).collect()
    }

    /// Returns the texts that the script compares values with, such as the types of events. They are found in the text of the
    /// script, not by its meaning: names in comments count, computed ones do not.
    pub fn compared_texts(&self) -> BTreeSet<String> {
        self.0.sources.files.iter().flat_map(|file| sources::compared_texts(&file.text)).collect()
    }

    /// Returns a hash of the texts of all files (R50), without parameters and options.
    pub fn hash(&self) -> u64 {
        self.0.sources.hash()
    }

    /// Returns the counters of the script, shared by all its threads.
    pub fn metrics(&self) -> Arc<ScriptMetrics> {
        Arc::clone(&self.0.host.metrics)
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("file", &self.0.file).finish_non_exhaustive()
    }
}

/// Converts the parameters. TOML or YAML has already converted their numbers.
fn params_map(params: &serde_json::Map<String, serde_json::Value>) -> Map {
    let text = serde_json::to_vec(params).expect("a tree of JSON values can be written as JSON");
    json::parse(&text).ok().and_then(rhai::Dynamic::try_cast::<Map>).unwrap_or_default()
}
