//! The values of a record that a mapping asks for, and their forms.

use std::borrow::Cow;
use std::ops::Range;

use super::locate::Found;
use super::syntax::Pointer;
use crate::formats::jsonlines::BadLine;
use crate::formats::jsonlines::scan::{Shape, Token};

/// The node of a pointer in its tree.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    Item(usize),
    Around(usize),
}

/// The values of which the first that is there counts.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    pub(super) name: &'static str,
    pub(super) slots: Vec<Slot>,
    pub(super) pointers: Vec<Pointer>,
}

#[derive(Clone, Debug)]
pub(super) struct TextField {
    pub(super) parts: Vec<TextPart>,
}

#[derive(Clone, Debug)]
pub(super) enum TextPart {
    Literal(Box<str>),
    Value { of: Slots, fallback: Option<Box<str>> },
}

#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) slot: Slot,
    pub(super) values: Option<Vec<Box<str>>>,
    pub(super) is_negated: bool,
}

/// A text, and the values that were found in it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) text: &'a [u8],
    pub(super) found: &'a Found,
}

/// The values that an item can refer to.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) item: View<'a>,
    pub(super) around: View<'a>,
}

impl<'a> Scope<'a> {
    /// Returns the value of a slot, if the record has it, and the text that holds it.
    pub(super) fn get(&self, slot: Slot) -> Option<(Token, &'a [u8])> {
        let (view, node) = match slot {
            Slot::Item(node) => (self.item, node),
            Slot::Around(node) => (self.around, node),
        };
        view.found.get(node).map(|token| (token, view.text))
    }
}

impl Test {
    pub(super) fn holds(&self, scope: &Scope<'_>) -> bool {
        let value = scope.get(self.slot).filter(|(token, _)| token.shape != Shape::Null);
        let is_met = match (&self.values, value) {
            (None, value) => value.is_some(),
            (Some(_), None) => false,
            (Some(values), Some((token, text))) => {
                let text = scalar(token, text).unwrap_or_default();
                values.iter().any(|value| Some(&**value) == text.as_deref())
            }
        };
        is_met != self.is_negated
    }
}

/// A text of an event.
pub(super) enum Piece<'a> {
    /// Within the item, where it stands without escapes.
    InPlace(Range<usize>),
    Text(Cow<'a, str>),
}

impl Piece<'_> {
    pub(super) fn as_str<'s>(&'s self, item: &'s [u8]) -> &'s str {
        match self {
            Self::InPlace(range) => std::str::from_utf8(&item[range.clone()]).unwrap_or_default(),
            Self::Text(text) => text,
        }
    }
}

impl TextField {
    pub(super) fn resolve<'a>(&self, scope: &Scope<'a>) -> Result<Piece<'a>, BadLine> {
        if let [TextPart::Value { of, fallback }] = &self.parts[..] {
            return of.text(fallback.as_deref(), scope);
        }
        let mut text = String::new();
        for part in &self.parts {
            match part {
                TextPart::Literal(literal) => text.push_str(literal),
                TextPart::Value { of, fallback } => {
                    let piece = of.text(fallback.as_deref(), scope)?;
                    text.push_str(piece.as_str(scope.item.text));
                }
            }
        }
        Ok(Piece::Text(text.into()))
    }
}

impl Slots {
    /// Returns the first value that is text, a number or a boolean. `null` and empty text count as absent.
    fn text<'a>(&self, fallback: Option<&str>, scope: &Scope<'a>) -> Result<Piece<'a>, BadLine> {
        let mut reason = "which the record lacks";
        for (slot, pointer) in self.slots.iter().zip(&self.pointers) {
            let Some((token, text)) = scope.get(*slot) else { continue };
            match scalar(token, text) {
                Err(noun) => {
                    let why = format!("`{}` needs text at `{pointer}`, which is {noun}", self.name);
                    return Err(BadLine::new(why).at(token.start as usize));
                }
                Ok(None) => reason = "which is null",
                Ok(Some(value)) if value.is_empty() => reason = "which is empty",
                Ok(Some(_)) if token.shape == Shape::Plain && matches!(slot, Slot::Item(_)) => {
                    return Ok(Piece::InPlace(token.start as usize + 1..token.end as usize - 1));
                }
                Ok(Some(value)) => return Ok(Piece::Text(value)),
            }
        }
        match fallback {
            Some(fallback) => Ok(Piece::Text(fallback.to_owned().into())),
            None => Err(self.missing(reason)),
        }
    }

    /// Returns the first part that is there and not null, or else a null.
    pub(super) fn part<'a>(&self, scope: &Scope<'a>) -> Result<(Token, &'a [u8]), BadLine> {
        let mut null = None;
        for found in self.slots.iter().filter_map(|slot| scope.get(*slot)) {
            if found.0.shape != Shape::Null {
                return Ok(found);
            }
            null.get_or_insert(found);
        }
        null.ok_or_else(|| self.missing("which the record lacks"))
    }

    pub(super) fn integer(&self, scope: &Scope<'_>) -> Result<i64, BadLine> {
        let piece = self.text(None, scope)?;
        let text = piece.as_str(scope.item.text);
        match text.parse() {
            Ok(index @ 0..) => Ok(index),
            _ => {
                let why = format!("`{}` needs an integer of at least 0, not `{}`", self.name, shortened(text));
                Err(BadLine::new(why))
            }
        }
    }

    /// Returns the error of a record without any of the values.
    #[cold]
    fn missing(&self, reason: &str) -> BadLine {
        let pointers: Vec<_> = self.pointers.iter().map(|pointer| format!("`{pointer}`")).collect();
        let reason = if pointers.len() > 1 { "and the record has none of them" } else { reason };
        BadLine::new(format!("`{}` needs {}, {reason}", self.name, pointers.join(" or ")))
    }
}

/// Returns a scalar as text: the content of a string, or a number or boolean as written. `None`: null.
///
/// # Errors
/// The value is an array or an object, or a string that cannot be decoded. The error is its noun.
fn scalar(token: Token, text: &[u8]) -> Result<Option<Cow<'_, str>>, &'static str> {
    let written = &text[token.range()];
    // The scanner has checked the whole text.
    let utf8 = |bytes| std::str::from_utf8(bytes).map(|text| Some(Cow::Borrowed(text))).map_err(|_| "not UTF-8");
    match token.shape {
        Shape::Null => Ok(None),
        Shape::Plain => utf8(&written[1..written.len() - 1]),
        Shape::Number | Shape::True | Shape::False => utf8(written),
        Shape::Escaped => match serde_json::from_slice::<String>(written) {
            Ok(text) => Ok(Some(text.into())),
            Err(_) => Err("a string that cannot be decoded"),
        },
        Shape::Object | Shape::Array => Err(noun(token.shape)),
    }
}

pub(super) fn noun(shape: Shape) -> &'static str {
    match shape {
        Shape::Plain | Shape::Escaped => "a string",
        Shape::Number => "a number",
        Shape::True | Shape::False => "a boolean",
        Shape::Null => "null",
        Shape::Object => "an object",
        Shape::Array => "an array",
    }
}

/// Returns a value as messages show it: at most 40 characters.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
