//! A check of emitted statements without the sink's file, for the tests of a handler.

use rusqlite::Connection;

use super::SinkSettings;
use super::batch::{Batch, SqlOperation};
use super::statement::{self, Statements};
use crate::effect::Value;

/// An in-memory database with the tables of `init`.
#[derive(Debug)]
pub struct SqliteDryRun {
    /// `None`: `init` creates no tables, so that the tables of the sink are unknown here.
    tables: Option<Connection>,
}

impl SqliteDryRun {
    pub fn new(settings: &SinkSettings) -> Self {
        Self { tables: tables(settings) }
    }

    /// Checks the effects of one call. If the tables are known, each statement must compile and have all its parameters.
    /// Runs only statements that create, alter or drop tables.
    ///
    /// # Errors
    /// The message with which the sink would refuse the effects.
    pub fn check(&self, effects: &[Value]) -> Result<(), String> {
        let batch = Batch::of_effects(effects)?;
        let mut statements = self.tables.as_ref().map(Statements::new);
        for operation in &batch.operations {
            let SqlOperation::Run { sql, parameters, .. } = operation else { continue };
            match &mut statements {
                Some(statements) => statements.dry_run(sql, parameters, &batch.values),
                None => statement::check_form(sql),
            }
            .map_err(|failure| failure.why)?;
        }
        Ok(())
    }
}

fn tables(settings: &SinkSettings) -> Option<Connection> {
    if settings.init.is_empty() || settings.init.iter().any(crate::config::scalar::Text::is_hole) {
        return None;
    }
    let connection = Connection::open_in_memory().ok()?;
    settings.init.iter().try_for_each(|sql| connection.execute_batch(sql)).ok()?;
    Some(connection)
}
