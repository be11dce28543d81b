//! Methods of arrays and maps that take constant time.
//!
//! After a successful method call rhai measures the whole value, which makes a loop of `a.push(x)` or `a.len()`
//! quadratic. It measures nothing after a failed call. The functions of this module therefore report an error although
//! they succeed, and keep their result for [`take_result`]. The engine fetches it in its `on_missing_function` hook, which
//! runs after every failed call and before the script sees the error.
//!
//! The other methods of arrays and maps, `a += b`, the properties `a.len` and `a.is_empty`, and the operator `in` still
//! take time in proportion to the size of the value.

use std::cell::Cell;

use rhai::{Array, Dynamic, Engine, EvalAltResult, FuncRegistration, Map, NativeCallContext, Position};

use super::call::Failure;

thread_local! {
    /// The result of the function that has just reported an error.
    static RESULT: Cell<Option<Dynamic>> = const { Cell::new(None) };
    /// The last read value belongs to a property, whose owner must learn of a change.
    static IS_PROPERTY: Cell<bool> = const { Cell::new(false) };
}

/// Takes the result of the function that has just reported an error although it succeeded.
pub(super) fn take_result() -> Option<Dynamic> {
    RESULT.take()
}

/// Records whether a property (`true`) or a variable (`false`) was read last.
///
/// After a method call that succeeds, rhai writes the value of a property back to its owner. Such a call must therefore
/// not report an error.
pub(super) fn note_property(is_property: bool) {
    IS_PROPERTY.set(is_property);
}

/// Registers the methods.
pub(super) fn register(engine: &mut Engine) {
    changing("push").register_into_engine(engine, push);
    changing("pop").register_into_engine(engine, |array: &mut Array| finish(array.pop().unwrap_or_default()));
    changing("set").register_into_engine(engine, set);
    engine.register_fn("len", |array: &mut Array| finish(array.len() as i64));
    engine.register_fn("is_empty", |array: &mut Array| finish(array.is_empty()));
    engine.register_fn("len", |map: &mut Map| finish(map.len() as i64));
    engine.register_fn("is_empty", |map: &mut Map| finish(map.is_empty()));
    engine.register_fn("get", |map: &mut Map, key: &str| finish(map.get(key).cloned().unwrap_or_default()));
}

/// Registers a function that constants refuse.
fn changing(name: &str) -> FuncRegistration {
    FuncRegistration::new(name).with_purity(false)
}

/// Returns the result of a method, by way of the hook if that is possible.
fn finish(result: impl Into<Dynamic>) -> Result<Dynamic, Failure> {
    let result = result.into();
    if IS_PROPERTY.take() || !super::shortcuts::are_on() {
        return Ok(result);
    }
    RESULT.set(Some(result));
    // The hook replaces this error, which is the cheapest one to make.
    Err(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into())
}

fn push(context: NativeCallContext<'_>, array: &mut Array, item: Dynamic) -> Result<Dynamic, Failure> {
    array.push(item);
    let mut sizes = Sizes { items: array.len(), ..Sizes::default() };
    if is_due(array.len()) {
        sizes = Sizes::default();
        sizes.add_items(array);
    }
    sizes.check(context.engine())?;
    finish(())
}

fn set(context: NativeCallContext<'_>, map: &mut Map, key: &str, value: Dynamic) -> Result<Dynamic, Failure> {
    map.insert(key.into(), value);
    let mut sizes = Sizes { entries: map.len(), ..Sizes::default() };
    if is_due(map.len()) {
        sizes = Sizes::default();
        sizes.add_entries(map);
    }
    sizes.check(context.engine())?;
    finish(())
}

/// Returns whether to measure the nested values of a value that has grown to this length.
///
/// Eight measurements per doubling keep a loop linear. Between two of them nested values can exceed the limits on sizes.
/// The limit on memory holds for them.
fn is_due(len: usize) -> bool {
    len.is_multiple_of((len / 8 + 1).next_power_of_two() / 2)
}

/// The sizes that rhai limits, as rhai counts them.
#[derive(Clone, Copy, Default)]
pub(super) struct Sizes {
    items: usize,
    entries: usize,
    bytes: usize,
}

impl Sizes {
    /// Adds an item of an array with all that is in it.
    pub(super) fn add_item(&mut self, item: &Dynamic) {
        self.items += 1;
        self.add(item);
    }

    fn add_items(&mut self, array: &Array) {
        #[cfg(test)]
        MEASURED.set(MEASURED.get() + array.len() as u64);
        array.iter().for_each(|item| self.add_item(item));
    }

    fn add_entries(&mut self, map: &Map) {
        #[cfg(test)]
        MEASURED.set(MEASURED.get() + map.len() as u64);
        self.entries += map.len();
        map.values().for_each(|value| self.add(value));
    }

    fn add(&mut self, value: &Dynamic) {
        if let Ok(array) = value.as_array_ref() {
            self.add_items(&array);
        } else if let Ok(map) = value.as_map_ref() {
            self.add_entries(&map);
        } else if let Ok(blob) = value.as_blob_ref() {
            self.items += 1 + blob.len();
        } else if let Ok(text) = value.as_immutable_string_ref() {
            self.bytes += text.len();
        }
    }

    /// Reports the limit that the sizes exceed, in the words of rhai.
    pub(super) fn check(self, engine: &Engine) -> Result<(), Failure> {
        let exceeds = |size: usize, limit: usize| limit > 0 && size > limit;
        let what = if exceeds(self.bytes, engine.max_string_size()) {
            "Length of string"
        } else if exceeds(self.items, engine.max_array_size()) {
            "Size of array/BLOB"
        } else if exceeds(self.entries, engine.max_map_size()) {
            "Size of object map"
        } else {
            return Ok(());
        };
        Err(EvalAltResult::ErrorDataTooLarge(what.to_owned(), Position::NONE).into())
    }
}

#[cfg(test)]
thread_local! {
    static MEASURED: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of values that were measured on this thread.
#[cfg(test)]
pub(super) fn measured() -> u64 {
    MEASURED.get()
}
