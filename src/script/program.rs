//! A script ready to run: an engine with its limits and API, the compiled files, and the state that calls share.
//!
//! Every thread has its own program, so that threads share no reference count, lock or cache. The state persists between
//! calls: top-level statements run once, and their imports, constants and resolved functions stay.

use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use hashbrown::HashMap;
use rhai::packages::{Package, StandardPackage};
use rhai::{
    AST, ASTNode, Caches, Dynamic, Engine, EvalAltResult, Expr, GlobalRuntimeState, ImmutableString, Module,
    ModuleResolver, OptimizationLevel, Position, Scope, Shared, Stmt,
};

use super::api::{self, Host};
use super::call::{Failure, Handle, current};
use super::failure;
use super::objects::{EventObject, EventsObject, StreamObject};
use super::problem::Problem;
use super::shortcuts::{self, Machine, Plan};
use super::sources::Sources;
use super::upcast::{self, Upcast};
use super::{Inner, Limits, Options, builtins, document, memory, methods, objects};
use crate::clock::Clock;

/// The longest string of top-level statements. It keeps the check of a script cheap.
const TOP_LEVEL_STRING_BYTES: usize = 4 << 20;

/// The number of operations between two looks at the clock. One operation may be a built-in function that takes some
/// milliseconds, so that there must not be many.
const OPERATIONS_A_LOOK: u64 = 32;

/// The name of the import by which the host calls `upcast` in a module. No script is likely to choose it.
const UPCAST_MODULE: &str = "propulsiond_upcast";

/// The standard functions of rhai. Building this module is slow, so all engines share it.
static STANDARD: LazyLock<Shared<Module>> = LazyLock::new(|| StandardPackage::new().as_shared_module());

/// The time limit of calls.
pub(super) struct Watch {
    clock: Clock,
    timeout: Duration,
}

impl Watch {
    fn start(timeout: Duration) -> Self {
        Self { clock: Clock::start(), timeout }
    }

    /// Returns whether the call exceeds its time limit. Reads the clock once per [`OPERATIONS_A_LOOK`] operations.
    pub(super) fn is_over(&self, operations: u64) -> bool {
        operations.is_multiple_of(OPERATIONS_A_LOOK) && current(|call| call.is_overdue(&self.clock, self.timeout))
    }
}

/// A function that the pipeline calls.
struct Function {
    params: Vec<ImmutableString>,
    body: Plan,
    /// The parameters, which stay between calls, and during a call the variables.
    scope: Scope<'static>,
}

impl Function {
    fn new(params: Vec<ImmutableString>, body: Plan) -> Self {
        let mut scope = Scope::new();
        for name in &params {
            scope.push_dynamic(name.as_str(), Dynamic::UNIT);
        }
        Self { params, body, scope }
    }

    /// Returns a function of the script.
    fn of(ast: &AST, name: &str, arity: usize, options: &Options) -> Self {
        let mut alone = ast.clone_functions_only();
        alone.retain_functions(|_, _, known, params| known == name && params == arity);
        let params = alone.shared_lib().get_script_fn(name, arity).map(|function| function.params.to_vec());
        let body = Plan::of(&alone, ast, options.limits.emitted_bytes);
        Self::new(params.unwrap_or_default(), body)
    }

    fn set_parameter<T: Clone + Send + Sync + 'static>(&mut self, number: usize, value: T) {
        if let Some(parameter) = self.scope.get_mut(&self.params[number]) {
            shortcuts::put(parameter, value);
        }
    }
}

/// A script for one thread.
pub(super) struct Program {
    runtime: Runtime,
    entry: Function,
    upcast: Option<Function>,
}

/// The state that all calls share.
struct Runtime {
    engine: Engine,
    global: GlobalRuntimeState,
    caches: Caches,
    watch: Watch,
    memory_bytes: usize,
    has_captures: bool,
}

impl Program {
    /// Compiles the files and runs their top-level statements.
    pub(super) fn build(script: &Inner) -> Result<Self, Problem> {
        let Inner { sources, host, options, entry, upcast, .. } = script;
        let mut engine = engine(host, options);
        let asts = sources.parse(&engine, &host_scope(host))?;
        document::register(&mut engine, properties(&asts).iter());
        let has_captures = asts.iter().any(has_captures);
        let ast = asts[0].clone();
        engine.set_module_resolver(Modules { sources: sources.clone(), asts, made: Mutex::default() });
        // The interner has a lock, which costs more than copies of the strings that a running script makes.
        engine.set_max_strings_interned(0);
        let mut caches = Caches::new();
        caches.push_fn_resolution_cache();
        let mut global = engine.new_global_runtime_state();
        global.lib.push(Shared::clone(ast.shared_lib()));
        global.source = ast.source().map(ImmutableString::from);
        let (watch, memory_bytes) = (Watch::start(options.timeout), options.limits.memory_bytes);
        let mut runtime = Runtime { engine, global, caches, watch, memory_bytes, has_captures };
        runtime.engine.set_max_string_size(options.limits.string_bytes.min(TOP_LEVEL_STRING_BYTES));
        runtime.run_top_level(&ast, sources, options.timeout)?;
        runtime.engine.set_max_string_size(options.limits.string_bytes);
        let upcast = upcast.as_ref().map(|upcast| runtime.link(upcast, sources)).transpose()?;
        // The calls run in the bodies of functions.
        (runtime.global.level, runtime.global.scope_level) = (1, 1);
        Ok(Self { runtime, entry: Function::of(&ast, entry.name(), entry.arity(), options), upcast })
    }

    /// Begins a call. Its limits hold for all functions that it runs.
    pub(super) fn begin(&mut self) {
        self.runtime.global.num_operations = <_>::default();
        self.runtime.global.num_modules_loaded = 0;
    }

    /// Runs `handle(stream, events)`.
    pub(super) fn handle(&mut self, span: Handle) -> Result<Dynamic, Failure> {
        self.entry.set_parameter(0, StreamObject(span));
        self.entry.set_parameter(1, EventsObject(span));
        self.runtime.run(&mut self.entry)
    }

    /// Runs `handle_event(stream, event)`.
    pub(super) fn handle_event(&mut self, span: Handle, event: Handle) -> Result<Dynamic, Failure> {
        self.entry.set_parameter(0, StreamObject(span));
        self.entry.set_parameter(1, EventObject(event));
        self.runtime.run(&mut self.entry)
    }

    /// Runs `handle_batch(spans)`.
    pub(super) fn handle_batch(&mut self, spans: Dynamic) -> Result<Dynamic, Failure> {
        self.entry.set_parameter(0, spans);
        self.runtime.run(&mut self.entry)
    }

    /// Runs `upcast(event)`. Without that function, the event is its own newest form.
    pub(super) fn upcast(&mut self, event: Handle) -> Result<Dynamic, Failure> {
        let event = EventObject(event);
        let Some(upcast) = &mut self.upcast else { return Ok(Dynamic::from(event)) };
        upcast.set_parameter(0, event);
        self.runtime.run(upcast)
    }
}

impl Runtime {
    /// Runs the statements outside functions. Their constants stay as `global::NAME`, and so do their imports.
    #[expect(deprecated, reason = "the only way to keep the imports of a script for later calls")]
    fn run_top_level(&mut self, ast: &AST, sources: &Sources, timeout: Duration) -> Result<(), Problem> {
        current(|call| drop(call.end_batch(&mut [])));
        memory::begin(self.memory_bytes, self.has_captures);
        let mut scope = Scope::new();
        let statements = ast.statements();
        let ran = self.engine.eval_statements_raw(&mut self.global, &mut self.caches, &mut scope, statements);
        current(|call| drop(call.end_batch(&mut [])));
        let Err(error) = ran else {
            return Ok(());
        };
        let position = error.position();
        let (inner, file) = failure::innermost(*error, &sources.main().name);
        let position = if inner.position().is_none() { position } else { inner.position() };
        let message = match inner {
            EvalAltResult::ErrorTerminated(..) => {
                format!("the top-level statements ran for longer than {}", humantime::format_duration(timeout))
            }
            inner => match failure::describe(inner) {
                limit if limit.starts_with("the call ") => limit.replacen("the call", "the top-level statements", 1),
                why => format!("the top-level statements fail: {why}"),
            },
        };
        let text = sources.files.iter().find(|known| known.name == file).map_or("", |known| &known.text);
        Err(Problem::at(&file, text, position, message))
    }

    /// Returns the call of `upcast` in its file.
    ///
    /// rhai makes the call, as only it gives a function of a module the imports and functions of that module.
    #[expect(deprecated, reason = "the only way to keep an import for later calls")]
    fn link(&mut self, upcast: &Upcast, sources: &Sources) -> Result<Function, Problem> {
        let mut scope = Scope::new();
        scope.push("event", ());
        let text = match sources.import_of(upcast.file) {
            None => format!("{}(event)", upcast::NAME),
            Some(path) => {
                scope.push("file", ImmutableString::from(path));
                format!("import file as {UPCAST_MODULE}; {UPCAST_MODULE}::{}(event)", upcast::NAME)
            }
        };
        let problem = |why: String| Problem::of(&upcast.place, format!("`upcast` cannot be called: {why}"));
        let ast = self.engine.compile_with_scope(&scope, text).map_err(|error| problem(error.to_string()))?;
        let (call, imports) = ast.statements().split_last().expect("the text has a call");
        self.global.num_modules_loaded = 0;
        let imported = self.engine.eval_statements_raw(&mut self.global, &mut self.caches, &mut scope, imports);
        drop(imported.map_err(|error| problem(failure::describe(*error)))?);
        Ok(Function::new(vec!["event".into()], Plan::without_shortcuts(std::slice::from_ref(call))))
    }

    /// Runs a function on the state that all calls share. A call through rhai would also look up the function and move its
    /// arguments into a new scope, which costs as much as a small script.
    fn run(&mut self, function: &mut Function) -> Result<Dynamic, Failure> {
        memory::begin(self.memory_bytes, self.has_captures);
        let Self { engine, global, caches, watch, has_captures, .. } = self;
        let Function { body, scope, .. } = function;
        body.run(Machine { engine, global, caches, scope, watch }, *has_captures)
    }
}

/// Returns an engine with the API and the limits, but without imports.
pub(super) fn engine(host: &Host, options: &Options) -> Engine {
    let mut engine = Engine::new_raw();
    engine.set_max_strings_interned(1_024);
    engine.register_global_module(Shared::clone(&STANDARD));
    engine.set_module_resolver(rhai::module_resolvers::DummyModuleResolver::new());
    engine.set_optimization_level(OptimizationLevel::Simple);
    engine.set_strict_variables(true);
    engine.disable_symbol("eval");
    objects::register(&mut engine);
    api::register(&mut engine, host);
    builtins::register(&mut engine);
    methods::register(&mut engine);
    limit(&mut engine, &options.limits);
    let watch = Watch::start(options.timeout);
    engine.on_progress(move |operations| watch.is_over(operations).then_some(Dynamic::UNIT));
    engine
}

fn limit(engine: &mut Engine, limits: &Limits) {
    engine.set_max_operations(limits.operations);
    engine.set_max_call_levels(limits.call_depth);
    engine.set_max_expr_depths(limits.expression_depth, limits.expression_depth);
    engine.set_max_string_size(limits.string_bytes);
    engine.set_max_array_size(limits.array_items);
    engine.set_max_map_size(limits.map_entries);
    engine.set_max_modules(limits.modules);
    engine.set_max_functions(limits.functions);
    engine.set_max_variables(limits.variables);
}

/// Returns a scope with the names of the host. The parser refuses unknown names.
pub(super) fn host_scope(host: &Host) -> Scope<'static> {
    let mut scope = Scope::new();
    for name in api::NAMES {
        scope.push_dynamic(name, host.value(name).unwrap_or_default());
    }
    scope
}

/// Returns whether the script has closures that capture variables, or curries function pointers.
fn has_captures(ast: &AST) -> bool {
    let mut found = false;
    ast.walk(&mut |nodes| {
        found |= match nodes.last() {
            Some(ASTNode::Stmt(Stmt::Share(_))) => true,
            Some(
                ASTNode::Stmt(Stmt::FnCall(call, _)) | ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _)),
            ) => call.name == "curry",
            _ => false,
        };
        !found
    });
    found
}

/// Returns every name after a dot.
fn properties(asts: &[AST]) -> Vec<ImmutableString> {
    let mut found = Vec::new();
    for ast in asts {
        ast.walk(&mut |nodes| {
            if let Some(ASTNode::Expr(Expr::Property(property, _))) = nodes.last() {
                found.push(property.2.clone());
            }
            true
        });
    }
    found.sort();
    found.dedup();
    found
}

/// A resolver of imports among the files read at compilation.
struct Modules {
    sources: Sources,
    asts: Vec<AST>,
    made: Mutex<HashMap<usize, Shared<Module>>>,
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        engine: &Engine,
        _: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let Some(number) = self.sources.resolve(path) else {
            return Err(EvalAltResult::ErrorModuleNotFound(path.to_owned(), position).into());
        };
        let made = self.made.lock().expect("no module is made under the lock").get(&number).map(Shared::clone);
        if let Some(made) = made {
            return Ok(made);
        }
        let module = Module::eval_ast_as_new(Scope::new(), &self.asts[number], engine).map_err(|error| {
            let name = self.sources.files[number].name.clone();
            Box::new(EvalAltResult::ErrorInModule(name, error, position))
        })?;
        let module = Shared::new(module);
        self.made.lock().expect("no module is made under the lock").insert(number, Shared::clone(&module));
        Ok(module)
    }
}
