//! Translates parsed statements into instructions.

use std::cell::RefCell;

use rhai::{AST, ASTNode, BinaryExpr, Expr, FnCallExpr, ImmutableString, Position, Stmt, StmtBlock, Token};

use super::{Condition, Each, Emit, Formula, If, Instruction, Literal, Pair, Plan, Range, Switch, While};
use crate::script::call::Part;
use crate::script::objects;

/// The facts about the script that decide between shortcuts and rhai.
struct Planner {
    /// The script has no `emit` of its own with one argument.
    emits: bool,
    limit: usize,
}

impl Plan {
    /// Plans the only function of `alone`. `script` is its whole file, and `limit` bounds the bytes that a call emits.
    pub(in crate::script) fn of(alone: &AST, script: &AST, limit: usize) -> Self {
        if !are_on() {
            return Self::without_shortcuts(&statements(alone));
        }
        let own_emit = script.iter_functions().any(|function| function.name == "emit" && function.params.len() == 1);
        Self(Planner { emits: !own_emit, limit }.block(&statements(alone)))
    }

    /// Leaves all statements to rhai.
    pub(in crate::script) fn without_shortcuts(statements: &[Stmt]) -> Self {
        Self(vec![Instruction::Rhai(whole(statements))])
    }
}

#[cfg(test)]
thread_local! {
    static PLAIN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Returns whether shortcuts are taken. Only a test leaves all to rhai.
pub(in crate::script) fn are_on() -> bool {
    #[cfg(test)]
    if PLAIN.get() {
        return false;
    }
    true
}

/// Runs a test without shortcuts on this thread.
#[cfg(test)]
pub(in crate::script) fn plain<R>(run: impl FnOnce() -> R) -> R {
    PLAIN.set(true);
    let result = run();
    PLAIN.set(false);
    result
}

fn statements(alone: &AST) -> Vec<Stmt> {
    let mut found = Vec::new();
    alone.walk(&mut |nodes| {
        if let [ASTNode::Stmt(statement)] = nodes {
            found.push((*statement).clone());
        }
        true
    });
    found
}

/// Wraps statements in an expression that rhai can run.
fn whole(statements: &[Stmt]) -> Expr {
    let position = statements.first().map_or(Position::NONE, Stmt::position);
    Expr::Stmt(Box::new(StmtBlock::new(statements.iter().cloned(), position, Position::NONE)))
}

impl Planner {
    fn block(&self, statements: &[Stmt]) -> Vec<Instruction> {
        let mut instructions = Vec::new();
        let mut left = 0;
        for (at, statement) in statements.iter().enumerate() {
            if let Some(instruction) = self.instruction(statement) {
                if left < at {
                    instructions.push(Instruction::Rhai(whole(&statements[left..at])));
                }
                instructions.push(instruction);
                left = at + 1;
            }
        }
        if left < statements.len() {
            instructions.push(Instruction::Rhai(whole(&statements[left..])));
        }
        instructions
    }

    fn instruction(&self, statement: &Stmt) -> Option<Instruction> {
        let rhais = || whole(std::slice::from_ref(statement));
        match statement {
            Stmt::For(parts, _) => {
                let (variable, None, flow) = &**parts else { return None };
                if let Expr::FnCall(call, _) = &flow.expr {
                    return self.range(&variable.name, call, flow.body.statements(), rhais);
                }
                let (over, variable) = (variable_name(&flow.expr)?, variable.name.clone());
                Some(Instruction::Each(Box::new(Each {
                    variable,
                    over,
                    body: self.block(flow.body.statements()),
                    whole: rhais(),
                })))
            }
            Stmt::If(flow, _) => Some(Instruction::If(Box::new(If {
                condition: condition(&flow.expr),
                then: self.block(flow.body.statements()),
                otherwise: self.block(flow.branch.statements()),
            }))),
            // A `loop` is parsed as a `while` without a condition.
            Stmt::While(flow, _) if !matches!(flow.expr, Expr::Unit(_)) => Some(Instruction::While(Box::new(While {
                condition: condition(&flow.expr),
                body: self.block(flow.body.statements()),
            }))),
            Stmt::Switch(parts, position) => {
                let (value, cases) = &**parts;
                let mut numbered = cases.clone();
                let arms = numbered.expressions.iter_mut().enumerate().map(|(number, case)| {
                    let number = Expr::IntegerConstant(number as i64, case.rhs.position());
                    self.arm(std::mem::replace(&mut case.rhs, number))
                });
                let arms = arms.collect();
                let is_plain = cases.expressions.iter().all(|case| matches!(case.lhs, Expr::BoolConstant(..)));
                Some(Instruction::Switch(Box::new(Switch {
                    value: formula(value).filter(|_| is_plain),
                    selector: whole(&[Stmt::Switch(Box::new((value.clone(), numbered)), *position)]),
                    arms,
                    selected: RefCell::default(),
                })))
            }
            // A `throw` has a flag.
            Stmt::Return(None, flags, _) if flags.is_empty() => Some(Instruction::Return),
            Stmt::FnCall(call, _) => self.emit(call, rhais),
            Stmt::Expr(expression) => match &**expression {
                Expr::FnCall(call, _) if call.op_token.is_none() => self.emit(call, rhais),
                expression => Some(Instruction::Value(Box::new((formula(expression)?, rhais())))),
            },
            _ => None,
        }
    }

    fn arm(&self, arm: Expr) -> Vec<Instruction> {
        match arm {
            Expr::Stmt(block) => self.block(block.statements()),
            expression => self.block(&[Stmt::Expr(Box::new(expression))]),
        }
    }

    fn range(
        &self,
        variable: &ImmutableString,
        call: &FnCallExpr,
        body: &[Stmt],
        whole: impl Fn() -> Expr,
    ) -> Option<Instruction> {
        let is_inclusive = match call.op_token {
            Some(Token::ExclusiveRange) => false,
            Some(Token::InclusiveRange) => true,
            _ => return None,
        };
        let [from, to] = &*call.args else { return None };
        let (from, to) = (formula(from)?, formula(to)?);
        let (variable, body) = (variable.clone(), self.block(body));
        Some(Instruction::Range(Box::new(Range { variable, from, to, is_inclusive, body, whole: whole() })))
    }

    fn emit(&self, call: &FnCallExpr, whole: impl Fn() -> Expr) -> Option<Instruction> {
        let [argument] = &*call.args else { return None };
        if !self.emits || call.name.as_str() != "emit" || call.is_qualified() || call.capture_parent_scope {
            return None;
        }
        Some(Instruction::Emit(Box::new(Emit { literal: literal(argument)?, limit: self.limit, whole: whole() })))
    }
}

fn literal(expression: &Expr) -> Option<Literal> {
    match expression {
        Expr::Map(parts, _) => {
            let mut keys: Vec<_> = parts.0.iter().map(|(key, _)| key.name.as_str()).collect();
            keys.sort_unstable();
            let entries = parts.0.iter().map(|(key, value)| {
                Some((keys.binary_search(&key.name.as_str()).ok()?, key.name.clone(), literal(value)?))
            });
            entries.collect::<Option<_>>().map(Literal::Map)
        }
        Expr::Array(items, _) => items.iter().map(literal).collect::<Option<_>>().map(Literal::List),
        other => formula(other).map(Literal::Leaf),
    }
}

fn formula(expression: &Expr) -> Option<Formula> {
    if let Some(name) = variable_name(expression) {
        return Some(Formula::Variable(name));
    }
    match expression {
        Expr::Dot(..) => chain(expression),
        Expr::And(of, _) => formulas(of).map(Formula::All),
        Expr::Or(of, _) => formulas(of).map(Formula::Any),
        Expr::FnCall(call, _) => operation(call),
        Expr::DynamicConstant(..)
        | Expr::BoolConstant(..)
        | Expr::IntegerConstant(..)
        | Expr::FloatConstant(..)
        | Expr::StringConstant(..)
        | Expr::Unit(_) => expression.get_literal_value(None).map(Formula::Constant),
        _ => None,
    }
}

fn condition(expression: &Expr) -> Condition {
    Condition { formula: formula(expression), whole: expression.clone() }
}

fn formulas(of: &[Expr]) -> Option<Vec<Formula>> {
    of.iter().map(formula).collect()
}

fn operation(call: &FnCallExpr) -> Option<Formula> {
    let operator = call.op_token.as_ref()?;
    match (operator, &*call.args) {
        (Token::Bang, [of]) => Some(Formula::Not(Box::new(formula(of)?))),
        (operator, [a, b]) => Some(Formula::Pair(pair(operator)?, Box::new((formula(a)?, formula(b)?)))),
        _ => None,
    }
}

fn pair(operator: &Token) -> Option<Pair> {
    Some(match operator {
        Token::EqualsTo => Pair::Equal,
        Token::NotEqualsTo => Pair::Unequal,
        Token::LessThan => Pair::Less,
        Token::LessThanEqualsTo => Pair::LessOrEqual,
        Token::GreaterThan => Pair::Greater,
        Token::GreaterThanEqualsTo => Pair::GreaterOrEqual,
        Token::Plus => Pair::Plus,
        Token::Minus => Pair::Minus,
        Token::Multiply => Pair::Times,
        Token::Modulo => Pair::Modulo,
        _ => return None,
    })
}

/// Translates `variable.property` and `variable.data.name`.
fn chain(expression: &Expr) -> Option<Formula> {
    let parts = plain_dot(expression)?;
    let variable = variable_name(&parts.lhs)?;
    let mut names = Vec::new();
    properties(&parts.rhs, &mut names)?;
    if let [property] = &*names {
        let (of_event, of_stream) = (objects::of_event(property), objects::of_stream(property));
        return (of_event.is_some() || of_stream.is_some()).then_some(Formula::Property {
            variable,
            of_event,
            of_stream,
        });
    }
    let part = match names.remove(0).as_str() {
        "data" => Part::Data,
        "meta" => Part::Meta,
        _ => return None,
    };
    Some(Formula::Field { variable, part, names })
}

fn properties(expression: &Expr, names: &mut Vec<ImmutableString>) -> Option<()> {
    if let Expr::Property(property, _) = expression {
        names.push(property.2.clone());
        return Some(());
    }
    let parts = plain_dot(expression)?;
    properties(&parts.lhs, names)?;
    properties(&parts.rhs, names)
}

/// Returns the parts of `a.b`, but not those of `a?.b`.
fn plain_dot(expression: &Expr) -> Option<&BinaryExpr> {
    match expression {
        Expr::Dot(parts, flags, _) if flags.is_empty() => Some(parts),
        _ => None,
    }
}

/// Returns the name of a variable, unless it belongs to a module.
fn variable_name(expression: &Expr) -> Option<ImmutableString> {
    match expression {
        Expr::Variable(parts, ..) if parts.2.is_empty() => Some(parts.1.clone()),
        _ => None,
    }
}
