//! `upcast`, the function of a script that turns events of older forms into the newest one.
//!
//! The handler and the filter by event type see the newest form. Everything else of the daemon sees the event as it was read.

use rhai::{AST, Array, Dynamic, FnAccess, ImmutableString, Map, ScriptFnMetadata};

use super::call::{Call, Failure, Handle, Part, misuse};
use super::check::first_statement;
use super::convert;
use super::document::Document;
use super::failure::place;
use super::json;
use super::objects::{EventObject, TimeObject};
use super::problem::Problem;
use super::sources::Sources;

/// The name of the function.
pub(super) const NAME: &str = "upcast";

/// The `upcast` function of a script.
#[derive(Clone, Debug)]
pub(super) struct Upcast {
    /// The number of its file.
    pub(super) file: usize,
    /// Its location in messages.
    pub(super) place: String,
}

impl Upcast {
    /// Finds the function in the script or in one of its modules. Two files cannot both define it, as functions of several
    /// files need distinct names. With other parameters beside it, or as a method of a type, the name is the script's own.
    ///
    /// # Errors
    /// The function is private to its module, or only has other parameters.
    pub(super) fn find(sources: &Sources, asts: &[AST]) -> Result<Option<Self>, Problem> {
        let problem = |file: usize, message: String| {
            let (source, position) = (&sources.files[file], first_statement(&asts[file], NAME));
            Problem::at(&source.name, &source.text, position, message)
        };
        let mut other = None;
        for (file, ast) in asts.iter().enumerate() {
            let is_it = |function: &ScriptFnMetadata<'_>| function.name == NAME && function.this_type.is_none();
            for function in ast.iter_functions().filter(is_it) {
                match (function.params.len(), function.access) {
                    (1, FnAccess::Private) if file > 0 => {
                        let help = "remove `private`, or rename the function".to_owned();
                        return Err(problem(file, "`upcast` is private to its module".to_owned()).help(Some(help)));
                    }
                    (1, _) => {
                        let place = place(&sources.files[file].name, first_statement(ast, NAME));
                        return Ok(Some(Self { file, place }));
                    }
                    (count, _) => other = other.or(Some((file, count))),
                }
            }
        }
        let Some((file, count)) = other else { return Ok(None) };
        Err(problem(file, format!("`upcast` is called as `fn upcast(event)`; this one has {count} parameters")))
    }
}

/// The fields of an event that `upcast` changed.
#[derive(Default)]
pub(super) struct Newest {
    pub(super) event_type: Option<ImmutableString>,
    pub(super) data: Option<Dynamic>,
    pub(super) meta: Option<Dynamic>,
    /// The bytes of the changed fields.
    pub(super) bytes: usize,
}

impl Newest {
    /// Reads the value that `upcast` returned for an event.
    pub(super) fn read(call: &mut Call, event: Handle, returned: Dynamic) -> Result<Self, Failure> {
        let mut newest = Self::default();
        if returned.read_lock::<EventObject>().is_some_and(|object| object.0 == event) {
            return Ok(newest);
        }
        let map = returned.try_cast_result::<Map>().map_err(|value| {
            let kind = convert::kind(&value);
            misuse(format!("`upcast` returned {kind}: return the event, or a map of `type`, `data` and `meta`"))
        })?;
        for (key, value) in map {
            match key.as_str() {
                "type" => newest.event_type = Some(type_name(&value)?),
                "data" => newest.data = newest.document(call, (event, Part::Data), value)?,
                "meta" => newest.meta = newest.document(call, (event, Part::Meta), value)?,
                _ => {
                    let message =
                        format!("`upcast` returned the unknown key `{key}`, expected `type`, `data` or `meta`");
                    return Err(misuse(message));
                }
            }
        }
        Ok(newest)
    }

    /// Returns the new value of a document, or `None` if it is unchanged.
    fn document(&mut self, call: &mut Call, of: (Handle, Part), value: Dynamic) -> Result<Option<Dynamic>, Failure> {
        let is_same = |document: &Document| matches!(document, Document::Event(event, part) if (*event, *part) == of);
        if value.read_lock::<Document>().is_some_and(|document| is_same(&document)) {
            return Ok(None);
        }
        self.plain(call, value, 0).map(Some)
    }

    /// Converts a value to one that does not depend on the event, and counts its bytes.
    fn plain(&mut self, call: &mut Call, value: Dynamic, depth: usize) -> Result<Dynamic, Failure> {
        if depth > json::MAX_DEPTH {
            return Err(misuse(format!("`upcast` returned a value nested more than {} levels deep", json::MAX_DEPTH)));
        }
        self.bytes += size_of::<Dynamic>();
        let value = value.flatten();
        if value.is_map() {
            let mut map = value.cast::<Map>();
            for (key, value) in &mut map {
                self.bytes += key.len();
                *value = self.plain(call, std::mem::take(value), depth + 1)?;
            }
            return Ok(Dynamic::from_map(map));
        }
        if value.is_array() {
            let items = value.cast::<Array>().into_iter().map(|item| self.plain(call, item, depth + 1));
            return items.collect::<Result<_, _>>().map(Dynamic::from_array);
        }
        if let Some(document) = value.read_lock::<Document>() {
            let whole = document.whole(call)?;
            return self.plain(call, whole, depth);
        }
        if let Some(time) = value.read_lock::<TimeObject>() {
            return Ok(time.to_string().into());
        }
        if let Ok(text) = value.as_immutable_string_ref() {
            self.bytes += text.len();
        } else if let Ok(blob) = value.as_blob_ref() {
            self.bytes += blob.len();
        } else if value.is_variant() || value.is_fnptr() || value.is_timestamp() {
            return Err(misuse(format!("`upcast` returned {} within `data` or `meta`", convert::kind(&value))));
        }
        Ok(value)
    }
}

fn type_name(value: &Dynamic) -> Result<ImmutableString, Failure> {
    match value.as_immutable_string_ref() {
        Ok(name) if !name.is_empty() => Ok(name.clone()),
        Ok(_) => Err(misuse("`upcast` returned an empty `type`")),
        Err(_) => Err(misuse(format!("the `type` that `upcast` returns is a string, not {}", convert::kind(value)))),
    }
}
