//! The answers of sink `http` about itself.

use std::sync::Arc;

use super::{HttpSink, Per, Settings};
use crate::connector::Context;
use crate::connector::kind::{BadSetting, DryRun, Kind, SinkKind, SinkPhrases, Unset, required};
use crate::connector::prose::Prose;
use crate::effect::Value;
use crate::sink::Sink;

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        // Without a URL the rest cannot be judged.
        if let Some(missing) = required("url", &self.url) {
            return vec![missing];
        }
        // A problem points at the name of a header, as its value may be a secret.
        let of_header = |bad: &BadSetting| bad.path.first().is_some_and(|key| key == "headers");
        super::check(self).into_iter().map(|bad| if of_header(&bad) { bad.of_key() } else { bad }).collect()
    }

    fn unset(&self, _pipeline: &str) -> Vec<Unset> {
        vec![
            Unset::means("path", "the url's own path alone"),
            Unset::means("auth", "no credentials are sent"),
            Unset::means("proxy", "none is used, also if the environment names one"),
        ]
    }
}

impl SinkKind for Settings {
    fn phrases(&self, prose: &Prose<'_>) -> SinkPhrases {
        let repeat = match (prose.has_script, self.per) {
            (true, _) if prose.by_event => "A receiver that honours the idempotency key handles an effect once.",
            (false, Per::Event) => "A receiver that honours the idempotency key handles an event once.",
            _ => "A receiver that honours the idempotency key can drop most repeats.",
        };
        SinkPhrases {
            writes: writes(self, prose),
            overlap: "At most `schedule.concurrency` decisions are sent at the same time.",
            repeat,
            permanent: Some("answers that `permanent` names"),
            unavailable: Some("the server cannot be reached, or answers 401, 407, 502, 503 or 504"),
            throttled: "An answer of 429 spends no attempt either. All requests pause for the time of `Retry-After`. Then \
                half as many go out at the same time, and more as they succeed.",
            power_failure: None,
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(Arc::new(HttpSink::new(self, context)?))
    }

    fn dry_run(&self) -> Option<Box<dyn DryRun>> {
        Some(Box::new(Form))
    }
}

fn writes(settings: &Settings, prose: &Prose<'_>) -> String {
    let unit = match (prose.has_script, settings.per) {
        (true, _) => "each effect of the script",
        (false, Per::Event) => "each event",
        (false, Per::Span) => "each run of events of one stream",
    };
    // The query of a url may hold a key.
    let url = settings.url.written();
    let url = if settings.url.has_references() { url } else { url.split('?').next().unwrap_or(url) };
    let path = settings.path.as_ref().map(|path| format!(", followed by the path `{}`", path.written()));
    let key = match (prose.has_script, settings.per) {
        (true, _) if prose.by_event => {
            "Its idempotency key is made of the event's stream and index, and of the effect's number for that event, so a \
             repeat has the same key."
        }
        (false, Per::Event) => {
            "Its idempotency key is made of the event's stream and index, so a repeat has the same key."
        }
        _ => {
            "Its idempotency key is made of the stream and the indexes of the events that were offered together. A repeat has the \
             same key if the same events are offered together again."
        }
    };
    format!(
        "It sends a {} request to `{url}`{} for {unit}, and waits at most {} for its answer. {key}",
        settings.method.written(),
        path.unwrap_or_default(),
        prose.duration(&["timeout"], settings.timeout)
    )
}

/// Checks the form of requests. Sends none.
struct Form;

impl DryRun for Form {
    fn check(&self, stream: &str, effects: &[Value]) -> Result<(), String> {
        super::check_effects(stream, effects).map_err(|error| error.message().to_owned())
    }
}
