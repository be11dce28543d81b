//! `e.data`, `e.meta` and `params`: maps whose fields are converted on first use.
//!
//! A [`Document`] looks like a map to a script. Reading a field finds it in place. Any other operation, such as setting
//! a field or calling a method of maps, first turns the variable into a real map of its own. Events and parameters
//! themselves never change.

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalContext, FnPtr, ImmutableString, Map};

use super::call::{Call, Failure, Handle, Part, current, misuse};
use super::methods;
use super::objects::EventsObject;

/// A map that is converted when needed.
#[derive(Clone)]
pub(super) enum Document {
    Event(Handle, Part),
    Params(Arc<Map>),
}

impl Document {
    pub(super) fn get(&self, name: &str) -> Result<Dynamic, Failure> {
        methods::note_property(true);
        self.field(name).map(Option::unwrap_or_default)
    }

    fn field(&self, name: &str) -> Result<Option<Dynamic>, Failure> {
        match self {
            Self::Event(event, part) => current(|call| call.field(*event, *part, name)),
            Self::Params(map) => Ok(map.get(name).cloned()),
        }
    }

    pub(super) fn whole(&self, call: &mut Call) -> Result<Dynamic, Failure> {
        match self {
            Self::Event(event, part) => call.whole(*event, *part),
            Self::Params(map) => Ok(Dynamic::from_map((**map).clone())),
        }
    }

    fn to_map(&self) -> Result<Map, Failure> {
        current(|call| self.whole(call)).map(Dynamic::cast)
    }
}

/// Registers the operations of documents. `properties` are the names that the script uses after a dot.
pub(super) fn register<'a>(engine: &mut Engine, properties: impl Iterator<Item = &'a ImmutableString>) {
    engine.register_type_with_name::<Document>("map");
    for name in properties {
        let property = name.clone();
        engine.register_get(name.as_str(), move |document: &mut Document| document.get(&property));
        let property = name.clone();
        let types = [std::any::TypeId::of::<Document>(), std::any::TypeId::of::<Dynamic>()];
        engine.register_raw_fn(format!("set${name}").as_str(), types, move |_, args| {
            let value = std::mem::take(args[1]);
            set(args[0], property.clone(), value)
        });
    }
    engine.register_indexer_get(|document: &mut Document, name: ImmutableString| document.get(&name));
    let types = [
        std::any::TypeId::of::<Document>(),
        std::any::TypeId::of::<ImmutableString>(),
        std::any::TypeId::of::<Dynamic>(),
    ];
    engine.register_raw_fn("index$set$", types, |_, args| {
        let (name, value) = (std::mem::take(args[1]).cast::<ImmutableString>(), std::mem::take(args[2]));
        set(args[0], name, value)
    });
    engine.register_fn("contains", |document: &mut Document, name: ImmutableString| {
        document.field(&name).map(|field| field.is_some())
    });
    for print in ["to_string", "print", "to_debug", "debug"] {
        engine.register_fn(print, |document: &mut Document| -> Result<ImmutableString, Failure> {
            Ok(Dynamic::from_map(document.to_map()?).to_string().into())
        });
    }
    stand_in_for_maps(engine);
}

/// Turns the variable into a map, and sets a field of it. A field that has the value already stays as it is: rhai sets a
/// field after each method call on its value, such as `e.data.items.len()`, and the owner of a document may refuse changes.
fn set(target: &mut Dynamic, name: ImmutableString, value: Dynamic) -> Result<(), Failure> {
    let mut map = {
        let document = target.read_lock::<Document>().ok_or_else(|| misuse("this map cannot be changed"))?;
        if document.field(&name)?.is_some_and(|field| is_same(&field, &value)) {
            return Ok(());
        }
        document.to_map()?
    };
    map.insert(name.as_str().into(), value);
    *target = Dynamic::from_map(map);
    Ok(())
}

/// Returns whether two values are the same value of JSON.
fn is_same(a: &Dynamic, b: &Dynamic) -> bool {
    if let (Ok(a), Ok(b)) = (a.as_map_ref(), b.as_map_ref()) {
        let mut pairs = a.iter().zip(b.iter());
        return a.len() == b.len() && pairs.all(|((a, x), (b, y))| a == b && is_same(x, y));
    }
    if let (Ok(a), Ok(b)) = (a.as_array_ref(), b.as_array_ref()) {
        return a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| is_same(a, b));
    }
    if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_immutable_string_ref()) {
        return *a == *b;
    }
    let numbers = || a.as_int().ok().is_some_and(|a| b.as_int() == Ok(a));
    let floats = || a.as_float().ok().is_some_and(|a| b.as_float().is_ok_and(|b| a.to_bits() == b.to_bits()));
    let bools = || a.as_bool().ok().is_some_and(|a| b.as_bool() == Ok(a));
    a.is_unit() && b.is_unit() || numbers() || floats() || bools()
}

/// Repeats a failed call with real maps and arrays in place of documents and lists of events.
#[expect(deprecated, reason = "rhai marks what may change in a later version so")]
fn stand_in_for_maps(engine: &mut Engine) {
    engine.on_missing_function(|name, args, is_method, mut context: EvalContext| {
        if let Some(result) = methods::take_result() {
            return Ok(Some(result));
        }
        let mut found = false;
        for arg in args.iter_mut() {
            if let Some(true_value) = true_value(arg)? {
                **arg = true_value;
                found = true;
            }
        }
        if !found {
            return Ok(None);
        }
        match context.call_fn_raw(name, is_method, is_method, args) {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(*error, rhai::EvalAltResult::ErrorFunctionNotFound(..)) => Ok(None),
            Err(error) => Err(error),
        }
    });
}

fn true_value(value: &Dynamic) -> Result<Option<Dynamic>, Failure> {
    if value.is::<FnPtr>() || !value.is_variant() {
        return Ok(None);
    }
    if let Some(document) = value.read_lock::<Document>() {
        return document.to_map().map(|map| Some(Dynamic::from_map(map)));
    }
    if let Some(events) = value.read_lock::<EventsObject>() {
        let handles = current(|call| events.handles(call))?;
        return Ok(Some(Dynamic::from_array(handles.into_iter().map(Dynamic::from).collect())));
    }
    Ok(None)
}
