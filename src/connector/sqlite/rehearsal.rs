//! What of the statements that a handler emits the sink would refuse, found out without the sink's file.

use rusqlite::Connection;

use super::SinkSettings;
use super::batch::{Batch, Step};
use super::statement::{self, Statements};
use crate::effect::Value;

/// A database in memory, with the tables of `init`.
#[derive(Debug)]
pub struct Rehearsal {
    /// `None`: which tables there are is not known here, as `init` makes none.
    tables: Option<Connection>,
}

impl Rehearsal {
    pub fn new(settings: &SinkSettings) -> Self {
        Self { tables: tables(settings) }
    }

    /// Checks the effects of one call: their form, and, where the tables are known, that each statement compiles and
    /// has all its parameters. Nothing is run but what makes tables.
    ///
    /// # Errors
    /// What the sink would say.
    pub fn check(&self, effects: &[Value]) -> Result<(), String> {
        let batch = Batch::of_effects(effects)?;
        let mut statements = self.tables.as_ref().map(Statements::new);
        for step in &batch.steps {
            let Step::Run { sql, parameters } = step else { continue };
            match &mut statements {
                Some(statements) => statements.rehearse(sql, parameters, &batch.values),
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
