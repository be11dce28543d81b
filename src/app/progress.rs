//! Progress of a finite job on standard error: a bar on a terminal, log lines elsewhere, and a summary at the end.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock::{Clock, Timestamp};
use crate::connector::prose::counted;
use crate::daemon::registry::{HowEnded, Registry};
use crate::pipeline::{Ended, View};
use crate::source::LagUnit;

/// The delay of the first line without a terminal, and the interval of the later ones.
const PLAIN_FIRST: Duration = Duration::from_secs(1);
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// The interval of the bar's updates.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// Shows the progress of a finite job on standard error.
pub(super) struct Report {
    finite: bool,
    bar: Option<ProgressBar>,
    clock: Clock,
    last: Mutex<Last>,
}

/// The latest counts, for the rate.
#[derive(Default)]
struct Last {
    at: Timestamp,
    /// The time of the next update.
    due: Timestamp,
    events: u64,
    rate: f64,
    /// The remaining bytes, and their rate.
    bytes: u64,
    bytes_rate: f64,
}

/// The work of all pipelines.
struct Sum {
    /// The handled events, without those that were skipped or parked.
    events: u64,
    skipped: u64,
    parked: u64,
    unhandled: u64,
    /// `None`: no tranche knows it.
    lag_events: Option<u64>,
    lag_bytes: Option<u64>,
}

impl Sum {
    fn of(views: &[View]) -> Self {
        let lag = |unit| views.iter().filter_map(|view| view.lag(unit)).reduce(|a, b| a + b);
        let count = |of: fn(&View) -> u64| views.iter().map(of).sum::<u64>();
        let (skipped, parked) = (count(|view| view.skipped), count(|view| view.parked));
        let completed: u64 = views.iter().flat_map(View::reports).map(|report| report.completed_events).sum();
        Self {
            events: completed.saturating_sub(skipped + parked),
            skipped,
            parked,
            unhandled: views.iter().map(View::unhandled).sum(),
            lag_events: lag(LagUnit::Events),
            lag_bytes: lag(LagUnit::Bytes),
        }
    }

    fn lag(&self) -> String {
        let mut parts = Vec::new();
        if let Some(events) = self.lag_events {
            parts.push(format!("{} events behind", grouped(events)));
        }
        if let Some(bytes) = self.lag_bytes {
            parts.push(format!("{} behind", indicatif::HumanBytes(bytes)));
        }
        if parts.is_empty() {
            parts.push("lag unknown".to_owned());
        }
        if self.unhandled > 0 {
            parts.push(format!("{} unhandled", counted(self.unhandled, "event")));
        }
        parts.join(", ")
    }

    /// Returns the numbers of handled, skipped and parked events, with `more` about the handled ones.
    fn handled(&self, more: &str) -> String {
        let mut text = format!("{} handled{more}", counted(self.events, "event"));
        for (count, what) in [(self.skipped, "skipped"), (self.parked, "parked")] {
            if count > 0 {
                text.push_str(&format!(", {} {what}", grouped(count)));
            }
        }
        text
    }
}

/// Formats a number with thousands separators.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

impl Report {
    pub(super) fn start(finite: bool) -> Self {
        let bar = (finite && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is well-formed");
            bar.set_style(style);
            bar
        });
        let due = Timestamp::ZERO + if bar.is_some() { BAR_EVERY } else { PLAIN_FIRST };
        Self { finite, bar, clock: Clock::start(), last: Mutex::new(Last { due, ..Last::default() }) }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next update and shows it. Never returns for a service.
    ///
    /// # Cancel safety
    /// Dropping the future does not delay the next update.
    pub(super) async fn tick(&self, registry: &Registry) {
        if !self.finite {
            return std::future::pending().await;
        }
        let due = self.last().due;
        tokio::time::sleep_until(self.clock.instant(due)).await;
        let views = join_all(registry.pipelines().iter().map(|pipeline| pipeline.handle.view())).await;
        let views: Vec<_> = views.into_iter().flatten().collect();
        let line = self.line(&Sum::of(&views));
        self.last().due = self.clock.now() + if self.bar.is_some() { BAR_EVERY } else { PLAIN_EVERY };
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => tracing::info!("{line}"),
        }
    }

    fn line(&self, sum: &Sum) -> String {
        let mut last = self.last();
        let now = self.clock.now();
        let seconds = now.since(last.at).as_secs_f64();
        if seconds > 0.0 {
            let recent = sum.events.saturating_sub(last.events) as f64 / seconds;
            last.rate = if last.rate == 0.0 { recent } else { last.rate * 0.7 + recent * 0.3 };
            let bytes = sum.lag_bytes.unwrap_or(0);
            let gone = last.bytes.saturating_sub(bytes) as f64 / seconds;
            last.bytes_rate = if last.bytes_rate == 0.0 { gone } else { last.bytes_rate * 0.7 + gone * 0.3 };
            (last.at, last.events, last.bytes) = (now, sum.events, bytes);
        }
        let left = match (sum.lag_events, sum.lag_bytes) {
            (Some(events), None) if last.rate > 1.0 => Some((events + sum.unhandled) as f64 / last.rate),
            (None, Some(bytes)) if last.bytes_rate > 1.0 => Some(bytes as f64 / last.bytes_rate),
            _ => None,
        };
        let left = left.map_or_else(String::new, |seconds| {
            format!(", about {} left", words(Duration::from_secs_f64(seconds.min(1e9))))
        });
        format!("{}, {}/s, {}{left}", sum.handled(""), grouped(last.rate as u64), sum.lag())
    }

    /// Logs the end of each pipeline. Returns the number of handled events.
    pub(super) fn finish(&self, registry: &Registry, ended: &[HowEnded]) -> u64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let elapsed = self.clock.now();
        let mut events = 0;
        for (name, ended) in ended {
            let view = registry.find(name).and_then(|pipeline| pipeline.handle.last_view());
            let sum = Sum::of(view.as_slice());
            events += sum.events;
            let took = elapsed.since(Timestamp::ZERO);
            let rate = sum.events as f64 / took.as_secs_f64().max(0.001);
            let handled = sum.handled(&format!(" in {} ({}/s)", words(took), grouped(rate as u64)));
            match ended {
                Ended::Finished => tracing::info!(pipeline = %name, "finished: {handled}"),
                Ended::Stopped => tracing::info!(pipeline = %name, "stopped: {handled}"),
                Ended::Halted(why) => tracing::error!(pipeline = %name, "halted: {why}; {handled}"),
                Ended::Fenced(why) => tracing::error!(pipeline = %name, "fenced: {why}; {handled}"),
                Ended::Unavailable(why) => tracing::error!(pipeline = %name, "given up: {why}; {handled}"),
                Ended::Failed(why) => tracing::error!(pipeline = %name, "failed: {why}; {handled}"),
                Ended::DeadlinePassed(still) => {
                    tracing::error!(pipeline = %name, "stopped at the drain deadline: {}; {handled}", still.join(", "));
                }
            }
        }
        events
    }
}

fn words(duration: Duration) -> String {
    let rounded = if duration < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(duration.as_secs())
    };
    humantime::format_duration(rounded).to_string()
}
