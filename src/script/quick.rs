//! What nearly every script is made of, run without rhai's detours: loops over events, conditions on their properties,
//! and `emit` of a literal.
//!
//! For each property and each call rhai hashes a name with types to find a function, checks sizes and boxes what comes
//! back: some hundred nanoseconds each. A [`Plan`] is the body of `handle` in which what is known by its shape has a form
//! of its own. Everything else stays as it was parsed and is left to rhai, statement by statement; both work on the same
//! variables. What is known by its shape may turn out to be something else once it runs (a variable was set to a list, a field
//! is no object, a text is too long). Reading has no effects: rhai then does the whole of it, and its are the errors, too.

mod plan;
mod push;

#[cfg(test)]
pub(super) use plan::plain;
pub(super) use push::forget;

use std::ops::ControlFlow;

use rhai::{
    Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, GlobalRuntimeState, ImmutableString, Position, Scope,
};

use super::call::{Failure, Handle, Part, Seen, current};
use super::convert;
use super::objects::{EventObject, EventsObject, Getter, StreamObject};
use super::program::Watch;
use crate::effect::Value;
use push::Push;

/// The body of a function.
pub(super) struct Plan(Vec<Step>);

/// A statement, or a few that rhai runs. What has a form of its own also is as it was parsed, for rhai.
enum Step {
    Each(Box<Each>),
    Range(Box<Range>),
    While(Box<While>),
    If(Box<If>),
    Emit(Box<Emit>),
    Push(Box<Push>),
    Value(Box<(Formula, Expr)>),
    Rhai(Expr),
}

/// `for variable in over { .. }`, where `over` is a variable.
struct Each {
    variable: ImmutableString,
    over: ImmutableString,
    body: Vec<Step>,
    whole: Expr,
}

/// `for variable in from..to { .. }`
struct Range {
    variable: ImmutableString,
    from: Formula,
    to: Formula,
    is_inclusive: bool,
    body: Vec<Step>,
    whole: Expr,
}

/// `while condition { .. }`
struct While {
    condition: Condition,
    body: Vec<Step>,
}

struct If {
    condition: Condition,
    then: Vec<Step>,
    otherwise: Vec<Step>,
}

struct Condition {
    /// `None`: rhai evaluates it.
    formula: Option<Formula>,
    whole: Expr,
}

/// `emit(literal)`
struct Emit {
    literal: Literal,
    /// How many bytes of text a call may emit.
    limit: usize,
    whole: Expr,
}

enum Literal {
    /// The entries in the order in which they are evaluated, each with its place in the order of the keys, which is that
    /// of rhai's maps.
    Map(Vec<(usize, ImmutableString, Literal)>),
    List(Vec<Literal>),
    Leaf(Formula),
}

/// An expression that has no effects.
enum Formula {
    Constant(Dynamic),
    Variable(ImmutableString),
    /// `variable.property`, of an event or a stream, as far as those have it.
    Property {
        variable: ImmutableString,
        of_event: Option<Getter>,
        of_stream: Option<Getter>,
    },
    /// `variable.data.name`, and what follows.
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

/// An operator between two.
#[derive(Clone, Copy)]
enum Pair {
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

/// What a function runs on.
pub(super) struct Machine<'a> {
    pub(super) engine: &'a Engine,
    pub(super) global: &'a mut GlobalRuntimeState,
    pub(super) caches: &'a mut Caches,
    pub(super) scope: &'a mut Scope<'static>,
    pub(super) watch: &'a Watch,
}

impl Plan {
    /// Runs the body. What it declares is gone afterwards.
    pub(super) fn run(&self, mut machine: Machine<'_>) -> Result<Dynamic, Failure> {
        machine.block(&self.0).or_else(|error| match *error {
            EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok(value),
            error => Err(error.into()),
        })
    }
}

impl Machine<'_> {
    fn block(&mut self, steps: &[Step]) -> Result<Dynamic, Failure> {
        let (variables, imports) = (self.scope.len(), self.global.num_imports());
        let last = steps.iter().try_fold(Dynamic::UNIT, |_, step| self.step(step));
        self.scope.rewind(variables);
        self.global.truncate_imports(imports);
        self.global.always_search_scope = false;
        last
    }

    fn step(&mut self, step: &Step) -> Result<Dynamic, Failure> {
        self.count()?;
        match step {
            Step::Each(each) => self.each(each),
            Step::Range(range) => self.range(range),
            Step::While(repeated) => self.repeat(repeated),
            Step::If(branch) => {
                let chosen = if self.holds(&branch.condition)? { &branch.then } else { &branch.otherwise };
                self.block(chosen)
            }
            Step::Emit(emit) => match emit.emit(self.scope) {
                Some(()) => Ok(Dynamic::UNIT),
                None => self.rhai(&emit.whole, false),
            },
            Step::Push(push) => match undone_unless_known(|| push.push(self.scope, self.engine)) {
                Some(()) => Ok(Dynamic::UNIT),
                None => self.rhai(&push.whole, false),
            },
            Step::Value(value) => match undone_unless_known(|| value.0.value(self.scope)) {
                Some(value) => Ok(value),
                None => self.rhai(&value.1, false),
            },
            Step::Rhai(statements) => self.rhai(statements, false),
        }
    }

    /// Counts an operation, as rhai does its own.
    fn count(&mut self) -> Result<(), Failure> {
        let (most, counted) = (self.engine.max_operations(), &mut self.global.num_operations);
        *counted += 1;
        if most > 0 && *counted > most {
            return Err(EvalAltResult::ErrorTooManyOperations(Position::NONE).into());
        }
        if self.watch.is_over(*counted) {
            return Err(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into());
        }
        Ok(())
    }

    #[expect(deprecated, reason = "rhai marks what may change in a later version so")]
    fn rhai(&mut self, part: &Expr, rewind: bool) -> Result<Dynamic, Failure> {
        let mut context = EvalContext::new(self.engine, self.global, self.caches, self.scope, None);
        context.eval_expression_tree_raw(&part.into(), rewind)
    }

    fn holds(&mut self, condition: &Condition) -> Result<bool, Failure> {
        let formula = condition.formula.as_ref();
        let known = formula.and_then(|formula| undone_unless_known(|| formula.value(self.scope)?.as_bool().ok()));
        if let Some(known) = known {
            return Ok(known);
        }
        let value = self.rhai(&condition.whole, true)?;
        value.as_bool().map_err(|found| {
            let position = condition.whole.position();
            EvalAltResult::ErrorMismatchDataType("bool".to_owned(), found.to_owned(), position).into()
        })
    }

    fn repeat(&mut self, repeated: &While) -> Result<Dynamic, Failure> {
        while self.holds(&repeated.condition)? {
            // Also for an empty body, so that the loop is bounded.
            self.count()?;
            if let ControlFlow::Break(value) = self.turn(&repeated.body)? {
                return Ok(value);
            }
        }
        Ok(Dynamic::UNIT)
    }

    /// Runs the body of a loop once.
    fn turn(&mut self, body: &[Step]) -> Result<ControlFlow<Dynamic>, Failure> {
        match self.block(body).map_err(|error| *error) {
            Ok(_) | Err(EvalAltResult::LoopBreak(false, ..)) => Ok(ControlFlow::Continue(())),
            Err(EvalAltResult::LoopBreak(true, value, _)) => Ok(ControlFlow::Break(value)),
            Err(error) => Err(error.into()),
        }
    }

    fn range(&mut self, range: &Range) -> Result<Dynamic, Failure> {
        let bounds = undone_unless_known(|| {
            Some((range.from.value(self.scope)?.as_int().ok()?, range.to.value(self.scope)?.as_int().ok()?))
        });
        let variables = self.scope.len();
        let Some((from, to)) = bounds.filter(|_| variables < self.engine.max_variables()) else {
            return self.rhai(&range.whole, false);
        };
        self.scope.push_dynamic(range.variable.as_str(), Dynamic::UNIT);
        let result = self.numbers(range, from, to);
        self.scope.rewind(variables);
        result
    }

    fn numbers(&mut self, range: &Range, from: i64, to: i64) -> Result<Dynamic, Failure> {
        let end = if range.is_inclusive { to.checked_add(1).unwrap_or(to) } else { to };
        for number in from..end {
            self.count()?;
            if let Some(variable) = self.scope.get_mut(&range.variable) {
                put(variable, number);
            }
            if let ControlFlow::Break(value) = self.turn(&range.body)? {
                return Ok(value);
            }
        }
        Ok(Dynamic::UNIT)
    }

    fn each(&mut self, each: &Each) -> Result<Dynamic, Failure> {
        let Some(events) = read::<EventsObject>(self.scope, &each.over) else {
            return self.rhai(&each.whole, false);
        };
        let Ok(first) = current(|call| call.event_of(events.0, 0)) else { return self.rhai(&each.whole, false) };
        let variables = self.scope.len();
        if variables >= self.engine.max_variables() {
            return self.rhai(&each.whole, false);
        }
        self.scope.push_dynamic(each.variable.as_str(), Dynamic::UNIT);
        let result = self.turns(each, events, first);
        self.scope.rewind(variables);
        result
    }

    fn turns(&mut self, each: &Each, events: EventsObject, first: Option<Handle>) -> Result<Dynamic, Failure> {
        let (mut next, mut position) = (first, 0);
        while let Some(event) = next {
            if let Some(variable) = self.scope.get_mut(&each.variable) {
                put(variable, EventObject(event));
            }
            if let ControlFlow::Break(value) = self.turn(&each.body)? {
                return Ok(value);
            }
            position += 1;
            next = current(|call| call.event_of(events.0, position))?;
        }
        Ok(Dynamic::UNIT)
    }
}

/// Sets a variable: in place if its like was there before, as making it anew allocates.
pub(super) fn put<T: Clone + Send + Sync + 'static>(variable: &mut Dynamic, value: T) {
    if let Some(mut kept) = variable.write_lock::<T>() {
        *kept = value;
        return;
    }
    // A variable that a closure captured is shared with it.
    if let Some(mut content) = variable.write_lock::<Dynamic>() {
        *content = Dynamic::from(value);
    }
}

fn read<T: Copy + Send + Sync + 'static>(scope: &Scope<'_>, variable: &str) -> Option<T> {
    Some(*scope.get(variable)?.read_lock::<T>()?)
}

/// Runs a shortcut. One that finds no result leaves no trace: rhai does all of it, from the same state.
fn undone_unless_known<R>(shortcut: impl FnOnce() -> Option<R>) -> Option<R> {
    let before = current(|call| call.trace());
    let known = shortcut();
    if known.is_none() {
        current(|call| call.restore(before));
    }
    known
}

impl Emit {
    /// Returns `None` if rhai must do it: nothing was done.
    fn emit(&self, scope: &Scope<'_>) -> Option<()> {
        undone_unless_known(|| {
            let value = self.literal.value(scope, 0)?;
            current(|call| {
                let fits = call.emitted_bytes <= self.limit;
                call.single("emit(..)").ok().filter(|_| fits).map(|span| span.effects.push(value))
            })
        })
    }
}

impl Literal {
    fn value(&self, scope: &Scope<'_>, depth: usize) -> Option<Value> {
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
    /// `None`: rhai is to do it.
    fn value(&self, scope: &Scope<'_>) -> Option<Dynamic> {
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

/// Returns whether all formulas are `wanted` (`&&`), or else the first that is not (`||`).
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
