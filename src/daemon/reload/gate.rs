//! The gate of a reload: runs the present and the changed handler over the last events of the source, apart from the running
//! pipeline, and refuses a handler whose effects may not change.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::apart::{self, Apart};
use super::super::effects::{self, Comparison, Difference, Side};
use super::plan::Change;
use crate::clock;
use crate::config::document::Problem;
use crate::config::settings::{Gate, ReloadSettings};
use crate::connector::Context;
use crate::spec::Checked;

/// The longest time of a read. The rest of [`MAX_TIME`] is left for the handlers.
const MAX_READ_TIME: Duration = Duration::from_secs(10);
/// The longest time of a comparison.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Judges the change of a running pipeline.
///
/// # Errors
/// The gate refuses the change. Each problem gives a reason.
pub(super) async fn judge(
    settings: &ReloadSettings,
    old: &Checked,
    change: &Change,
    context: &Context,
    stop: &CancellationToken,
) -> Result<(), Vec<Problem>> {
    let (Change::InPlace { new, changed, .. } | Change::Restart { new, changed, .. }) = change else { return Ok(()) };
    let is_of_handler = changed.iter().any(|part| ["handler", "script", "filter"].contains(part));
    let (Some(old_side), Some(new_side)) = (Side::new(old), Side::new(new)) else { return Ok(()) };
    if settings.gate == Gate::None || !is_of_handler {
        return Ok(());
    }
    let refuse = |why: String| {
        let help =
            "`propulsiond diff` shows all differences, and `reload.gate = \"none\"` in the settings opens the gate";
        vec![Problem::new(new.definition.loaded.file(), why).help(help)]
    };
    let judged = async {
        match compare(settings, old, old_side, new_side, context).await {
            Ok(Some(comparison)) => verdict(settings.gate, &comparison),
            Ok(None) => {
                tracing::warn!("the source delivers each event only once, the gate lets the changed handler pass");
                None
            }
            Err(error) => Some(format!("the gate cannot compare the handlers: {error:#}")),
        }
    };
    let judged = tokio::select! {
        biased;
        () = stop.cancelled() => Some("the daemon is draining, the gate compares no handlers".to_owned()),
        judged = tokio::time::timeout(MAX_TIME, judged) => judged.unwrap_or_else(|_| {
            let limit = MAX_TIME.as_secs();
            Some(format!("the gate could not compare the handlers within {limit} s; a smaller `reload.gate_events` may help"))
        }),
    };
    judged.map_or(Ok(()), |why| Err(refuse(why)))
}

/// Compares the handlers. `None`: each event can be read only once.
async fn compare(
    settings: &ReloadSettings,
    old: &Checked,
    old_side: Side,
    new_side: Side,
    context: &Context,
) -> anyhow::Result<Option<Comparison>> {
    let definition = &old.definition;
    let Some(apart) = Apart::open(&*definition.source, context)? else { return Ok(None) };
    let starts = apart::logged(definition, context).await;
    let takes = |event: &_| old_side.takes(event) || new_side.takes(event);
    let sample = apart.last(settings.gate_events.get(), MAX_READ_TIME, &starts, takes).await?;
    let comparison = effects::compare(old_side.clone(), new_side.clone(), sample, clock::wall()).await?;
    tracing::info!(extent = comparison.extent(), equal = comparison.is_equal(), "gate compared the handlers");
    Ok(Some(comparison))
}

/// Returns the reason for which a gate refuses a handler.
fn verdict(gate: Gate, comparison: &Comparison) -> Option<String> {
    let refuses = match gate {
        Gate::None => false,
        Gate::NoNewErrors => comparison.new_errors() > 0,
        Gate::EffectsEqual => !comparison.is_equal(),
    };
    let is_reason = |difference: &&Difference| gate != Gate::NoNewErrors || !difference.new_errors.is_empty();
    let reason = comparison.differences.iter().find(is_reason).map(Difference::example).unwrap_or_default();
    let (name, extent, totals) = (gate.as_str(), comparison.extent(), comparison.totals());
    refuses.then(|| format!("the gate `{name}` refuses the changed handler: {reason} (in {extent}, {totals})"))
}
