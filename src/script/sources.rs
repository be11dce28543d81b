//! The files of a script: the script itself, and its imports from the same directory.
//!
//! Every file is read once, at compilation. Engines are built from these texts. A later change of a file has no effect
//! until the next compilation, and the hash identifies the running text (R50).

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rhai::{AST, ASTNode, Engine, Expr, ParseErrorType, Position, Scope, Stmt};

use super::api::NAMES;
use super::failure::lower;
use super::problem::{Problem, ScriptError};
use crate::config::document::closest;
use crate::config::scalar::{self, Unreadable};
use crate::formats::words::io_error;

/// The largest file that is read. Scripts are written by hand and stay far below it.
const MAX_BYTES: u64 = 1 << 20;

/// A script and its modules in the order of their first import. The script comes first.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) files: Arc<[SourceFile]>,
}

/// A file of a script.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    /// The name in messages, relative to the script's directory.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) imports: Vec<Import>,
}

/// An import as written, and the number of its file.
#[derive(Clone, Debug)]
pub(super) struct Import {
    pub(super) path: String,
    pub(super) alias: String,
    pub(super) file: usize,
}

/// Reads a file of a script, and removes a byte order mark.
pub fn read(path: &Path) -> Result<String, Unreadable> {
    let mut text = scalar::read_text(path, MAX_BYTES)?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

struct Loader<'a> {
    engine: &'a Engine,
    scope: &'a Scope<'static>,
    directory: PathBuf,
    most: usize,
    files: Vec<SourceFile>,
    problems: Vec<Problem>,
}

impl Sources {
    /// Reads and parses a script and its imports. `scope` holds the names of the host.
    pub(super) fn load(
        path: &Path,
        engine: &Engine,
        scope: &Scope<'static>,
        max_modules: usize,
    ) -> Result<Self, ScriptError> {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let cannot_read = |error: Unreadable| Problem::of(&name, format!("cannot read the script: {error}"));
        let directory = directory.canonicalize().map_err(|error| cannot_read(error.into()))?;
        let text = read(path).map_err(cannot_read)?;
        let mut loader =
            Loader { engine, scope, directory, most: max_modules, files: Vec::new(), problems: Vec::new() };
        loader.add(name, path.to_owned(), text, &mut Vec::new());
        if loader.problems.is_empty() {
            Ok(Self { files: loader.files.into() })
        } else {
            Err(ScriptError { problems: loader.problems })
        }
    }

    /// Parses all files again for the engine that runs them.
    pub(super) fn parse(&self, engine: &Engine, scope: &Scope<'static>) -> Result<Vec<AST>, Problem> {
        self.files.iter().map(|file| parse(engine, scope, &file.name, &file.text)).collect()
    }

    pub(super) fn main(&self) -> &SourceFile {
        &self.files[0]
    }

    /// Returns a hash over the names and texts of all files.
    pub(super) fn hash(&self) -> u64 {
        let parts: Vec<_> = self.files.iter().map(|file| (&file.name, &file.text)).collect();
        foldhash::quality::FixedState::default().hash_one(parts)
    }

    /// Returns an import that names a file; `None` for the script itself.
    pub(super) fn import_of(&self, file: usize) -> Option<&str> {
        self.files.iter().flat_map(|file| &file.imports).find(|known| known.file == file).map(|known| &*known.path)
    }

    /// Returns the number of the file that `import` names.
    pub(super) fn resolve(&self, import: &str) -> Option<usize> {
        self.files.iter().flat_map(|file| &file.imports).find(|known| known.path == import).map(|known| known.file)
    }
}

/// Parses a text as a file of a script.
fn parse(engine: &Engine, scope: &Scope<'static>, name: &str, text: &str) -> Result<AST, Problem> {
    let mut ast = engine.compile_with_scope(scope, text).map_err(|error| {
        let message = match error.err_type() {
            ParseErrorType::VariableUndefined(name) => format!("there is no variable `{name}`"),
            ParseErrorType::ModuleUndefined(name) => format!("no module is imported as `{name}` in this file"),
            ParseErrorType::ExprTooDeep => "this is nested deeper than `limits.expression_depth` allows".to_owned(),
            kind => lower(&kind.to_string()).replace('\'', "`"),
        };
        let help = match error.err_type() {
            ParseErrorType::VariableUndefined(name) => nearest_word(text, name),
            _ => None,
        };
        Problem::at(name, text, error.position(), message).help(help)
    })?;
    ast.set_source(name);
    Ok(ast)
}

/// Suggests a word of the text that resembles an unknown name.
fn nearest_word(text: &str, name: &str) -> Option<String> {
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let others: Vec<_> = words.into_iter().chain(NAMES).filter(|word| *word != name && word.len() > 2).collect();
    closest(name, &others).map(|near| format!("did you mean `{near}`?"))
}

impl Loader<'_> {
    /// Adds a file and its imports. `chain` lists the importing files.
    fn add(&mut self, name: String, path: PathBuf, text: String, chain: &mut Vec<usize>) -> usize {
        let number = self.files.len();
        let ast = parse(self.engine, self.scope, &name, &text);
        self.files.push(SourceFile { name, path, text, imports: Vec::new() });
        chain.push(number);
        match ast {
            Ok(ast) => self.follow(number, &ast, chain),
            Err(problem) => self.problems.push(problem),
        }
        chain.pop();
        number
    }

    fn follow(&mut self, number: usize, ast: &AST, chain: &mut Vec<usize>) {
        for (path, alias, position) in imports(ast) {
            let followed = match path {
                Some(path) => self.import(&path, chain).map(|file| Import { path, alias, file }),
                None => Err("a module name must be a plain string, known before the script runs".to_owned()),
            };
            match followed {
                Ok(import) => self.files[number].imports.push(import),
                Err(message) => {
                    let file = &self.files[number];
                    self.problems.push(Problem::at(&file.name, &file.text, position, message));
                }
            }
        }
    }

    fn import(&mut self, import: &str, chain: &mut Vec<usize>) -> Result<usize, String> {
        let name = file_name(import)?;
        if let Some(known) = self.files.iter().position(|file| file.name == name) {
            if let Some(from) = chain.iter().position(|file| *file == known) {
                let names = chain[from..].iter().chain([&known]).map(|file| format!("`{}`", self.files[*file].name));
                return Err(format!(
                    "modules import each other in a circle: {}",
                    names.collect::<Vec<_>>().join(" → ")
                ));
            }
            return Ok(known);
        }
        if self.files.len() > self.most {
            return Err(format!("the script has more than {} modules (`limits.modules`)", self.most));
        }
        let path = self.directory.join(&name);
        let real = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no module `{name}` beside the script"),
            _ => format!("cannot read the module `{name}`: {}", io_error(&error)),
        })?;
        if !real.starts_with(&self.directory) {
            return Err(format!("the module `{name}` lies outside the script's directory"));
        }
        let text = read(&real).map_err(|error| format!("cannot read the module `{name}`: {error}"))?;
        Ok(self.add(name, path, text, chain))
    }
}

/// Returns the name of the imported file. It lies in the script's directory or below, never above.
fn file_name(import: &str) -> Result<String, String> {
    let path = Path::new(import);
    let plain = !import.is_empty()
        && !import.contains(['\\', '\0'])
        && path.components().all(|component| matches!(component, Component::Normal(_)));
    if !plain {
        return Err(format!(
            "`{import}` cannot be imported: modules are named relative to the script's directory, without `..`"
        ));
    }
    Ok(if import.ends_with(".rhai") { import.to_owned() } else { format!("{import}.rhai") })
}

/// Returns the imports of a file: the path if it is a plain string, the alias, and the position.
fn imports(ast: &AST) -> Vec<(Option<String>, String, Position)> {
    let mut found = Vec::new();
    ast.walk(&mut |nodes| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, position))) = nodes.last() {
            let path = match &import.0 {
                Expr::StringConstant(path, _) => Some(path.to_string()),
                _ => None,
            };
            let position = if import.0.position().is_none() { *position } else { import.0.position() };
            found.push((path, import.1.name.to_string(), position));
        }
        true
    });
    found
}

/// Returns the string literals that stand beside `==` or `!=`, or before `=>` or `|` as in a `switch`.
pub(super) fn compared_texts(text: &str) -> BTreeSet<String> {
    let parts: Vec<_> = text.split('"').collect();
    let literals = parts.windows(3).step_by(2);
    let compares = |before: &str, after: &str| {
        let (before, after) = (before.trim_end(), after.trim_start());
        ["==", "!="].iter().any(|operator| before.ends_with(operator) || after.starts_with(operator))
            || after.starts_with("=>")
            || (after.starts_with('|') && !after.starts_with("||"))
            || (before.ends_with('|') && !before.ends_with("||"))
    };
    let found = literals.filter_map(|part| match part {
        [before, literal, after] if compares(before, after) => Some((*literal).to_owned()),
        _ => None,
    });
    found.filter(|literal| !literal.is_empty()).collect()
}
