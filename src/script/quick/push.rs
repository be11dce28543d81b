//! `variable.push(value)` and `variable.field.push(value)`.
//!
//! rhai measures the whole array after each push, which makes a loop of them quadratic. Here the sizes of the last variable
//! are remembered, and a push adds those of its value.

use std::cell::RefCell;

use rhai::{Array, Dynamic, Engine, Expr, ImmutableString, Scope};

use super::Formula;

/// A push, and the same in the form in which rhai runs it.
pub(super) struct Push {
    pub(super) variable: ImmutableString,
    /// The fields from the variable to the array.
    pub(super) names: Vec<ImmutableString>,
    pub(super) value: Formula,
    pub(super) whole: Expr,
}

thread_local! {
    static LAST: RefCell<Option<Measured>> = const { RefCell::new(None) };
}

/// The sizes of a variable after the last push to an array in it.
struct Measured {
    variable: ImmutableString,
    names: Vec<ImmutableString>,
    /// The length of the array. Another one means that something else has changed it.
    len: usize,
    sizes: Sizes,
}

/// The sizes that rhai limits, as it counts them.
#[derive(Clone, Copy, Default)]
struct Sizes {
    items: usize,
    entries: usize,
    bytes: usize,
}

/// Forgets the sizes, at the start of a call.
pub(in crate::script) fn forget() {
    LAST.set(None);
}

impl Push {
    /// Pushes the value; returns `None` if rhai must do it: nothing was done.
    pub(super) fn push(&self, scope: &mut Scope<'_>, engine: &Engine) -> Option<()> {
        let value = self.value.value(scope)?;
        let root = scope.get_mut(&self.variable).filter(|root| !root.is_shared() && !root.is_read_only())?;
        let len = with_array(root, &self.names, |array| array.len())?;
        let mut sizes = LAST.with_borrow(|last| {
            let last = last.as_ref().filter(|last| last.is_of(self, len));
            last.map(|last| last.sizes)
        });
        let sizes = sizes.get_or_insert_with(|| Sizes::of(root));
        sizes.items += 1;
        sizes.add(&value);
        if !sizes.fit(engine) {
            return None;
        }
        with_array(root, &self.names, |array| array.push(value))?;
        LAST.with_borrow_mut(|last| match last {
            Some(last) if last.is_of(self, len) => (last.len, last.sizes) = (len + 1, *sizes),
            last => {
                let (variable, names) = (self.variable.clone(), self.names.clone());
                *last = Some(Measured { variable, names, len: len + 1, sizes: *sizes });
            }
        });
        Some(())
    }
}

impl Measured {
    fn is_of(&self, push: &Push, len: usize) -> bool {
        self.len == len && self.variable == push.variable && self.names == push.names
    }
}

/// Looks at, or changes, the array at the end of the fields.
fn with_array<R>(root: &mut Dynamic, names: &[ImmutableString], f: impl FnOnce(&mut Array) -> R) -> Option<R> {
    match names.split_first() {
        None => root.as_array_mut().ok().map(|mut array| f(&mut array)),
        Some((name, rest)) => {
            let mut map = root.as_map_mut().ok()?;
            with_array(map.get_mut(name.as_str())?, rest, f)
        }
    }
}

impl Sizes {
    fn of(value: &Dynamic) -> Self {
        let mut sizes = Self::default();
        sizes.add(value);
        sizes
    }

    fn add(&mut self, value: &Dynamic) {
        if let Ok(items) = value.as_array_ref() {
            self.items += items.len();
            items.iter().for_each(|item| self.add(item));
        } else if let Ok(map) = value.as_map_ref() {
            self.entries += map.len();
            map.values().for_each(|item| self.add(item));
        } else if let Ok(blob) = value.as_blob_ref() {
            self.items += 1 + blob.len();
        } else if let Ok(text) = value.as_immutable_string_ref() {
            self.bytes += text.len();
        }
    }

    fn fit(self, engine: &Engine) -> bool {
        let fits = |size: usize, most: usize| most == 0 || size <= most;
        fits(self.items, engine.max_array_size())
            && fits(self.entries, engine.max_map_size())
            && fits(self.bytes, engine.max_string_size())
    }
}
