//! Handler tests: the cases that stand beside a pipeline, in `NAME.test.toml` or `NAME.test.yaml`.
//!
//! A case gives the events of a stream that the script is called with, and the expected result. The script is the
//! pipeline's own, with its parameters, limits and mode, behind the pipeline's filter. No source, store, sink or network is
//! touched, and variables that only those need may be missing.
//!
//! ```toml
//! [[test]]
//! name = "a placed order gets a row"
//! stream = "order-1001"
//! events = [
//!     { type = "OrderPlaced", data = { customer = "Ada", total_cents = 1250 } },
//! ]
//! emits = [
//!     { sql = "INSERT INTO orders VALUES (?1, ?2, ?3)", params = ["1001", "Ada", 1250] },
//! ]
//! ```
//!
//! | key of a test | meaning |
//! |---|---|
//! | `name` | the expectation in words; unique in its file |
//! | `now` | the result of `time.now()`, RFC 3339; `2026-01-01T00:00:00Z` if left out: time stands still |
//! | `stream` | the stream's name |
//! | `first_index` | the index of the first event; 0 if left out |
//! | `events` | the events of the call; see below |
//! | `record` `records` | in place of `events`: raw text, or a list of such, which the source's `map` reads as it reads a file. `stream` then chooses a stream, and can be left out if there is only one |
//! | `emits` | exactly the emitted effects, in this order; none if left out |
//! | `emits_some` | in place of `emits`: some of the emitted effects, in this order; a table gives some of its keys |
//! | `returns` | `"all"` (if left out), `{ upto = 3 }` (also with `tag`), `{ defer = "5s" }`, `{ done = "tag" }`, `{ malformed = "why" }` |
//! | `fails` | in place of `returns`: `{ class = "permanent", why = "text of the message", index = 2 }`, any of them |
//! | `streams` | where a pipeline has `streams_per_call` over 1: a list of tables, each with the keys of one stream above |
//!
//! | key of an event | meaning |
//! |---|---|
//! | `type` | its type |
//! | `index` | one more than that of the event before if left out |
//! | `data` `meta` | any value, as JSON; nothing if left out |
//! | `raw` | in place of `data`: a body as it is, also one that is not JSON |
//! | `timestamp` `id` `correlation` `causation` | text |
//! | `unfold` | `true`: a snapshot, which comes after the events and takes no index |
//!
//! A record that does not fit the `map` is an error of the test file. A record that `when` or the filter excludes gives no
//! event, so a test without `emits` passes; the output notes that.
//!
//! A script with `upcast` gets the events as they are written here, and its handler their newest form. The filter by type
//! applies to the newest type. A test whose event fails in `upcast` has that failure as its result.
//!
//! With `handle_event` the result is that of the first event that is not handled, and the effects are those of the events
//! before it.
//!
//! The effects must suit the pipeline's sink, too: the sink rehearses their writes without touching anything outside. SQL
//! statements, for example, are compiled against the tables that the sink's `init` makes.
//!
//! Values are compared as JSON: `1` is not `1.0`. `{ "$json" = "null" }` stands for the value of its text: TOML has
//! no null, and no numbers beyond 64 bits.

mod compare;
mod file;
mod find;
mod plan;
mod report;
mod run;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::document::Problem;
use crate::config::scalar::allowing_missing;
use crate::connector::{Chosen, SinkKind};
use crate::spec::{self, Definition};

pub(crate) use file::TestFile;
pub use find::is_test;
pub use report::{Report, Tested};

use find::Found;

/// Runs the tests of the pipelines at `paths`, files or directories; with `filter`, those with that text in their name or
/// their pipeline's.
///
/// # Errors
/// All problems of the files. Then no test is run.
pub fn run(paths: &[PathBuf], filter: Option<&str>) -> Result<Report, Vec<Problem>> {
    let mut report = Report::default();
    let mut problems = Vec::new();
    let mut planned = Vec::new();
    for found in find::find(paths)? {
        match plan(&found) {
            Ok(Some(plan)) => planned.push(plan),
            Ok(None) => report.untested.push(found.name()),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for plan in planned {
        report.tests.extend(run::run(&plan, filter));
    }
    Ok(report)
}

/// Returns the number of the test files of the pipelines at `paths`, and their problems. Runs none of them.
pub fn check(paths: &[PathBuf]) -> (usize, Vec<Problem>) {
    let found = match find::find(paths) {
        Ok(found) => found,
        Err(problems) => return (0, problems),
    };
    let tests: BTreeSet<_> = found.iter().filter_map(|found| found.tests.as_ref()).collect();
    (tests.len(), found.iter().flat_map(|found| plan_without_script(found).err().unwrap_or_default()).collect())
}

/// A pipeline's cases, and the script that they are about.
struct Plan {
    pipeline: String,
    script: crate::script::Script,
    sink: Chosen<dyn SinkKind>,
    cases: Vec<plan::Case>,
}

fn plan(found: &Found) -> Result<Option<Plan>, Vec<Problem>> {
    let Some((mut definition, mut cases)) = plan_without_script(found)? else { return Ok(None) };
    let unknown = plan::unknown_parameters(&definition.loaded);
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let (Some(mut script), _advice) = spec::compile_script(&definition.loaded)? else { return Ok(None) };
    if let (true, Some(tests)) = (script.upcasts(), &found.tests) {
        // The script takes the filter by type, so that the cases keep the events that only it can judge.
        (script, definition.filter) = script.with_filter(&definition.filter);
        cases = plan::cases(tests, &definition)?;
    }
    let Definition { loaded, sink, .. } = definition;
    Ok(Some(Plan { pipeline: loaded.name, script, sink, cases }))
}

/// Reads the pipeline and its cases. Missing variables leave holes.
fn plan_without_script(found: &Found) -> Result<Option<(Definition, Vec<plan::Case>)>, Vec<Problem>> {
    let Some(tests) = &found.tests else { return Ok(None) };
    let definition = spec::define(allowing_missing(|| spec::load_file(&found.pipeline))?)?;
    let loaded = &definition.loaded;
    if loaded.spec.handler.rhai.is_none() {
        return Err(vec![Problem::new(
            tests,
            format!("the pipeline `{}` has no script that could be tested", loaded.name),
        )]);
    }
    // Raw records need the mapping. Its mistakes are reported once, as `check` reports them.
    let mut bad = definition.source.check();
    bad.retain(|bad| bad.path.first().is_some_and(|key| key == "map"));
    if !bad.is_empty() {
        let of_file = |bad| spec::bad_setting(loaded, "source", definition.source.key, bad);
        return Err(bad.into_iter().map(of_file).collect());
    }
    let cases = plan::cases(tests, &definition)?;
    Ok(Some((definition, cases)))
}

#[cfg(test)]
mod tests;
