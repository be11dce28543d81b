//! Shortcuts around rhai for the statements of nearly every script: loops over events, conditions on their properties,
//! and `emit` of a literal.
//!
//! For each property and each call rhai hashes a name with types to find a function, checks sizes and boxes the result.
//! That takes some hundred nanoseconds each. A [`Plan`] is the body of `handle` as a list of instructions. A statement of a
//! known shape becomes an instruction of its own. Every other statement stays as parsed, and rhai runs it. Both work on
//! the same variables.
//!
//! At run time a statement can turn out not to be of its shape: a variable holds a list, a field is not an object, a text
//! is too long. The shortcut then undoes its reads, and rhai runs the whole statement and reports its errors.

mod plan;

pub(super) use plan::are_on;
#[cfg(test)]
pub(super) use plan::plain;

use std::ops::ControlFlow;

use rhai::{
    Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, GlobalRuntimeState, ImmutableString, Position, Scope,
};

use super::call::{Failure, Handle, Part, Seen, current};
use super::convert;
use super::objects::{EventObject, EventsObject, Getter, StreamObject};
use super::program::Watch;
use crate::effect::Value;

/// The body of a function.
pub(super) struct Plan(Vec<Instruction>);

/// A statement, or several that rhai runs. Each shortcut also keeps its statement as parsed, as rhai may have to run it.
enum Instruction {
    Each(Box<Each>),
    Range(Box<Range>),
    While(Box<While>),
    If(Box<If>),
    Emit(Box<Emit>),
    Value(Box<(Formula, Expr)>),
    Rhai(Expr),
}

/// `for variable in over { .. }`, where `over` is a variable.
struct Each {
    variable: ImmutableString,
    over: ImmutableString,
    body: Vec<Instruction>,
    whole: Expr,
}

/// `for variable in from..to { .. }`
struct Range {
    variable: ImmutableString,
    from: Formula,
    to: Formula,
    is_inclusive: bool,
    body: Vec<Instruction>,
    whole: Expr,
}

/// `while condition { .. }`
struct While {
    condition: Condition,
    body: Vec<Instruction>,
}

struct If {
    condition: Condition,
    then: Vec<Instruction>,
    otherwise: Vec<Instruction>,
}

struct Condition {
    /// `None` if rhai must evaluate the condition.
    formula: Option<Formula>,
    whole: Expr,
}

/// `emit(literal)`
struct Emit {
    literal: Literal,
    /// The limit on the bytes that a call emits.
    limit: usize,
    whole: Expr,
}

enum Literal {
    /// The entries in the order of evaluation. The number of each is its position among the sorted keys, which is the
    /// order of rhai's maps.
    Map(Vec<(usize, ImmutableString, Literal)>),
    List(Vec<Literal>),
    Leaf(Formula),
}

/// An expression without side effects.
enum Formula {
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

/// The state of rhai on which the instructions of a function run.
pub(super) struct Machine<'a> {
    pub(super) engine: &'a Engine,
    pub(super) global: &'a mut GlobalRuntimeState,
    pub(super) caches: &'a mut Caches,
    pub(super) scope: &'a mut Scope<'static>,
    pub(super) watch: &'a Watch,
}

impl Plan {
    /// Runs the body, and removes its variables afterwards.
    pub(super) fn run(&self, mut machine: Machine<'_>) -> Result<Dynamic, Failure> {
        machine.block(&self.0).or_else(|error| match *error {
            EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok(value),
            error => Err(error.into()),
        })
    }
}

impl Machine<'_> {
    fn block(&mut self, instructions: &[Instruction]) -> Result<Dynamic, Failure> {
        let (variables, imports) = (self.scope.len(), self.global.num_imports());
        let last = instructions.iter().try_fold(Dynamic::UNIT, |_, instruction| self.instruction(instruction));
        self.scope.rewind(variables);
        self.global.truncate_imports(imports);
        self.global.always_search_scope = false;
        last
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<Dynamic, Failure> {
        self.count()?;
        match instruction {
            Instruction::Each(each) => self.each(each),
            Instruction::Range(range) => self.range(range),
            Instruction::While(repeated) => self.repeat(repeated),
            Instruction::If(branch) => {
                let chosen = if self.holds(&branch.condition)? { &branch.then } else { &branch.otherwise };
                self.block(chosen)
            }
            Instruction::Emit(emit) => match emit.emit(self.scope) {
                Some(()) => Ok(Dynamic::UNIT),
                None => self.rhai(&emit.whole, false),
            },
            Instruction::Value(value) => match undone_unless_known(|| value.0.value(self.scope)) {
                Some(value) => Ok(value),
                None => self.rhai(&value.1, false),
            },
            Instruction::Rhai(statements) => self.rhai(statements, false),
        }
    }

    /// Counts an operation, as rhai does for its own.
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
            // Counts even for an empty body. Otherwise nothing would end `while true { }`.
            self.count()?;
            if let ControlFlow::Break(value) = self.turn(&repeated.body)? {
                return Ok(value);
            }
        }
        Ok(Dynamic::UNIT)
    }

    /// Runs the body of a loop once.
    fn turn(&mut self, body: &[Instruction]) -> Result<ControlFlow<Dynamic>, Failure> {
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

/// Sets a variable. Reuses its allocation if it holds a value of the same type.
pub(super) fn put<T: Clone + Send + Sync + 'static>(variable: &mut Dynamic, value: T) {
    if let Some(mut kept) = variable.write_lock::<T>() {
        *kept = value;
        return;
    }
    // A closure has captured this variable and shares its value.
    if let Some(mut content) = variable.write_lock::<Dynamic>() {
        *content = Dynamic::from(value);
    }
}

fn read<T: Copy + Send + Sync + 'static>(scope: &Scope<'_>, variable: &str) -> Option<T> {
    Some(*scope.get(variable)?.read_lock::<T>()?)
}

/// Runs a shortcut. Without a result the state is restored, so that rhai can run the whole statement.
fn undone_unless_known<R>(shortcut: impl FnOnce() -> Option<R>) -> Option<R> {
    let before = current(|call| call.trace());
    let known = shortcut();
    if known.is_none() {
        current(|call| call.restore(before));
    }
    known
}

impl Emit {
    /// Emits the literal. Returns `None` without an effect if rhai must run the statement.
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
    /// Returns the value of the formula, or `None` if rhai must evaluate it.
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
