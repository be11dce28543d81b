//! Shortcuts around rhai for the statements of nearly every script: loops over events, conditions and `switch` on their
//! properties, `return`, and `emit` of a literal.
//!
//! For each property and each call rhai hashes a name with types to find a function, checks sizes and boxes the result.
//! That takes some hundred nanoseconds each. A [`Plan`] is the body of `handle` as a list of instructions. A statement of a
//! known shape becomes an instruction of its own. Every other statement stays as parsed, and rhai runs it. Both work on
//! the same variables.
//!
//! At run time a statement can turn out not to be of its shape: a variable holds a list, a field is not an object, a text
//! is too long. The shortcut then undoes its reads, and rhai runs the whole statement and reports its errors.

mod formula;
mod plan;

pub(super) use plan::are_on;
#[cfg(test)]
pub(super) use plan::plain;

use std::cell::RefCell;
use std::ops::ControlFlow;

use hashbrown::HashMap;
use rhai::{
    Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, GlobalRuntimeState, ImmutableString, Position, Scope,
};

use self::formula::{Formula, Literal, Pair, read};
use super::call::{Failure, Handle, current};
use super::objects::{EventObject, EventsObject};
use super::program::Watch;

/// The body of a function.
pub(super) struct Plan(Vec<Instruction>);

/// A statement, or several that rhai runs. Each shortcut also keeps its statement as parsed, as rhai may have to run it.
enum Instruction {
    Each(Box<Each>),
    Range(Box<Range>),
    While(Box<While>),
    If(Box<If>),
    Switch(Box<Switch>),
    /// `return;`
    Return,
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

/// `switch value { case => arm, .. }`
struct Switch {
    /// `None` if rhai must evaluate the value, or conditions of the cases.
    value: Option<Formula>,
    /// The statement with its arms replaced by their numbers.
    selector: Expr,
    arms: Vec<Vec<Instruction>>,
    /// The arms, or none, that rhai selected for earlier texts.
    selected: RefCell<HashMap<ImmutableString, Option<usize>>>,
}

/// The number of texts whose arms a `switch` keeps. A script has few types of events.
const KEPT_TEXTS: usize = 64;

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
    ///
    /// `has_captures`: the script has closures that capture variables. A closure that captures the variable that holds it
    /// is a reference cycle, which nothing would free.
    pub(super) fn run(&self, mut machine: Machine<'_>, has_captures: bool) -> Result<Dynamic, Failure> {
        let before = machine.depth();
        let result = machine.statements(&self.0);
        if has_captures {
            empty_shared(machine.scope);
        }
        machine.rewind(before);
        result.or_else(|error| match *error {
            EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok(value),
            error => Err(error.into()),
        })
    }
}

impl Machine<'_> {
    /// Returns the numbers of variables and imports.
    fn depth(&self) -> (usize, usize) {
        (self.scope.len(), self.global.num_imports())
    }

    /// Removes later variables and imports.
    fn rewind(&mut self, (variables, imports): (usize, usize)) {
        self.scope.rewind(variables);
        self.global.truncate_imports(imports);
        self.global.always_search_scope = false;
    }

    fn block(&mut self, instructions: &[Instruction]) -> Result<Dynamic, Failure> {
        let before = self.depth();
        let last = self.statements(instructions);
        self.rewind(before);
        last
    }

    /// Returns the value of the last statement.
    fn statements(&mut self, instructions: &[Instruction]) -> Result<Dynamic, Failure> {
        instructions.iter().try_fold(Dynamic::UNIT, |_, instruction| self.instruction(instruction))
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
            Instruction::Switch(switch) => match self.select(switch)? {
                Some(arm) => self.block(&switch.arms[arm]),
                None => Ok(Dynamic::UNIT),
            },
            Instruction::Return => Err(EvalAltResult::Return(Dynamic::UNIT, Position::NONE).into()),
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

    /// Returns the number of the arm to run, if any. The same text always selects the same arm.
    fn select(&mut self, switch: &Switch) -> Result<Option<usize>, Failure> {
        let value = switch.value.as_ref().and_then(|value| undone_unless_known(|| value.value(self.scope)));
        let text = value.and_then(|value| value.into_immutable_string().ok());
        let known = text.as_ref().and_then(|text| switch.selected.borrow().get(text).copied());
        if let Some(arm) = known {
            return Ok(arm);
        }
        let arm = self.rhai(&switch.selector, true)?.as_int().ok().map(|number| number as usize);
        let mut selected = switch.selected.borrow_mut();
        if let Some(text) = text
            && selected.len() < KEPT_TEXTS
        {
            selected.insert(text, arm);
        }
        Ok(arm)
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
        // The last number of an exclusive range is below its end, unless there is none.
        let last = if range.is_inclusive { Some(to) } else { to.checked_sub(1) };
        for number in last.into_iter().flat_map(|last| from..=last) {
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

/// Empties the variables that closures have captured. No closure runs any more, and effects hold copies.
fn empty_shared(scope: &Scope<'_>) {
    for (_, _, value) in scope.iter_raw().filter(|(_, _, value)| value.is_shared()) {
        let mut shared = value.clone();
        let content = shared.write_lock::<Dynamic>().map(|mut content| std::mem::take(&mut *content));
        // Dropped once the lock is free: the content can hold the last reference to another variable.
        drop(content);
    }
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
