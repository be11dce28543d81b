//! The values that shortcuts compute without rhai: literals of `emit`, and expressions without side effects.

use rhai::{Dynamic, ImmutableString, Scope};

use crate::effect::Value;
use crate::script::call::{Handle, Part, Seen, current};
use crate::script::convert;
use crate::script::objects::{EventObject, Getter, StreamObject};

/// The literal argument of `emit`.
pub(super) enum Literal {
    /// The entries in the order of evaluation. The number of each is its position among the sorted keys, which is the
    /// order of rhai's maps.
    Map(Vec<(usize, ImmutableString, Literal)>),
    List(Vec<Literal>),
    Leaf(Formula),
}

/// An expression without side effects.
pub(super) enum Formula {
    Constant(Dynamic),
    Variable(ImmutableString),
    /// `variable.property` of an event or a stream. A getter is absent where that type has no such property.
    Property {
        variable: ImmutableString,
        of_event: Option<Getter>,
        of_stream: Option<Getter>,
    },
    /// `variable.data.name`, with any further names.
    Field {
        variable: ImmutableString,
        part: Part,
        names: Vec<ImmutableString>,
    },
    Not(Box<Formula>),
    All(Vec<Formula>),
    Any(Vec<Formula>),
    Pair(Pair, Box<(Formula, Formula)>),
}

/// A binary operator.
#[derive(Clone, Copy)]
pub(super) enum Pair {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Times,
    Modulo,
}

pub(super) fn read<T: Copy + Send + Sync + 'static>(scope: &Scope<'_>, variable: &str) -> Option<T> {
    Some(*scope.get(variable)?.read_lock::<T>()?)
}

impl Literal {
    pub(super) fn value(&self, scope: &Scope<'_>, depth: usize) -> Option<Value> {
        match self {
            Self::Map(entries) => {
                current(|call| call.emitted_bytes += convert::VALUE_BYTES);
                let mut made = vec![None; entries.len()];
                for (place, key, literal) in entries {
                    let key = current(|call| {
                        call.emitted_bytes += key.len();
                        call.texts.get(key)
                    });
                    made[*place] = Some((key, literal.value(scope, depth + 1)?));
                }
                made.into_iter().collect::<Option<_>>().map(Value::Map)
            }
            Self::List(items) => {
                current(|call| call.emitted_bytes += convert::VALUE_BYTES);
                items.iter().map(|item| item.value(scope, depth + 1)).collect::<Option<_>>().map(Value::List)
            }
            Self::Leaf(formula) => {
                let value = formula.value(scope)?;
                current(|call| convert::to_value_at(call, &value, depth)).ok()
            }
        }
    }
}

impl Formula {
    /// Returns the value of the formula, or `None` if rhai must evaluate it.
    pub(super) fn value(&self, scope: &Scope<'_>) -> Option<Dynamic> {
        match self {
            Self::Constant(value) => Some(value.clone()),
            Self::Variable(name) => scope.get(name).map(|value| value.clone().flatten()),
            Self::Property { variable, of_event, of_stream } => {
                let value = scope.get(variable)?;
                if let (Some(get), Some(event)) = (of_event, value.read_lock::<EventObject>()) {
                    return get(event.0).ok();
                }
                let (get, stream) = (of_stream.as_ref()?, value.read_lock::<StreamObject>()?);
                get(stream.0).ok()
            }
            Self::Field { variable, part, names } => {
                let event = read::<EventObject>(scope, variable)?.0;
                field(event, *part, names)
            }
            Self::Not(of) => of.value(scope)?.as_bool().ok().map(|value| (!value).into()),
            Self::All(of) => all(of, scope, true),
            Self::Any(of) => all(of, scope, false),
            Self::Pair(pair, of) => pair.apply(&of.0.value(scope)?, &of.1.value(scope)?),
        }
    }
}

fn field(event: Handle, part: Part, names: &[ImmutableString]) -> Option<Dynamic> {
    let (first, rest) = names.split_first()?;
    let value = current(|call| match call.document(event, part) {
        Ok(Seen::Object) => call.field(event, part, first).ok(),
        _ => None,
    });
    let mut value = value?.unwrap_or_default();
    for name in rest {
        let inner = value.as_map_ref().ok()?.get(name.as_str()).cloned();
        value = inner.unwrap_or_default();
    }
    Some(value)
}

/// Evaluates `&&` (`wanted` is true) or `||` (`wanted` is false) from left to right, and stops early as rhai does.
fn all(of: &[Formula], scope: &Scope<'_>, wanted: bool) -> Option<Dynamic> {
    for formula in of {
        if formula.value(scope)?.as_bool().ok()? != wanted {
            return Some((!wanted).into());
        }
    }
    Some(wanted.into())
}

impl Pair {
    fn apply(self, a: &Dynamic, b: &Dynamic) -> Option<Dynamic> {
        if let (Ok(a), Ok(b)) = (a.as_int(), b.as_int()) {
            return self.of_integers(a, b);
        }
        let equal = if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_immutable_string_ref()) {
            *a == *b
        } else if let (Ok(a), Ok(b)) = (a.as_bool(), b.as_bool()) {
            a == b
        } else if a.is_unit() && b.is_unit() {
            true
        } else {
            return None;
        };
        match self {
            Self::Equal => Some(equal.into()),
            Self::Unequal => Some((!equal).into()),
            _ => None,
        }
    }

    fn of_integers(self, a: i64, b: i64) -> Option<Dynamic> {
        let holds = match self {
            Self::Equal => a == b,
            Self::Unequal => a != b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::Plus => return a.checked_add(b).map(Dynamic::from),
            Self::Minus => return a.checked_sub(b).map(Dynamic::from),
            Self::Times => return a.checked_mul(b).map(Dynamic::from),
            Self::Modulo => return a.checked_rem(b).map(Dynamic::from),
        };
        Some(holds.into())
    }
}
