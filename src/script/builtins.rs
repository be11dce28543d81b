//! Replacements for built-in functions of rhai that build their whole result before its size is checked.

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, ImmutableString, NativeCallContext, Position};

use super::call::Failure;
use super::methods::Sizes;

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("replace", |context: NativeCallContext, text: &mut ImmutableString, find: &str, by: &str| {
        replace(&context, text, find, by)
    });
    engine.register_fn("replace", |context: NativeCallContext, text: &mut ImmutableString, find: char, by: &str| {
        replace(&context, text, find.encode_utf8(&mut [0; 4]), by)
    });
    engine.register_fn("replace", |context: NativeCallContext, text: &mut ImmutableString, find: &str, by: char| {
        replace(&context, text, find, by.encode_utf8(&mut [0; 4]))
    });
    engine.register_fn("split", |context: NativeCallContext, text: &mut ImmutableString, delimiter: &str| {
        pieces(&context, || text.split(delimiter))
    });
    engine.register_fn("split", |context: NativeCallContext, text: &mut ImmutableString, delimiter: char| {
        pieces(&context, || text.split(delimiter))
    });
    engine.register_fn("split", |context: NativeCallContext, text: &mut ImmutableString| {
        pieces(&context, || text.split_whitespace())
    });
    engine.register_fn("map", map);
    engine.register_fn("to_chars", |context: NativeCallContext, text: &str| -> Result<Array, Failure> {
        check_items(&context, text.chars().count())?;
        Ok(text.chars().map(Dynamic::from).collect())
    });
}

/// Returns the results of a function for the items of an array. Their sizes are limited while they are collected.
fn map(context: NativeCallContext<'_>, array: &mut Array, function: FnPtr) -> Result<Array, Failure> {
    let (mut results, mut sizes) = (Array::with_capacity(array.len()), Sizes::default());
    for (index, item) in array.iter_mut().enumerate() {
        let index = Dynamic::from(index as i64);
        let result = function.call_raw_with_extra_args("map", &context, Some(item), [], [index], Some(0))?;
        sizes.add_item(&result);
        sizes.check(context.engine())?;
        results.push(result);
    }
    Ok(results)
}

/// Replaces all occurrences of a text.
fn replace(context: &NativeCallContext<'_>, text: &mut ImmutableString, find: &str, by: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let found = text.matches(find).count();
    // Two long texts could make one that no memory holds.
    let longer = found.saturating_mul(by.len()).saturating_add(text.len()) - found * find.len();
    let most = context.engine().max_string_size();
    if most > 0 && longer > most {
        return Err(too_large("Length of string"));
    }
    *text = text.replace(find, by).into();
    Ok(())
}

/// Returns an array of the pieces of a text, which are counted before they are made.
fn pieces<'a, I: Iterator<Item = &'a str>>(
    context: &NativeCallContext<'_>,
    pieces: impl Fn() -> I,
) -> Result<Array, Failure> {
    check_items(context, pieces().count())?;
    Ok(pieces().map(|piece| Dynamic::from(ImmutableString::from(piece))).collect())
}

fn check_items(context: &NativeCallContext<'_>, items: usize) -> Result<(), Failure> {
    let most = context.engine().max_array_size();
    if most > 0 && items > most {
        return Err(too_large("Size of array"));
    }
    Ok(())
}

fn too_large(what: &str) -> Failure {
    EvalAltResult::ErrorDataTooLarge(what.to_owned(), Position::NONE).into()
}
