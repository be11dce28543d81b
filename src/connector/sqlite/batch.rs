//! Decisions on their way to the database's thread: flat, so that a row costs no allocation.

use std::ops::Range;
use std::sync::Arc;

use super::statement::shorten;
use crate::effect::Value;
use crate::event::{Event, Kind};
use crate::sink::{Decided, Effects};

/// What several decisions want written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Step>,
    /// The parameters of all statements. Those with names are preceded by them.
    pub(super) values: Vec<Value>,
    /// The steps of each decision, or why it cannot be written.
    pub(super) decisions: Vec<Result<Range<usize>, String>>,
    pub(super) has_events: bool,
}

#[derive(Debug)]
pub(super) enum Step {
    Run { sql: Arc<str>, parameters: Parameters },
    Keep(Event),
}

/// The parameters of a statement, as a range of a batch's values.
#[derive(Clone, Debug)]
pub(super) enum Parameters {
    Positional(Range<usize>),
    Named(Range<usize>),
}

impl Batch {
    pub(super) fn new(decided: &[Decided]) -> Self {
        let mut batch = Self { decisions: Vec::with_capacity(decided.len()), ..Self::default() };
        for decision in decided {
            let start = batch.steps.len();
            let planned = match &decision.effects {
                Effects::Events => {
                    batch.keep(decision);
                    Ok(())
                }
                Effects::Emitted(values) => values.iter().try_for_each(|value| batch.plan(value)),
            };
            let end = batch.steps.len();
            batch.decisions.push(planned.map(|()| start..end));
        }
        batch
    }

    /// Takes the effects of one decision alone.
    ///
    /// # Errors
    /// Why they cannot be written.
    pub(super) fn of_effects(effects: &[Value]) -> Result<Self, String> {
        let mut batch = Self::default();
        effects.iter().try_for_each(|effect| batch.plan(effect))?;
        Ok(batch)
    }

    /// Unfolds are no events, and of what a filter excluded there is nothing to keep.
    fn keep(&mut self, decision: &Decided) {
        let kept =
            decision.work.events.iter().filter(|event| event.kind() == Kind::Event && event.index() < decision.next);
        self.steps.extend(kept.map(|event| Step::Keep(event.clone())));
        self.has_events = true;
    }

    fn plan(&mut self, effect: &Value) -> Result<(), String> {
        let Value::Map(entries) = effect else {
            return Err(format!("the `sqlite` sink takes `#{{ sql: \"...\", params: [...] }}`, not {}", effect.kind()));
        };
        let (mut sql, mut params) = (None, None);
        for (key, value) in entries {
            match (&**key, value) {
                ("sql", Value::Text(text)) => sql = Some(text),
                ("sql", other) => return Err(format!("`sql` must be a string, not {}", other.kind())),
                ("params", value) => params = Some(value),
                (other, _) => {
                    return Err(format!("the `sqlite` sink knows `sql` and `params`, not `{other}`"));
                }
            }
        }
        let sql = sql.ok_or("an effect for the `sqlite` sink has no `sql`")?;
        let parameters = self.parameters(params).map_err(|why| format!("cannot run `{}`: {why}", shorten(sql)))?;
        self.steps.push(Step::Run { sql: Arc::clone(sql), parameters });
        Ok(())
    }

    fn parameters(&mut self, params: Option<&Value>) -> Result<Parameters, String> {
        let start = self.values.len();
        match params {
            None | Some(Value::Null) => Ok(Parameters::Positional(start..start)),
            Some(Value::List(items)) => {
                for (number, item) in items.iter().enumerate() {
                    self.values.push(scalar(item).ok_or_else(|| refused(format_args!("{}", number + 1), item))?);
                }
                Ok(Parameters::Positional(start..self.values.len()))
            }
            Some(Value::Map(entries)) => {
                for (name, item) in entries {
                    self.values.push(Value::Text(Arc::clone(name)));
                    self.values.push(scalar(item).ok_or_else(|| refused(format_args!("`{name}`"), item))?);
                }
                Ok(Parameters::Named(start..self.values.len()))
            }
            Some(other) => Err(format!("`params` must be an array or a map, not {}", other.kind())),
        }
    }
}

fn scalar(value: &Value) -> Option<Value> {
    (!matches!(value, Value::List(_) | Value::Map(_))).then(|| value.clone())
}

fn refused(which: std::fmt::Arguments<'_>, value: &Value) -> String {
    format!("parameter {which} is {}, which no column can hold (make it JSON text)", value.kind())
}
