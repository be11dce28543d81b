//! Runs the operations of decisions, such that a failed decision leaves nothing behind and spoils no other.
//!
//! A savepoint costs more than most decisions, and few decisions fail. The writer therefore runs a batch without
//! savepoints. If a decision fails, the writer rolls the batch back and runs each decision in a savepoint of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};

use super::Synchronous;
use super::batch::{Batch, Refusal, SqlOperation};
use super::database::Results;
use super::errors::{Failure, FailureKind};
use super::open::{Open, Setup, run};
use super::statement::{Statement, Statements};
use crate::event::{Event, Text};
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::sink::Written;

/// Writes a batch in a transaction of its own. If its contents fail the commit (a deferred constraint), each decision
/// gets its own transaction.
pub(super) fn write_alone(
    open: &mut Open,
    setup: &Arc<Setup>,
    synchronous: Synchronous,
    batch: &Batch,
) -> Result<Results, Failure> {
    open.set_up(setup)?;
    let everything = 0..batch.decisions.len();
    match write_and_commit(open, setup, synchronous, batch, everything.clone()) {
        Err(failure) if !failure.is_of_the_database() && everything.len() > 1 => {
            let each = everything.map(|at| match write_and_commit(open, setup, synchronous, batch, at..at + 1) {
                Err(failure) if failure.is_of_the_database() => Err(failure),
                Err(failure) => Ok(Err(failure.to_handler_error(open.path()))),
                Ok(mut results) => Ok(results.pop().unwrap_or(Ok(Written::All))),
            });
            each.collect()
        }
        Err(failure) if !failure.is_of_the_database() => Ok(vec![Err(failure.to_handler_error(open.path()))]),
        other => other,
    }
}

fn write_and_commit(
    open: &mut Open,
    setup: &Setup,
    synchronous: Synchronous,
    batch: &Batch,
    decisions: Range<usize>,
) -> Result<Results, Failure> {
    open.begin(synchronous)?;
    let written = write(open, setup, batch, decisions, true);
    match written {
        Ok(results) => open.commit().map(|()| results),
        Err(failure) => {
            open.rollback();
            Err(failure)
        }
    }
}

/// Writes decisions into the open transaction. `first`: the transaction holds no earlier write.
///
/// # Errors
/// The transaction is over: the database failed, or a statement rolled it back.
pub(super) fn write(
    open: &Open,
    setup: &Setup,
    batch: &Batch,
    decisions: Range<usize>,
    first: bool,
) -> Result<Results, Failure> {
    let writer = Writer { connection: &open.connection, setup, batch, decisions, first };
    writer.prepare()?;
    let mut culprits = BTreeMap::new();
    let mut results = writer.run_all();
    // Each round but the last adds a culprit, so that the loop ends.
    while let Err((at, failure)) = results {
        writer.undo(at, failure, &mut culprits)?;
        results = writer.run_each(&culprits, open);
    }
    run(&open.connection, "RELEASE batch")?;
    Ok(results.unwrap_or_default())
}

struct Writer<'a> {
    connection: &'a Connection,
    setup: &'a Setup,
    batch: &'a Batch,
    decisions: Range<usize>,
    first: bool,
}

/// The decision that stopped a run, and its failure.
type Stopped = (usize, Failure);

impl Writer<'_> {
    fn prepare(&self) -> Result<(), Failure> {
        if self.batch.has_events {
            // No event is at fault for a table that cannot be created. All writes wait until it can.
            run(self.connection, &self.setup.create).map_err(|failure| {
                let failure = failure.while_doing("cannot create the table of events");
                Failure { kind: FailureKind::Unavailable, ..failure }
            })?;
        }
        run(self.connection, "SAVEPOINT batch")
    }

    /// Runs the decisions until one fails.
    fn run_all(&self) -> Result<Results, Stopped> {
        let mut statements = Statements::new(self.connection);
        let planned = self.batch.decisions[self.decisions.clone()].iter();
        self.decisions
            .clone()
            .zip(planned)
            .map(|(at, planned)| match planned {
                Ok(operations) => self
                    .run_operations(&mut statements, operations.clone())
                    .map(|()| Ok(Written::All))
                    .map_err(|failure| (at, failure)),
                Err(refused) => Ok(Err(refused.to_handler_error())),
            })
            .collect()
    }

    /// Runs each decision except the culprits in a savepoint of its own. Stops only if the transaction is over.
    fn run_each(&self, culprits: &BTreeMap<usize, Failure>, open: &Open) -> Result<Results, Stopped> {
        let mut statements = Statements::new(self.connection);
        let mut results = Vec::with_capacity(self.decisions.len());
        for at in self.decisions.clone() {
            let result = match (&self.batch.decisions[at], culprits.get(&at)) {
                (Err(refused), _) => Err(refused.to_handler_error()),
                (Ok(_), Some(failure)) => Err(failure.to_handler_error(open.path())),
                (Ok(operations), None) => match self.run_alone(&mut statements, operations.clone()) {
                    Ok(()) => Ok(Written::All),
                    Err(failure) if failure.is_of_the_database() || self.connection.is_autocommit() => {
                        return Err((at, failure));
                    }
                    Err(failure) => Err(failure.to_handler_error(open.path())),
                },
            };
            results.push(result);
        }
        Ok(results)
    }

    fn run_alone(&self, statements: &mut Statements<'_>, operations: Range<usize>) -> Result<(), Failure> {
        run(self.connection, "SAVEPOINT decision")?;
        let done = self.run_operations(statements, operations);
        if done.is_err() && !self.connection.is_autocommit() {
            run(self.connection, "ROLLBACK TO decision")?;
        }
        if !self.connection.is_autocommit() {
            run(self.connection, "RELEASE decision")?;
        }
        done
    }

    fn run_operations(&self, statements: &mut Statements<'_>, operations: Range<usize>) -> Result<(), Failure> {
        for operation in &self.batch.operations[operations] {
            match operation {
                SqlOperation::Run { sql, parameters, index } => {
                    let done = statements.run(sql, parameters, &self.batch.values);
                    done.map_err(|failure| Failure { index: *index, ..failure })?;
                }
                SqlOperation::Keep(event) => {
                    let kept = statements.get(&self.setup.insert).and_then(|statement| keep(statement, event));
                    kept.map_err(cannot_keep)?;
                }
            }
        }
        Ok(())
    }

    /// Rolls the batch back. A decision that rolled the whole transaction back (`OR ROLLBACK`) becomes a culprit, and
    /// does not run again.
    fn undo(&self, at: usize, failure: Failure, culprits: &mut BTreeMap<usize, Failure>) -> Result<(), Failure> {
        if failure.is_of_the_database() {
            return Err(failure);
        }
        if !self.connection.is_autocommit() {
            return run(self.connection, "ROLLBACK TO batch");
        }
        if !self.first {
            // The earlier writes of the transaction are lost, too, and only the caller can repeat them.
            return Err(Failure {
                kind: FailureKind::RolledBack,
                ..failure.while_doing("a statement rolled the transaction back")
            });
        }
        culprits.insert(at, failure);
        run(self.connection, "BEGIN IMMEDIATE")?;
        self.prepare()
    }
}

impl Refusal {
    fn to_handler_error(&self) -> HandlerError {
        HandlerError::new(HandlerErrorKind::Permanent, self.why.as_str()).at_known_index(self.index)
    }
}

/// Makes a sink's statements.
pub(super) fn setup(init: Vec<String>, table: &str) -> Setup {
    let table = format!("\"{}\"", table.replace('"', "\"\""));
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table} (stream TEXT NOT NULL, idx INTEGER NOT NULL, type TEXT NOT NULL, data, meta, \
         id TEXT, correlation TEXT, causation TEXT, timestamp TEXT, at_major INTEGER, at_minor INTEGER, \
         PRIMARY KEY (stream, idx))"
    );
    let insert = format!(
        "INSERT INTO {table} (stream, idx, type, data, meta, id, correlation, causation, timestamp, at_major, at_minor) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT (stream, idx) DO UPDATE SET type = excluded.type, data = excluded.data, meta = excluded.meta, \
         id = excluded.id, correlation = excluded.correlation, causation = excluded.causation, \
         timestamp = excluded.timestamp, at_major = excluded.at_major, at_minor = excluded.at_minor"
    );
    Setup { init, create, insert: insert.into() }
}

fn keep(statement: &mut Statement<'_>, event: &Event) -> Result<(), Failure> {
    let text = |field| Some(event.text(field)).filter(|text| !text.is_empty());
    let time = event.time_text();
    statement.compiled.execute(params![
        event.stream(),
        event.index(),
        event.event_type(),
        body(event.data()),
        body(event.meta()),
        text(Text::Id),
        text(Text::Correlation),
        text(Text::Causation),
        Some(&*time).filter(|text| !text.is_empty()),
        // No source counts beyond SQLite's integers.
        i64::try_from(event.at().major).ok(),
        event.at().minor,
    ])?;
    Ok(())
}

/// Adds the remedy if the table of events refuses one: the sink's own table refuses none.
fn cannot_keep(mut failure: Failure) -> Failure {
    if failure.kind == FailureKind::Statement {
        failure.why += " (the table has a form of its own: name another `table`)";
    }
    failure.while_doing("cannot store an event")
}

/// Returns a body as text if it is UTF-8, for SQLite's JSON functions; as NULL if it is empty.
fn body(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match std::str::from_utf8(bytes) {
        Ok("") => ValueRef::Null,
        Ok(text) => ValueRef::Text(text.as_bytes()),
        Err(_) => ValueRef::Blob(bytes),
    })
}
