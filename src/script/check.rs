//! Static checks for calls that fail once they are reached.
//!
//! rhai compiles calls of functions that do not exist. This walk over the syntax tree reports those that can never work. It
//! reports no call that might: a name that is also a variable may hold a function, and only the methods of the host's
//! objects are known.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use rhai::{AST, ASTNode, Engine, Expr, FnCallExpr, Position, Stmt, StmtBlock};
use serde::Deserialize;

use super::entry::Entry;
use super::problem::Problem;
use super::sources::{SourceFile, Sources};
use crate::config::document::closest;

/// Functions that rhai resolves by name, with any arguments.
const SYNTAX: [&str; 10] =
    ["type_of", "is_def_var", "is_def_fn", "Fn", "call", "curry", "is_shared", "print", "debug", "eval"];

/// Functions without any effect but their result.
const RESULTS: [&str; 4] = ["done", "upto", "defer", "malformed"];

/// The methods of the host's objects: object, method, numbers of arguments.
const METHODS: [(&str, &str, &[usize]); 10] = [
    ("log", "debug", &[1]),
    ("log", "info", &[1]),
    ("log", "warn", &[1]),
    ("log", "error", &[1]),
    ("metric", "inc", &[1, 2]),
    ("time", "now", &[0]),
    ("time", "parse", &[1]),
    ("json", "parse", &[1]),
    ("json", "text", &[1]),
    ("params", "contains", &[1]),
];

/// Checks all files of a script.
pub(super) fn check(engine: &Engine, sources: &Sources, asts: &[AST], entry: Entry) -> Vec<Problem> {
    let mut natives = Natives::of(engine);
    if entry != Entry::HandleBatch {
        natives.forget_spans();
    }
    let mut problems: Vec<_> = (0..asts.len())
        .flat_map(|number| {
            let file = &sources.files[number];
            let walk = Walk { natives: &natives, sources, asts, number, variables: variables(&asts[number]), entry };
            walk.problems()
                .into_iter()
                .map(|(position, found)| Problem::at(&file.name, &file.text, position, found.message).help(found.help))
        })
        .collect();
    sort(&mut problems);
    problems
}

/// Returns the position of the first statement of a function. rhai keeps no position of the function itself.
pub(super) fn first_statement(ast: &AST, name: &str) -> Position {
    let functions = ast.shared_lib();
    let found = functions.iter_script_fn_info().find(|(_, _, known, _, _)| *known == name);
    found.map_or(Position::NONE, |(_, _, _, _, function)| function.body.start_position())
}

/// Finds functions whose name and number of parameters another file of the script, or the engine, also has.
///
/// rhai caches resolved functions by name and number of arguments for all files together. The one called first would
/// answer for the other.
pub(super) fn clashes(engine: &Engine, sources: &Sources, asts: &[AST]) -> Vec<Problem> {
    if asts.len() == 1 {
        return Vec::new();
    }
    let natives = Natives::of(engine);
    let mut defined: HashMap<(String, usize), usize> = HashMap::new();
    let mut problems = Vec::new();
    for (number, (ast, file)) in asts.iter().zip(sources.files.iter()).enumerate() {
        let functions = ast.shared_lib();
        for (_, _, name, count, function) in functions.iter_script_fn_info().filter(|function| is_plain(function.2)) {
            let other = match defined.insert((name.to_owned(), count), number) {
                Some(other) => format!("is defined in `{}` too", sources.files[other].name),
                None if natives.0.get(name).is_some_and(|counts| counts.contains(&count)) => "is built in".to_owned(),
                None => continue,
            };
            let plural = if count == 1 { "" } else { "s" };
            let message = format!(
                "`{name}` with {count} parameter{plural} {other}: the functions of a script with several files need distinct names"
            );
            problems.push(Problem::at(&file.name, &file.text, function.body.start_position(), message));
        }
    }
    sort(&mut problems);
    problems
}

fn sort(problems: &mut Vec<Problem>) {
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    problems.dedup();
}

/// The functions of the engine, with their numbers of arguments.
struct Natives(HashMap<String, BTreeSet<usize>>);

impl Natives {
    fn of(engine: &Engine) -> Self {
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            functions: Vec<Function>,
        }
        #[derive(Deserialize)]
        struct Function {
            name: String,
            #[serde(rename = "numParams")]
            params: usize,
        }
        let json = engine.gen_fn_metadata_to_json(true).expect("the engine's own functions can be written as JSON");
        let metadata: Metadata = serde_json::from_str(&json).expect("rhai writes `functions` with `name`, `numParams`");
        let mut known: HashMap<_, BTreeSet<_>> = HashMap::new();
        for function in metadata.functions {
            known.entry(function.name).or_default().insert(function.params);
        }
        Self(known)
    }

    /// Removes the forms for spans, such as `span.emit(value)`. They have the highest number of arguments.
    fn forget_spans(&mut self) {
        for name in RESULTS.iter().chain(&["emit"]) {
            if let Some(counts) = self.0.get_mut(*name) {
                counts.pop_last();
            }
        }
    }
}

/// A problem of a call, with a suggestion.
struct Finding {
    message: String,
    help: Option<String>,
}

impl From<String> for Finding {
    fn from(message: String) -> Self {
        Self { message, help: None }
    }
}

struct Walk<'a> {
    natives: &'a Natives,
    sources: &'a Sources,
    asts: &'a [AST],
    number: usize,
    variables: BTreeSet<String>,
    entry: Entry,
}

impl Walk<'_> {
    fn problems(&self) -> Vec<(Position, Finding)> {
        let mut found = Vec::new();
        self.ast().walk(&mut |nodes| {
            let problem = match nodes {
                [.., ASTNode::Expr(Expr::FnCall(call, position))]
                | [.., ASTNode::Stmt(Stmt::FnCall(call, position))] => self.call(call).map(|found| (*position, found)),
                [.., ASTNode::Expr(Expr::Dot(dot, ..))] => match (&dot.lhs, &dot.rhs) {
                    (Expr::Variable(name, ..), Expr::MethodCall(call, position)) if name.2.is_empty() => {
                        self.method(&name.1, call).map(|found| (*position, found))
                    }
                    _ => None,
                },
                _ => None,
            };
            found.extend(problem);
            found.extend(lost_result(nodes).map(|(call, position)| (position, lost(call))));
            true
        });
        found
    }

    fn ast(&self) -> &AST {
        &self.asts[self.number]
    }

    fn file(&self) -> &SourceFile {
        &self.sources.files[self.number]
    }

    /// Checks a call in function style.
    fn call(&self, call: &FnCallExpr) -> Option<Finding> {
        let (name, count) = (call.name.as_str(), call.args.len());
        if call.op_token.is_some() || SYNTAX.contains(&name) || self.variables.contains(name) {
            return None;
        }
        if !call.namespace.is_empty() {
            return self.qualified(call);
        }
        let mut arities: BTreeSet<usize> = own_functions(self.ast(), name).collect();
        if let Some(natives) = self.natives.0.get(name) {
            arities.extend(natives);
        }
        if name == "sleep" {
            return Some(Finding {
                message: "a script cannot sleep".to_owned(),
                help: Some("write `return defer(\"5s\");`".to_owned()),
            });
        }
        if name == "upto" && self.entry == Entry::HandleEvent && arities.contains(&count) {
            return Some(Finding {
                message: "`upto(..)` decides about several events, and `handle_event` gets one".to_owned(),
                help: Some("return nothing once the event is handled, or write `fn handle(stream, events)`".to_owned()),
            });
        }
        let own = self.ast().iter_functions().map(|function| function.name.to_owned());
        let known = own.chain(self.natives.0.keys().filter(|name| is_plain(name)).cloned());
        wrong_call(name, count, &arities, known)
    }

    /// Checks a call of `alias::function(..)`.
    fn qualified(&self, call: &FnCallExpr) -> Option<Finding> {
        let alias = call.namespace.root();
        if alias == "global" || call.namespace.path.len() != 1 {
            return None;
        }
        let mut imports = self.file().imports.iter().filter(|import| import.alias == alias);
        match (imports.next(), imports.next()) {
            (None, _) => Some(format!("no module is imported as `{alias}` in this file").into()),
            (Some(import), None) => {
                let module = &self.asts[import.file];
                let arities: BTreeSet<usize> = own_functions(module, &call.name).collect();
                let known = module.iter_functions().map(|function| function.name.to_owned());
                let problem = wrong_call(&call.name, call.args.len(), &arities, known)?;
                let module = &self.sources.files[import.file].name;
                Some(Finding { message: format!("{} (in the module `{module}`)", problem.message), ..problem })
            }
            // Several imports have this alias. The scope of the call decides between them, which this walk does not track.
            (Some(_), Some(_)) => None,
        }
    }

    /// Checks a method call on one of the host's objects.
    fn method(&self, object: &str, call: &FnCallExpr) -> Option<Finding> {
        let methods = METHODS.iter().filter(|(known, ..)| *known == object && object != "params");
        let mut methods = methods.peekable();
        methods.peek()?;
        if self.variables.contains(object) || SYNTAX.contains(&call.name.as_str()) && object != "log" {
            return None;
        }
        let known: Vec<_> = methods.collect();
        let arities: BTreeSet<usize> = known
            .iter()
            .filter(|(_, name, _)| *name == call.name)
            .flat_map(|(.., counts)| counts.iter().copied())
            .collect();
        let names = known.iter().map(|(_, name, _)| (*name).to_owned());
        wrong_call(&call.name, call.args.len(), &arities, names)
            .map(|found| Finding { message: format!("`{object}`: {}", found.message), ..found })
    }
}

pub(super) fn own_functions<'a>(ast: &'a AST, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    ast.iter_functions().filter(move |function| function.name == name).map(|function| function.params.len())
}

/// Returns whether a script can call this name. Operators and property functions are not callable.
fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn wrong_call(
    name: &str,
    count: usize,
    arities: &BTreeSet<usize>,
    known: impl Iterator<Item = String>,
) -> Option<Finding> {
    if arities.contains(&count) {
        return None;
    }
    if arities.is_empty() {
        let known: Vec<_> = known.collect();
        let near = closest(name, &known.iter().map(String::as_str).collect::<Vec<_>>());
        let help = near.map(|near| format!("did you mean `{near}`?"));
        return Some(Finding { message: format!("there is no function `{name}`"), help });
    }
    let counts: Vec<_> = arities.iter().map(ToString::to_string).collect();
    let plural = if counts == ["1"] { "" } else { "s" };
    Some(Finding::from(format!("`{name}` takes {} argument{plural}, not {count}", counts.join(" or "))))
}

/// Returns the names of all variables and parameters of a file.
fn variables(ast: &AST) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    ast.walk(&mut |nodes| {
        match nodes.last() {
            Some(ASTNode::Stmt(Stmt::Var(var, ..))) => {
                found.insert(var.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::For(each, _))) => {
                found.insert(each.0.name.to_string());
                found.extend(each.1.as_ref().map(|counter| counter.name.to_string()));
            }
            Some(ASTNode::Stmt(Stmt::TryCatch(caught, _))) => {
                if let Expr::Variable(name, ..) = &caught.expr {
                    found.insert(name.1.to_string());
                }
            }
            _ => {}
        }
        true
    });
    for function in ast.iter_functions() {
        found.extend(function.params.iter().map(|param| (*param).to_owned()));
    }
    found
}

/// Returns the call of `upto(n);` and the like if this statement loses its value: in a loop, or in a block that continues
/// after it.
fn lost_result<'a>(nodes: &[ASTNode<'a>]) -> Option<(&'a FnCallExpr, Position)> {
    let (ASTNode::Stmt(statement), around) = nodes.split_last().map(|(last, around)| (*last, around))? else {
        return None;
    };
    let (call, position) = match statement {
        Stmt::FnCall(call, position) => (&**call, *position),
        Stmt::Expr(expr) => match &**expr {
            Expr::FnCall(call, position) => (&**call, *position),
            _ => return None,
        },
        _ => return None,
    };
    (is_result(call) && is_lost(statement, around)).then_some((call, position))
}

fn is_lost(statement: &Stmt, around: &[ASTNode<'_>]) -> bool {
    let mut inner = statement;
    for node in around.iter().rev() {
        let ASTNode::Stmt(outer) = node else {
            return false;
        };
        let blocks: &[&StmtBlock] = match outer {
            Stmt::For(..) | Stmt::While(..) | Stmt::Do(..) => return true,
            Stmt::If(branches, _) => &[&branches.body, &branches.branch],
            Stmt::Block(block) => &[&**block],
            _ => return false,
        };
        let is_last = |block: &&StmtBlock| block.statements().last().is_some_and(|last| std::ptr::eq(last, inner));
        if !blocks.iter().any(is_last) {
            return true;
        }
        inner = outer;
    }
    false
}

fn is_result(call: &FnCallExpr) -> bool {
    call.namespace.is_empty() && RESULTS.contains(&call.name.as_str())
}

fn lost(call: &FnCallExpr) -> Finding {
    let name = &call.name;
    let help = Some(format!("write `return {name}(..);`"));
    Finding { message: format!("the result of `{name}(..)` is lost here"), help }
}
