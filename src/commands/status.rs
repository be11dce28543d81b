//! The pipelines of a running daemon, as `status` shows them.

use serde::Deserialize;

use crate::connector::prose::{counted, thousands};
use crate::telemetry::health::State;

/// The answer to `GET /pipelines`, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Pipelines {
    pipelines: Vec<Pipeline>,
}

#[derive(Debug, Deserialize)]
struct Pipeline {
    name: String,
    state: State,
    reason: String,
    /// `None`: it has not run yet.
    work: Option<Work>,
}

#[derive(Debug, Deserialize)]
struct Work {
    at_tail: bool,
    lag: Lag,
    unhandled: u64,
    /// The failure to read from the source.
    source_failing: Option<SourceFailing>,
    /// The reason for which read events wait for the pipeline that this one comes after.
    waits_for: Option<String>,
    handled_per_second: f64,
    failing_streams: usize,
    oldest_failing: Option<Failing>,
}

#[derive(Debug, Deserialize)]
struct Lag {
    events: Option<u64>,
    bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct SourceFailing {
    error: String,
    seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Failing {
    stream: String,
    index: i64,
    class: String,
    error: String,
    attempts: u32,
    seconds: f64,
    next_try_in_seconds: Option<f64>,
}

impl Pipelines {
    /// Renders a line for each pipeline. Below it stand the reason of a state that needs one, and the failing stream.
    pub(crate) fn render(&self) -> String {
        let head = ["PIPELINE", "STATE", "LAG", "UNHANDLED", "RATE"].map(str::to_owned);
        let row = |pipeline: &Pipeline| {
            let [lag, unhandled, rate] = pipeline.work.as_ref().map_or_else(
                || ["unknown".to_owned(), String::new(), String::new()],
                |work| {
                    let rate = format!("{}/s", thousands(work.handled_per_second.round() as u64));
                    [work.lag(), thousands(work.unhandled), rate]
                },
            );
            [pipeline.name.clone(), pipeline.state.to_string(), lag, unhandled, rate]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.pipelines.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths = [0, 1, 2, 3, 4].map(width);
        let mut text = String::new();
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text.push_str(&format!("{}\n", cells.join("  ").trim_end()));
            for note in number.checked_sub(1).iter().flat_map(|number| self.pipelines[*number].notes()) {
                text.push_str(&format!("  {note}\n"));
            }
        }
        text
    }
}

impl Pipeline {
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.state != State::Running {
            notes.push(self.reason.clone());
        }
        if let Some(work) = &self.work {
            notes.extend(
                work.source_failing
                    .as_ref()
                    .map(|SourceFailing { error, seconds }| format!("reading has failed for {seconds:.0}s: {error}")),
            );
            notes.extend(work.waits_for.clone());
            notes.extend(work.oldest_failing.as_ref().map(|failing| failing.describe(self.state)));
            let others = work.failing_streams.saturating_sub(1);
            if others > 0 {
                notes.push(format!("{} more fail", counted(others as u64, "stream")));
            }
        }
        notes
    }
}

impl Work {
    /// Returns the size of the part of the feed that is not read yet.
    fn lag(&self) -> String {
        match (self.lag.events, self.lag.bytes) {
            _ if self.at_tail => "none".to_owned(),
            (None, None) => "unknown".to_owned(),
            (events, bytes) => {
                let events = events.map(|events| counted(events, "event"));
                let bytes = bytes.map(|bytes| indicatif::HumanBytes(bytes).to_string());
                events.into_iter().chain(bytes).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl Failing {
    fn describe(&self, state: State) -> String {
        let Self { stream, index, class, error, attempts, seconds, next_try_in_seconds } = self;
        let next = match next_try_in_seconds {
            // The last view of a halted pipeline still has the time of a retry that will not happen.
            _ if state == State::Halted => "no retry before a restart".to_owned(),
            Some(seconds) => format!("next try in {seconds:.1}s"),
            None => "no retry".to_owned(),
        };
        format!(
            "stream `{stream}` fails at event {index} for {seconds:.0}s, attempt {attempts} ({class}), {next}: {error}"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_has_a_line_for_each_pipeline_and_notes_where_the_operator_looks() {
        let answer = json!({ "pipelines": [
            { "name": "orders", "state": "running", "reason": "12 events to be handled", "state_seconds": 5, "work": {
                "at_tail": false, "lag": { "events": 1204, "bytes": null }, "unhandled": 12, "handled_per_second": 351.7,
                "failing_streams": 3, "oldest_failing": {
                    "stream": "order-17", "index": 4, "class": "transient", "error": "connection refused",
                    "attempts": 3, "seconds": 12.4, "next_try_in_seconds": 4.04,
                },
            } },
            { "name": "notices", "state": "halted", "reason": "event 3 cannot be handled", "state_seconds": 1, "work": {
                "at_tail": true, "lag": { "events": 0, "bytes": null }, "unhandled": 0, "handled_per_second": 0.0,
                "waits_for": "tranche `0` waits for the pipeline `orders`, which has not opened this tranche",
                "source_failing": { "error": "read `a.jsonl`: the file is gone", "seconds": 61.3 },
                "failing_streams": 1, "oldest_failing": {
                    "stream": "parcel-2", "index": 3, "class": "exception", "error": "refused",
                    "attempts": 5, "seconds": 9.0, "next_try_in_seconds": 0.0,
                },
            } },
            { "name": "new", "state": "starting", "reason": "connecting", "state_seconds": 0, "work": null },
        ] });
        let pipelines: Pipelines = serde_json::from_value(answer).unwrap();
        expect_test::expect![[r#"
            PIPELINE  STATE     LAG           UNHANDLED  RATE
            orders    running   1,204 events  12         352/s
              stream `order-17` fails at event 4 for 12s, attempt 3 (transient), next try in 4.0s: connection refused
              2 streams more fail
            notices   halted    none          0          0/s
              event 3 cannot be handled
              reading has failed for 61s: read `a.jsonl`: the file is gone
              tranche `0` waits for the pipeline `orders`, which has not opened this tranche
              stream `parcel-2` fails at event 3 for 9s, attempt 5 (exception), no retry before a restart: refused
            new       starting  unknown
              connecting
        "#]]
        .assert_eq(&pipelines.render());
    }
}
