//! The statements of a handler: checked, compiled once, bound and run.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql};

use super::batch::Parameters;
use super::errors::{Failure, FailureKind};
use super::{digits, sql};
use crate::effect::Value;

/// The most compiled statements that a batch keeps, which are found without hashing their text.
const MAX_KEPT_STATEMENTS: usize = 16;

/// The statements of a batch, compiled and checked.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    kept: Vec<(Arc<str>, Statement<'c>)>,
}

/// A compiled statement.
pub(super) struct Statement<'c> {
    pub(super) compiled: CachedStatement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, kept: Vec::new() }
    }

    /// Runs a statement of the handler.
    pub(super) fn run(&mut self, sql: &Arc<str>, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
        let large = digits::large_integers(&values[parameters.range()]);
        let ran = match self.get(sql) {
            Ok(statement) if large.is_empty() => statement.run(parameters, values),
            Ok(_) => self.run_with_large_integers(sql, parameters, values, &large),
            Err(failure) => Err(failure),
        };
        ran.map_err(|failure| cannot_run(sql, failure))
    }

    /// Runs a statement, and refuses it if one of the large integers became a float in a row that it wrote.
    fn run_with_large_integers(
        &mut self,
        sql: &Arc<str>,
        parameters: &Parameters,
        values: &[Value],
        large: &[&str],
    ) -> Result<(), Failure> {
        // A statement on a virtual table cannot return its rows. Such a table stores values without an affinity.
        let Some(mut returning) = digits::returning(self.connection, sql) else {
            return self.get(sql)?.run(parameters, values);
        };
        bind(&mut returning, parameters, values)?;
        digits::check_rows(&mut returning, large)
    }

    /// Compiles and binds a statement as [`run`](Self::run) does, but runs only one that changes the schema.
    pub(super) fn dry_run(&mut self, sql: &Arc<str>, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
        let bound = self.get(sql).and_then(|statement| {
            statement.bind(parameters, values)?;
            let changes_schema = ["create", "alter", "drop"].contains(&&*sql::first_word(sql));
            if changes_schema { statement.execute() } else { Ok(()) }
        });
        bound.map_err(|failure| cannot_run(sql, failure))
    }

    pub(super) fn get(&mut self, sql: &Arc<str>) -> Result<&mut Statement<'c>, Failure> {
        let found = self.kept.iter().position(|(text, _)| Arc::ptr_eq(text, sql) || text == sql);
        let at = match found {
            Some(at) => at,
            None => {
                let statement = Statement::new(self.connection, sql)?;
                if self.kept.len() == MAX_KEPT_STATEMENTS {
                    self.kept.remove(0);
                }
                self.kept.push((Arc::clone(sql), statement));
                self.kept.len() - 1
            }
        };
        Ok(&mut self.kept[at].1)
    }
}

impl<'c> Statement<'c> {
    fn new(connection: &'c Connection, sql: &str) -> Result<Self, Failure> {
        refuse(sql)?;
        let compiled = connection.prepare_cached(sql)?;
        if compiled.readonly() {
            return Err(Failure::new(FailureKind::Statement, "it only reads, and its result would go nowhere"));
        }
        Ok(Self { compiled })
    }

    fn run(&mut self, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
        self.bind(parameters, values)?;
        self.execute()
    }

    fn bind(&mut self, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
        bind(&mut self.compiled, parameters, values)
    }

    fn execute(&mut self) -> Result<(), Failure> {
        self.compiled.raw_execute().map(|_| ()).map_err(|error| match error {
            rusqlite::Error::ExecuteReturnedResults => {
                Failure::new(FailureKind::Statement, "it returns rows, which would go nowhere")
            }
            other => other.into(),
        })
    }
}

fn bind(compiled: &mut rusqlite::Statement<'_>, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
    match parameters {
        Parameters::Positional(range) => {
            expect(compiled, range.len())?;
            for (number, value) in values[range.clone()].iter().enumerate() {
                compiled.raw_bind_parameter(number + 1, Bound(value))?;
            }
            Ok(())
        }
        Parameters::Named(range) => bind_named(compiled, &values[range.clone()]),
    }
}

/// Binds pairs of a name and a value. Names are unique and all are needed, so equal counts leave no pair unused.
fn bind_named(compiled: &mut rusqlite::Statement<'_>, pairs: &[Value]) -> Result<(), Failure> {
    for number in 1..=compiled.parameter_count() {
        let value = match compiled.parameter_name(number) {
            Some(name) if !name.starts_with('?') => find(pairs, name).ok_or_else(|| {
                Failure::new(FailureKind::Statement, format!("`params` lacks its parameter `{name}`"))
            })?,
            _ => {
                return Err(Failure::new(
                    FailureKind::Statement,
                    "its parameters have no names: give `params` as an array",
                ));
            }
        };
        compiled.raw_bind_parameter(number, Bound(value))?;
    }
    expect(compiled, pairs.len() / 2)
}

fn expect(compiled: &rusqlite::Statement<'_>, given: usize) -> Result<(), Failure> {
    let needed = compiled.parameter_count();
    if given == needed {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Statement, format!("it has {needed} parameters, but `params` gives {given}")))
}

/// Finds the value of a statement's parameter. The prefix (`:name`, `@name`, `$name`) is optional in `params`.
fn find<'a>(pairs: &'a [Value], name: &str) -> Option<&'a Value> {
    pairs
        .chunks_exact(2)
        .find(|pair| pair[0].as_text().is_some_and(|given| given == name || given == &name[1..]))
        .map(|pair| &pair[1])
}

fn cannot_run(sql: &str, mut failure: Failure) -> Failure {
    if failure.kind == FailureKind::Statement
        && let Some(remedy) = remedy(&failure.why)
    {
        failure.why = format!("{} ({remedy})", failure.why);
    }
    failure.while_doing(format_args!("cannot run `{}`", shorten(sql)))
}

/// Returns the remedy for a statement that does not fit its table, by SQLite's message. Its codes do not tell the cases
/// apart.
fn remedy(why: &str) -> Option<&'static str> {
    let says = |parts: &[&str]| parts.iter().any(|part| why.contains(part));
    if says(&["has no column named", "no such column", "values were supplied", "values for "]) {
        Some("correct the statement, or declare the column in `init` and run `propulsiond rebuild`")
    } else if says(&["no such table"]) {
        Some("correct the statement, or create the table in `init`")
    } else if says(&["cannot store "]) {
        Some("emit a value of the column's type, or declare another type in `init` and run `propulsiond rebuild`")
    } else if says(&["datatype mismatch"]) {
        Some("emit an integer for the column that is INTEGER PRIMARY KEY")
    } else {
        None
    }
}

/// Checks a statement as far as possible without its tables.
pub(super) fn check_form(sql: &str) -> Result<(), Failure> {
    refuse(sql).map_err(|failure| cannot_run(sql, failure))
}

/// Refuses a statement that could end the transaction or change the daemon's own tables.
fn refuse(sql: &str) -> Result<(), Failure> {
    let word = sql::first_word(sql);
    if !["insert", "update", "delete", "replace", "with", "create", "alter", "drop"].contains(&&*word) {
        let why = match &*word {
            "select" | "values" | "explain" => "it only reads, and its result would go nowhere".to_owned(),
            "" => "there is no statement in it".to_owned(),
            word => format!("`{word}` is not allowed in effects"),
        };
        return Err(Failure::new(FailureKind::Statement, why));
    }
    if sql::names_daemon_table(sql) {
        return Err(Failure::new(FailureKind::Statement, sql::RESERVED));
    }
    Ok(())
}

/// Returns a statement as messages show it: on one line, and shortened.
pub(super) fn shorten(sql: &str) -> String {
    const SHOWN: usize = 60;
    let mut line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(SHOWN) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A scalar value as a statement's parameter.
struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Bool(value) => ValueRef::Integer(i64::from(*value)),
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Float(value) => ValueRef::Real(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::List(_) | Value::Map(_) => {
                return Err(rusqlite::Error::ToSqlConversionFailure("it is not a scalar".into()));
            }
        }))
    }
}
