//! Handlers written in rhai.
//!
//! ```rhai
//! fn handle(stream, events) {
//!     for e in events {
//!         if e.type == "OrderPlaced" {
//!             emit(#{ sql: "INSERT INTO orders ...", params: [stream.id, e.data.total] });
//!         }
//!     }
//! }
//! ```
//!
//! `handle` is called with one stream and the next of its events. What it emits reaches the sink when it returns, and
//! only then: nothing of a call that fails leaves it.
//!
//! | it ends with | meaning |
//! |---|---|
//! | nothing, `done()`, `done("tag")` | all handled; statistics count the call as `tag` |
//! | `upto(n)`, `upto(n, "tag")` | handled up to index `n`, which comes next: inside of what was offered, or beyond |
//! | `defer("5s")`, `defer(5)` | no progress: the same again in 5 s |
//! | `malformed("why")`, `malformed("why", e.index)` | an event is not what it should be |
//! | `throw "why"` | failed: tried again with back-off |
//! | `throw #{ class, why, index, retry_after }` | failed, of class `transient`, `permanent`, `malformed`, `throttled` or `unavailable` |
//! | any other value | a permanent error |
//!
//! Nothing, or no progress (`defer`, `upto` the first event), goes with no effects: they would be written again and
//! again (C13). `malformed` without an index leaves it to the pipeline to find out which event it is (C19).
//!
//! | there is | with |
//! |---|---|
//! | `stream` | `.name` `.category` `.id` `.ids` (the id's parts between `_`) |
//! | `events` | `for`, `[0]`, `[-1]`, `.len()`, and what arrays can do |
//! | `e` | `.index` `.type` `.timestamp` `.id` `.correlation` `.causation` `.is_unfold` `.data` `.meta` `.raw` `.stream`; what it has not is `()` |
//! | `emit(value)` | a value for the sink |
//! | `log` | `.debug` `.info` `.warn` `.error` |
//! | `metric` | `.inc(name)` `.inc(name, n)` |
//! | `time` | `.now()` and `.parse(text)`, with `.unix()` `.unix_ms()` `.seconds_since(time or text)` |
//! | `json` | `.parse(text)` `.text(value)` |
//! | `params` | the handler's `params`, a map |
//! | `global::NAME` | a `const` of the script |
//! | `import "name" as m;` | `name.rhai` beside the script, as `m::function(..)` |
//!
//! `e.data` and `e.meta` are JSON, read when first touched, as maps whose fields are converted one by one. A number
//! that neither an integer of 64 bits nor a float can give back is a string of its digits. `e.raw` is the body
//! as it is. Events never change: `let data = e.data; data.x = 1;` changes a copy.
//!
//! With `streams_per_call` over 1 it is `fn handle_batch(spans)` instead, once for all streams. Each span has `.stream`
//! and `.events`, and is decided for itself: `span.emit(value)`, `.done("tag")`, `.upto(n)`, `.defer("5s")`,
//! `.malformed("why")`, `.fail("why")` (as `throw`). What is said last counts; nothing said is all handled. A `throw`
//! fails the whole call.
//!
//! Functions see no variables outside of themselves. Those of a script of several files need names of their own, also
//! other than those of built-in functions, as rhai remembers what a name leads to for all files at once.
//!
//! A script reads no files, opens no connections and cannot wait. It is bounded in time (`timeout`) and by [`Limits`].

mod api;
mod builtins;
mod call;
mod check;
mod convert;
mod document;
mod failure;
mod handler;
mod intern;
mod json;
mod memory;
mod metrics;
mod number;
mod objects;
mod problem;
mod program;
mod quick;
mod settings;
mod sources;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rhai::Map;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use self::metrics::ScriptMetrics;
pub use self::problem::{Problem, ScriptError};
pub use self::settings::{Params, Settings};
pub use self::sources::read;

use self::api::Host;
use self::handler::Factory;
use self::program::Program;
use self::sources::Sources;
use crate::handler::BlockingHandlerFactory;

/// How large a stack a thread that runs scripts needs for [`MAX_CALL_DEPTH`] in every build.
pub const STACK_BYTES: usize = 16 << 20;

/// The most that [`Limits::call_depth`] may be, and [`Limits::expression_depth`]: calls of that depth in expressions of
/// that depth fit the stack.
pub const MAX_CALL_DEPTH: usize = 64;
pub const MAX_EXPRESSION_DEPTH: usize = 64;

/// What one call of a script may use. More is a permanent error of the call.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ScriptLimits")]
pub struct Limits {
    /// Steps of a call; a turn of a small loop takes about ten.
    pub operations: u64,
    /// Bytes of all variables and everything that they hold.
    pub memory_bytes: usize,
    /// How deep functions may call each other.
    pub call_depth: usize,
    /// How deep expressions may be nested.
    pub expression_depth: usize,
    /// Of one string; at the top level of a file no more than 4 MiB.
    pub string_bytes: usize,
    /// Items of an array and all within it.
    pub array_items: usize,
    /// Entries of a map and all within it.
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

/// What of the pipeline a script depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// More than one: the script has `handle_batch`.
    pub streams_per_call: usize,
    /// How long one call may take.
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

struct Inner {
    /// The script's own file, as messages name it.
    file: String,
    sources: Sources,
    host: Host,
    options: Options,
}

impl Inner {
    fn program(&self) -> Result<Program, Problem> {
        Program::build(&self.sources, &self.host, &self.options)
    }
}

impl Script {
    /// Reads, parses and links the script at `path` and what it imports, and runs its top-level statements once to
    /// see that they work.
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
        problems.extend(check::entry(&sources, &asts[0], options.is_batch()));
        if !problems.is_empty() {
            return Err(ScriptError { problems });
        }
        let script = Self(Arc::new(Inner { file: sources.main().name.clone(), sources, host, options }));
        script.try_top_level()?;
        Ok(script)
    }

    /// Runs the top-level statements once, on a stack as large as that of the threads that run them later.
    fn try_top_level(&self) -> Result<(), Problem> {
        let inner = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("compile-script".to_owned()).stack_size(STACK_BYTES);
        let Ok(thread) = thread.spawn(move || inner.program().map(drop)) else {
            return Err(Problem::of(&self.0.file, "no thread can be started to try the top-level statements"));
        };
        thread.join().unwrap_or_else(|_| Err(Problem::of(&self.0.file, "the script engine failed")))
    }

    /// Returns the same script for which time stands still: `time.now()` says `now` (R78).
    pub fn at(&self, now: OffsetDateTime) -> Self {
        let Inner { file, sources, host, options } = &*self.0;
        let host = Host { now: Some(now), ..host.clone() };
        Self(Arc::new(Inner { file: file.clone(), sources: sources.clone(), host, options: options.clone() }))
    }

    /// Returns what makes a handler for each thread. The threads need [`STACK_BYTES`].
    pub fn factory(&self) -> Arc<dyn BlockingHandlerFactory> {
        Arc::new(Factory(Arc::clone(&self.0)))
    }

    /// Returns what will fail once it is reached, such as calls of functions that do not exist. Nothing that might
    /// work is in it.
    pub fn check(&self) -> Vec<Problem> {
        let Inner { sources, host, options, .. } = &*self.0;
        let mut engine = program::engine(host, options);
        // The optimizer would take away what it can prove never to run, and put values for names.
        engine.set_optimization_level(rhai::OptimizationLevel::None);
        match sources.parse(&engine, &program::host_scope(host)) {
            Ok(asts) => check::check(&engine, sources, &asts, options.is_batch()),
            Err(problem) => vec![problem],
        }
    }

    /// Returns the files that the script consists of: what to watch for changes.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.sources.files.iter().map(|file| file.path.clone()).collect()
    }

    /// Returns a hash of the texts of all files (R50). Parameters and options are not in it.
    pub fn hash(&self) -> u64 {
        self.0.sources.hash()
    }

    /// Returns the counters that the script keeps, for all its threads.
    pub fn metrics(&self) -> Arc<ScriptMetrics> {
        Arc::clone(&self.0.host.metrics)
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("file", &self.0.file).finish_non_exhaustive()
    }
}

/// Converts the parameters, which were read from a file: numbers are what TOML or YAML made of them.
fn params_map(params: &serde_json::Map<String, serde_json::Value>) -> Map {
    let text = serde_json::to_vec(params).expect("a tree of JSON values can be written as JSON");
    json::parse(&text).ok().and_then(rhai::Dynamic::try_cast::<Map>).unwrap_or_default()
}
