//! The decisions of a write, flattened so that a row costs no allocation.

use std::ops::Range;
use std::sync::Arc;

use super::statement::shorten;
use crate::effect::Value;
use crate::event::{Event, Kind};
use crate::sink::{Decided, Effects};

/// The operations of several decisions.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) operations: Vec<SqlOperation>,
    /// The parameters of all statements. The name of a named one precedes it.
    pub(super) values: Vec<Value>,
    /// The operations of each decision, or the reason for which it cannot be written.
    pub(super) decisions: Vec<Result<Range<usize>, Refusal>>,
    pub(super) has_events: bool,
}

/// One row or statement of a decision.
#[derive(Debug)]
pub(super) enum SqlOperation {
    /// Runs a statement of the handler. `index` is that of the event that the statement belongs to, if it is one.
    Run { sql: Arc<str>, parameters: Parameters, index: Option<i64> },
    /// Stores an event in the sink's table.
    Keep(Event),
}

/// The reason for which the sink refuses an effect.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// The index of the event that the effect belongs to, if it is one.
    pub(super) index: Option<i64>,
}

/// The parameters of a statement, as a range of a batch's values.
#[derive(Clone, Debug)]
pub(super) enum Parameters {
    Positional(Range<usize>),
    Named(Range<usize>),
}

impl Parameters {
    /// Returns the range of the values, with the names if they have names.
    pub(super) fn range(&self) -> Range<usize> {
        match self {
            Self::Positional(range) | Self::Named(range) => range.clone(),
        }
    }
}

impl Batch {
    pub(super) fn new(decided: &[Decided]) -> Self {
        let mut batch = Self { decisions: Vec::with_capacity(decided.len()), ..Self::default() };
        for decision in decided {
            let start = batch.operations.len();
            let planned = match &decision.effects {
                Effects::Events => {
                    batch.keep(decision);
                    Ok(())
                }
                Effects::Emitted(values) => values.iter().enumerate().try_for_each(|(number, value)| {
                    let index = decision.index_of(number);
                    batch.plan(value, index).map_err(|why| Refusal { why, index })
                }),
            };
            let end = batch.operations.len();
            batch.decisions.push(planned.map(|()| start..end));
        }
        batch
    }

    /// Makes a batch of the effects of one decision.
    ///
    /// # Errors
    /// The reason for which the sink refuses an effect.
    pub(super) fn of_effects(effects: &[Value]) -> Result<Self, String> {
        let mut batch = Self::default();
        effects.iter().try_for_each(|effect| batch.plan(effect, None))?;
        Ok(batch)
    }

    /// Adds the decision's events. Unfolds are not events, and a placeholder has no body.
    fn keep(&mut self, decision: &Decided) {
        let kept =
            decision.work.events.iter().filter(|event| event.kind() == Kind::Event && event.index() < decision.next);
        self.operations.extend(kept.map(|event| SqlOperation::Keep(event.clone())));
        self.has_events = true;
    }

    fn plan(&mut self, effect: &Value, index: Option<i64>) -> Result<(), String> {
        let Value::Map(entries) = effect else {
            return Err(format!(
                "the `sqlite` sink expects `#{{ sql: \"...\", params: [...] }}`, not {}",
                effect.kind()
            ));
        };
        let (mut sql, mut params) = (None, None);
        for (key, value) in entries {
            match (&**key, value) {
                ("sql", Value::Text(text)) => sql = Some(text),
                ("sql", other) => return Err(format!("`sql` must be a string, not {}", other.kind())),
                ("params", value) => params = Some(value),
                (other, _) => {
                    return Err(format!(
                        "unknown key `{other}` in an effect of the `sqlite` sink, expected `sql` or `params`"
                    ));
                }
            }
        }
        let sql = sql.ok_or("an effect for the `sqlite` sink has no `sql`")?;
        let parameters = self.parameters(params).map_err(|why| format!("cannot run `{}`: {why}", shorten(sql)))?;
        self.operations.push(SqlOperation::Run { sql: Arc::clone(sql), parameters, index });
        Ok(())
    }

    fn parameters(&mut self, params: Option<&Value>) -> Result<Parameters, String> {
        let start = self.values.len();
        match params {
            None | Some(Value::Null) => Ok(Parameters::Positional(start..start)),
            Some(Value::List(items)) => {
                for (number, item) in items.iter().enumerate() {
                    self.values.push(scalar(item, format_args!("{}", number + 1))?);
                }
                Ok(Parameters::Positional(start..self.values.len()))
            }
            Some(Value::Map(entries)) => {
                for (name, item) in entries {
                    self.values.push(Value::Text(Arc::clone(name)));
                    self.values.push(scalar(item, format_args!("`{name}`"))?);
                }
                Ok(Parameters::Named(start..self.values.len()))
            }
            Some(other) => Err(format!("`params` must be an array or a map, not {}", other.kind())),
        }
    }
}

/// Returns a parameter's value, if a column can hold it. SQLite would store NULL for a NaN.
fn scalar(value: &Value, name: std::fmt::Arguments<'_>) -> Result<Value, String> {
    match value {
        Value::List(_) | Value::Map(_) => {
            Err(format!("parameter {name} is {}, which no column can hold (make it JSON text)", value.kind()))
        }
        Value::Float(number) if !number.is_finite() => Err(format!(
            "parameter {name} is `{number}`, which is not a number that a column can hold (emit `()` for NULL, or text)"
        )),
        value => Ok(value.clone()),
    }
}
