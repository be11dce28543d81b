//! The scripts that pipelines name.

use super::Loaded;
use crate::document::{Place, Problem};
use crate::script::{self, Script};

/// Returns what is wrong with a pipeline's script.
pub fn check_script(loaded: &Loaded) -> Vec<Problem> {
    match compile_script(loaded) {
        Ok(Some(script)) => script.check().into_iter().map(|problem| show(loaded, &problem)).collect(),
        Ok(None) => Vec::new(),
        Err(problems) => problems,
    }
}

/// Compiles a pipeline's script, if it has one, with the parameters and limits that its file gives it.
///
/// # Errors
/// Why it cannot be used, each with its place in the script.
pub fn compile_script(loaded: &Loaded) -> Result<Option<Script>, Vec<Problem>> {
    let Some(settings) = &loaded.spec.handler.rhai else { return Ok(None) };
    let options = script::Options {
        streams_per_call: loaded.spec.schedule.streams_per_call.get(),
        timeout: settings.timeout,
        limits: settings.limits.clone(),
    };
    let path = loaded.folder().join(&*settings.script);
    let script = Script::compile(&path, &settings.params, options);
    script.map(Some).map_err(|error| error.problems.iter().map(|problem| show(loaded, problem)).collect())
}

/// Shows what is wrong with a script as what is wrong with a file.
fn show(loaded: &Loaded, problem: &script::Problem) -> Problem {
    let file = loaded.folder().join(&problem.file);
    let shown = Problem::new(&file, problem.message.clone());
    match std::fs::read_to_string(&file) {
        Ok(text) if problem.line > 0 => shown.at(Place::at(&text, problem.line, problem.column.max(1))),
        _ => shown,
    }
}
