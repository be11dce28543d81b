//! One statement of a script: checked, compiled once, bound and run.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql};

use super::batch::Parameters;
use super::failure::{Failure, Trouble};
use crate::effect::Value;

/// How many statements a batch keeps at hand.
const AT_HAND: usize = 16;

/// Names of our own, which no script may touch.
const OURS: [&str; 2] = ["propulsiond_", "propulsion_checkpoint"];

/// The statements of a batch, compiled and checked.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    at_hand: Vec<(Arc<str>, Statement<'c>)>,
}

pub(super) struct Statement<'c> {
    pub(super) compiled: CachedStatement<'c>,
    parameters: usize,
}

impl<'c> Statements<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, at_hand: Vec::new() }
    }

    pub(super) fn run(&mut self, sql: &Arc<str>, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
        let ran = self.get(sql).and_then(|statement| statement.run(parameters, values));
        ran.map_err(|failure| cannot_run(sql, failure))
    }

    /// Does what [`run`](Self::run) does, but for running what makes no tables.
    pub(super) fn rehearse(
        &mut self,
        sql: &Arc<str>,
        parameters: &Parameters,
        values: &[Value],
    ) -> Result<(), Failure> {
        let bound = self.get(sql).and_then(|statement| {
            statement.bind(parameters, values)?;
            let makes_tables = ["create", "alter", "drop"].contains(&&*first_word(sql));
            if makes_tables { statement.execute() } else { Ok(()) }
        });
        bound.map_err(|failure| cannot_run(sql, failure))
    }

    pub(super) fn get(&mut self, sql: &Arc<str>) -> Result<&mut Statement<'c>, Failure> {
        let found = self.at_hand.iter().position(|(text, _)| Arc::ptr_eq(text, sql) || text == sql);
        let at = match found {
            Some(at) => at,
            None => {
                let statement = Statement::new(self.connection, sql)?;
                if self.at_hand.len() == AT_HAND {
                    self.at_hand.remove(0);
                }
                self.at_hand.push((Arc::clone(sql), statement));
                self.at_hand.len() - 1
            }
        };
        Ok(&mut self.at_hand[at].1)
    }
}

impl<'c> Statement<'c> {
    fn new(connection: &'c Connection, sql: &str) -> Result<Self, Failure> {
        refuse(sql)?;
        let compiled = connection.prepare_cached(sql)?;
        if compiled.readonly() {
            return Err(Failure::new(Trouble::Statement, "it only reads, and nobody would see the result"));
        }
        Ok(Self { parameters: compiled.parameter_count(), compiled })
    }

    fn run(&mut self, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
        self.bind(parameters, values)?;
        self.execute()
    }

    fn bind(&mut self, parameters: &Parameters, values: &[Value]) -> Result<(), Failure> {
        match parameters {
            Parameters::Positional(range) => {
                self.expect(range.len())?;
                for (number, value) in values[range.clone()].iter().enumerate() {
                    self.compiled.raw_bind_parameter(number + 1, Bound(value))?;
                }
            }
            Parameters::Named(range) => self.bind_named(&values[range.clone()])?,
        }
        Ok(())
    }

    fn execute(&mut self) -> Result<(), Failure> {
        self.compiled.raw_execute().map(|_| ()).map_err(|error| match error {
            rusqlite::Error::ExecuteReturnedResults => {
                Failure::new(Trouble::Statement, "it returns rows, and nobody would see them")
            }
            other => other.into(),
        })
    }

    /// Binds names and values that alternate. As names are unique and all are needed, equal numbers leave none over.
    fn bind_named(&mut self, pairs: &[Value]) -> Result<(), Failure> {
        for number in 1..=self.parameters {
            let value = match self.compiled.parameter_name(number) {
                Some(name) if !name.starts_with('?') => find(pairs, name).ok_or_else(|| {
                    Failure::new(Trouble::Statement, format!("it has a parameter `{name}` that `params` does not name"))
                })?,
                _ => {
                    return Err(Failure::new(
                        Trouble::Statement,
                        "its parameters have no names: give `params` as an array",
                    ));
                }
            };
            self.compiled.raw_bind_parameter(number, Bound(value))?;
        }
        self.expect(pairs.len() / 2)
    }

    fn expect(&self, given: usize) -> Result<(), Failure> {
        if given == self.parameters {
            return Ok(());
        }
        Err(Failure::new(
            Trouble::Statement,
            format!("it has {} parameters, but `params` gives {given}", self.parameters),
        ))
    }
}

/// Finds a value by the name that the statement has for it; `:name` and `name` are the same.
fn find<'a>(pairs: &'a [Value], name: &str) -> Option<&'a Value> {
    pairs
        .chunks_exact(2)
        .find(|pair| pair[0].as_text().is_some_and(|given| given == name || given == &name[1..]))
        .map(|pair| &pair[1])
}

fn cannot_run(sql: &str, failure: Failure) -> Failure {
    failure.while_doing(format_args!("cannot run `{}`", shorten(sql)))
}

/// Checks what can be told of a statement without the tables that it is about.
pub(super) fn check_form(sql: &str) -> Result<(), Failure> {
    refuse(sql).map_err(|failure| cannot_run(sql, failure))
}

/// Refuses what may not come from a script, whatever SQLite would make of it: it could end the transaction, or change
/// what the daemon keeps.
fn refuse(sql: &str) -> Result<(), Failure> {
    let word = first_word(sql);
    if !["insert", "update", "delete", "replace", "with", "create", "alter", "drop"].contains(&&*word) {
        let why = match &*word {
            "select" | "values" | "explain" => "it only reads, and nobody would see the result".to_owned(),
            "" => "there is no statement in it".to_owned(),
            word => format!("`{word}` may not be used in effects"),
        };
        return Err(Failure::new(Trouble::Statement, why));
    }
    let lower = sql.to_ascii_lowercase();
    if OURS.iter().any(|name| lower.contains(name)) {
        return Err(Failure::new(Trouble::Statement, "names that begin with `propulsiond_` are the daemon's own"));
    }
    Ok(())
}

/// Returns the first word after blanks and comments, in lower case.
fn first_word(sql: &str) -> String {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';');
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            break;
        };
    }
    rest.chars().take_while(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns a statement as messages show it: on one line, and not all of a long one.
pub(super) fn shorten(sql: &str) -> String {
    const SHOWN: usize = 60;
    let mut line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(SHOWN) {
        line.truncate(end);
        line.push('…');
    }
    line
}

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
                return Err(rusqlite::Error::ToSqlConversionFailure("it is no scalar".into()));
            }
        }))
    }
}
