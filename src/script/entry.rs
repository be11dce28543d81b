//! The entry function of a script: the one that the pipeline calls.

use rhai::{AST, Position};

use super::check::{first_statement, own_functions};
use super::problem::Problem;
use super::sources::Sources;
use crate::config::document::closest;

/// The entry function of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `handle_event(stream, event)`, called with one event after the other.
    HandleEvent,
    /// `handle(stream, events)`, called with the next events of one stream.
    Handle,
    /// `handle_batch(spans)`, called with several streams and the next events of each.
    HandleBatch,
}

impl Entry {
    pub fn name(self) -> &'static str {
        match self {
            Self::HandleEvent => "handle_event",
            Self::Handle => "handle",
            Self::HandleBatch => "handle_batch",
        }
    }

    /// Returns the names of the parameters in documentation and messages. A script can use others.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::HandleEvent => &["stream", "event"],
            Self::Handle => &["stream", "events"],
            Self::HandleBatch => &["spans"],
        }
    }

    pub(super) fn arity(self) -> usize {
        self.parameters().len()
    }

    fn signature(self) -> String {
        format!("fn {}({})", self.name(), self.parameters().join(", "))
    }

    /// Returns the number of functions with the name and the number of parameters of this entry. Functions of that name
    /// can also belong to a type.
    fn count(self, ast: &AST) -> usize {
        own_functions(ast, self.name()).filter(|count| *count == self.arity()).count()
    }

    /// Finds the entry function of a script.
    ///
    /// # Errors
    /// There is none, there are several, or it has other parameters.
    pub(super) fn find(sources: &Sources, ast: &AST, is_batch: bool) -> Result<Self, Problem> {
        let wanted: &[Self] = if is_batch { &[Self::HandleBatch] } else { &[Self::HandleEvent, Self::Handle] };
        let found: Vec<_> = wanted.iter().filter(|entry| entry.count(ast) > 0).collect();
        let file = sources.main();
        match found[..] {
            [entry] if entry.count(ast) == 1 => Ok(*entry),
            [entry] => Err(Problem::of(&file.name, format!("`{}` is defined more than once", entry.signature()))),
            [a, b, ..] => {
                let later = [a, b].map(|entry| first_statement(ast, entry.name())).into_iter().max();
                let message = format!("the script has both `{}` and `{}`", a.name(), b.name());
                let help = "keep one: `handle_event` gets one event at a time, `handle` all the next ones".to_owned();
                let position = later.unwrap_or(Position::NONE);
                Err(Problem::at(&file.name, &file.text, position, message).help(Some(help)))
            }
            [] => Err(missing(sources, ast, wanted)),
        }
    }
}

/// Describes a script without an entry function. Points at the function that is probably meant.
fn missing(sources: &Sources, ast: &AST, wanted: &[Entry]) -> Problem {
    let file = sources.main();
    let at = |name: &str, message: String| Problem::at(&file.name, &file.text, first_statement(ast, name), message);
    for entry in wanted {
        if let Some(count) = own_functions(ast, entry.name()).next() {
            let plural = if count == 1 { "" } else { "s" };
            let (name, signature) = (entry.name(), entry.signature());
            return at(name, format!("`{name}` is called as `{signature}`; this one has {count} parameter{plural}"));
        }
    }
    let signatures: Vec<_> = wanted.iter().map(|entry| format!("`{}`", entry.signature())).collect();
    let message = match &signatures[..] {
        [a, b] => format!("the script has neither {a} nor {b}"),
        _ => format!("the script has no {}", signatures.join(" or ")),
    };
    let all = [Entry::HandleEvent, Entry::Handle, Entry::HandleBatch];
    if let Some(other) = all.into_iter().find(|entry| own_functions(ast, entry.name()).next().is_some()) {
        let number = if other == Entry::HandleBatch { "` over 1" } else { " = 1`" };
        return at(other.name(), message).help(Some(format!("`{}` is for `streams_per_call{number}", other.name())));
    }
    let names: Vec<_> = wanted.iter().map(|entry| entry.name()).collect();
    let near = ast.iter_functions().find_map(|own| Some((own.name, closest(own.name, &names)?)));
    match near {
        Some((own, name)) => at(own, message).help(Some(format!("rename `{own}` to `{name}`"))),
        None => {
            let help = format!("write `{} {{ … }}`: it is called with the events", wanted[0].signature());
            Problem::of(&file.name, message).help(Some(help))
        }
    }
}
