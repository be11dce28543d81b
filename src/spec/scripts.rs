//! The scripts that pipelines name.

use super::Loaded;
use crate::config::document::{Location, Problem};
use crate::script::{self, Script};

/// Compiles a pipeline's script, if it has one, with the parameters and limits that its file gives it. Returns it with
/// everything else that is wrong with it.
///
/// # Errors
/// The script cannot be compiled. Each error names its location in the script. A script that is no file gives none: the check
/// of the pipeline's file reports it.
pub fn compile_script(loaded: &Loaded) -> Result<(Option<Script>, Vec<Problem>), Vec<Problem>> {
    let Some(settings) = &loaded.spec.handler.rhai else { return Ok((None, Vec::new())) };
    let path = loaded.directory().join(&*settings.script);
    if !path.is_file() {
        return Err(Vec::new());
    }
    let options = script::Options {
        streams_per_call: loaded.spec.schedule.streams_per_call.get(),
        timeout: settings.timeout,
        limits: settings.limits.clone(),
    };
    // The top-level statements of a script run, for which the stack of this thread may be too small.
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
    let script = script.map_err(|error| shown(loaded, &error.problems))?;
    let problems = shown(loaded, &script.check());
    Ok((Some(script), problems))
}

/// Returns the problems of a script as problems of its files.
fn shown(loaded: &Loaded, problems: &[script::Problem]) -> Vec<Problem> {
    let script =
        loaded.spec.script().map_or_else(|| loaded.directory().to_owned(), |script| loaded.directory().join(&**script));
    let show = |problem: &script::Problem| {
        let file = script.with_file_name(&problem.file);
        let shown = Problem { help: problem.help.clone(), ..Problem::new(&file, problem.message.clone()) };
        match script::read(&file) {
            Ok(text) if problem.line > 0 => shown.at(Location::at(&text, problem.line, problem.column.max(1))),
            _ => shown,
        }
    };
    problems.iter().map(show).collect()
}
