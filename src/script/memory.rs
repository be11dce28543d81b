//! Bounds the memory of a call's variables, and the depth of their values.
//!
//! rhai limits each value by itself. It neither adds up the variables nor looks into closures, which keep the values that
//! they capture. It drops nested values by recursion, so a long chain of closures would overflow the stack and abort the
//! process. [`Memory`] therefore measures the variables while a call runs. The engine asks for each access to a
//! variable; most accesses only count.

use std::cell::RefCell;

use hashbrown::HashSet;
use rhai::{Dynamic, EvalAltResult, EvalContext, FnPtr, Position, Scope};

use super::call::Failure;
use super::methods;

/// The number of accesses between two looks at the lengths of the variables. A single value has at most some megabytes, as
/// rhai limits it, so that this many copies fit the memory of a machine.
const ACCESSES_A_LOOK: usize = 16;

/// The growth of lengths, or of hidden values, after which the variables are measured at once.
const GROWTH_A_MEASURE: usize = 8 << 20;

/// The deepest nesting of values. Dropping a value takes stack for each level.
const MAX_DEPTH: usize = 200;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The measurements of the call that runs on this thread.
#[derive(Default)]
struct Memory {
    /// The script has closures that capture variables, or curries function pointers.
    has_captures: bool,
    limit: usize,
    /// Accesses since the last look.
    accesses: usize,
    /// Accesses since the variables were measured.
    unmeasured: usize,
    /// The number of values that the last measurement counted.
    values: usize,
    /// The lengths of all variables at the last measurement.
    lengths: usize,
    /// The lengths of values that were accessed since the last measurement and that the next one may not see.
    hidden: usize,
    /// The bytes of the variables of each function on the call stack, when they were measured last.
    levels: Vec<usize>,
}

/// Begins the measurements of a call.
pub(super) fn begin(limit: usize, has_captures: bool) {
    MEMORY.with_borrow_mut(|memory| {
        let levels = std::mem::take(&mut memory.levels);
        *memory = Memory { limit, has_captures, levels, ..Memory::default() };
        memory.levels.clear();
    });
}

/// Notes an access to a variable.
///
/// # Errors
/// The variables take too much memory, or a value is nested too deep.
pub(super) fn on_access(name: &str, context: &EvalContext<'_, '_, '_, '_, '_, '_>) -> Result<(), Failure> {
    methods::note_property(false);
    MEMORY.with_borrow_mut(|memory| {
        memory.accesses += 1;
        memory.unmeasured += 1;
        // Closures hide what they captured, and functions their callers' variables.
        let is_nested = context.call_level() > 1;
        if (memory.has_captures || is_nested)
            && let Some(value) = context.scope().get(name).filter(|value| is_nested || value.is_shared())
        {
            memory.hidden += length(value);
        }
        if memory.accesses < ACCESSES_A_LOOK && memory.hidden < GROWTH_A_MEASURE {
            return Ok(());
        }
        memory.look(context)
    })
}

impl Memory {
    fn look(&mut self, context: &EvalContext<'_, '_, '_, '_, '_, '_>) -> Result<(), Failure> {
        self.accesses = 0;
        let lengths: usize = context.scope().iter_raw().map(|(_, _, value)| length(value)).sum();
        let grown = lengths.saturating_sub(self.lengths).saturating_add(self.hidden);
        // A measurement visits every value, so that the accesses since the last one must pay for it.
        let is_known = self.levels.len() > context.call_level();
        if is_known && grown < GROWTH_A_MEASURE && self.unmeasured < ACCESSES_A_LOOK * 4 + self.values / 4 {
            return Ok(());
        }
        let measure = Measure::of(context.scope(), context.this_ptr())?;
        (self.values, self.lengths) = (measure.values, lengths);
        let level = context.call_level();
        // The functions above this one have returned. Those between the last measured one and this one are taken to hold
        // copies of the values that were accessed.
        self.levels.truncate(level);
        let unseen = level - self.levels.len();
        self.levels.resize(level, self.hidden.checked_div(unseen).unwrap_or(0));
        self.levels.push(measure.bytes);
        (self.hidden, self.unmeasured) = (0, 0);
        match self.levels.iter().sum::<usize>() > self.limit {
            true => Err(too_large("Memory of the variables")),
            false => Ok(()),
        }
    }
}

/// Makes an error that a script cannot catch.
fn too_large(what: &str) -> Failure {
    EvalAltResult::ErrorDataTooLarge(what.to_owned(), Position::NONE).into()
}

/// Returns the bytes of a value without those of the values in it.
fn length(value: &Dynamic) -> usize {
    if let Ok(items) = value.as_array_ref() {
        items.len() * size_of::<Dynamic>()
    } else if let Ok(text) = value.as_immutable_string_ref() {
        text.len()
    } else if let Ok(map) = value.as_map_ref() {
        map.len() * ENTRY
    } else if let Ok(blob) = value.as_blob_ref() {
        blob.len()
    } else {
        0
    }
}

/// The bytes of an entry of a map: its key, its value, and their share of a node.
const ENTRY: usize = 64;

/// The sum over variables and everything that they hold. Shared values count once.
#[derive(Default)]
struct Measure {
    bytes: usize,
    values: usize,
    seen: HashSet<usize>,
}

impl Measure {
    fn of(scope: &Scope<'_>, this: Option<&Dynamic>) -> Result<Self, Failure> {
        let mut measure = Self::default();
        for value in scope.iter_raw().map(|(_, _, value)| value).chain(this) {
            measure.add(value, 0)?;
        }
        Ok(measure)
    }

    /// Recursive, to a depth that every stack has room for.
    fn add(&mut self, value: &Dynamic, depth: usize) -> Result<(), Failure> {
        if depth > MAX_DEPTH {
            return Err(too_large("Nesting of values"));
        }
        self.values += 1;
        self.bytes += size_of::<Dynamic>() + length(value);
        if value.is_shared() {
            let Some(inner) = value.read_lock::<Dynamic>() else { return Ok(()) };
            // The address of a shared value identifies it. It also ends the walk along a closure that holds itself.
            if self.seen.insert(std::ptr::from_ref(&*inner).addr()) {
                self.add(&inner, depth + 1)?;
            }
            return Ok(());
        }
        if let Ok(items) = value.as_array_ref() {
            return items.iter().try_for_each(|item| self.add(item, depth + 1));
        }
        if let Ok(map) = value.as_map_ref() {
            return map.values().try_for_each(|item| self.add(item, depth + 1));
        }
        if let Some(function) = value.read_lock::<FnPtr>() {
            return function.curry().iter().try_for_each(|item| self.add(item, depth + 1));
        }
        Ok(())
    }
}
