//! Replacements for built-in functions of rhai that make a large result first and are measured afterwards.

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, NativeCallContext, Position};

use super::call::Failure;

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
    engine.register_fn("to_chars", |context: NativeCallContext, text: &str| -> Result<Array, Failure> {
        check_items(&context, text.chars().count())?;
        Ok(text.chars().map(Dynamic::from).collect())
    });
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
