//! The scripts that pipelines name.

use super::Loaded;
use crate::config::document::{Place, Problem};
use crate::script::{self, Script};

/// Returns what is wrong with a pipeline's script.
pub fn check_script(loaded: &Loaded) -> Vec<Problem> {
    // What is no file has been reported where it is named, and so has what is not named.
    if loaded.spec.script().is_some_and(|script| !loaded.folder().join(&**script).is_file()) {
        return Vec::new();
    }
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
    // Its top-level statements run, for which this thread's stack may be too small.
    let compiled = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("compile".to_owned()).stack_size(script::STACK_BYTES);
        let compile = || Script::compile(&path, &settings.params, options);
        thread.spawn_scoped(scope, compile).map(std::thread::ScopedJoinHandle::join)
    });
    let script = match compiled {
        Ok(Ok(script)) => script,
        Ok(Err(_)) => return Err(vec![Problem::new(&path, "the compiler panicked; this is a defect of propulsiond")]),
        Err(error) => return Err(vec![Problem::new(&path, format!("no thread can be started: {error}"))]),
    };
    script.map(Some).map_err(|error| error.problems.iter().map(|problem| show(loaded, problem)).collect())
}

/// Shows what is wrong with a script as what is wrong with a file.
fn show(loaded: &Loaded, problem: &script::Problem) -> Problem {
    let script =
        loaded.spec.script().map_or_else(|| loaded.folder().to_owned(), |script| loaded.folder().join(&**script));
    let file = script.with_file_name(&problem.file);
    let shown = Problem { help: problem.help.clone(), ..Problem::new(&file, problem.message.clone()) };
    match script::read(&file) {
        Ok(text) if problem.line > 0 => shown.at(Place::at(&text, problem.line, problem.column.max(1))),
        _ => shown,
    }
}
