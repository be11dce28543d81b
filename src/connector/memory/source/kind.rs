//! The answers of source `memory` about itself.

use std::sync::Arc;

use super::{Index, MemoryInbox, Settings};
use crate::connector::kind::{BadSetting, Kind, Malformed, SourceKind, SourcePhrases};
use crate::connector::prose::{Prose, counted, sentences};
use crate::connector::{Context, map};
use crate::formats::map::RecordMap;
use crate::source::{Contract, Inbox, Source};

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        super::check(self)
    }
}

impl SourceKind for Settings {
    fn contract(&self) -> Contract {
        Settings::contract(self)
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn is_pushed(&self) -> bool {
        true
    }

    fn phrases(&self, prose: &Prose<'_>) -> SourcePhrases {
        let by_arrival = "Indexes are made of the time of arrival, so they grow but leave gaps.";
        let index = match (&self.map, self.index) {
            (Some(map), _) => format!("A post is read {}. {}", map.records(), map.explained(by_arrival)),
            (None, Index::Field) => "Each event gives its index in its stream.".to_owned(),
            (None, Index::Arrival) => by_arrival.to_owned(),
        };
        let limit = format!(
            "At most {} wait, in {} of memory; the source refuses more until there is room.",
            counted(self.max_events.get() as u64, "event"),
            prose.size(&["max_bytes"], self.max_bytes)
        );
        SourcePhrases {
            reads: sentences([
                &*format!("It accepts events that are posted to `/pipelines/{}/events`.", prose.pipeline),
                &*index,
                &*limit,
            ]),
            once: "The source has every event once.",
            malformed: Malformed::Never(
                "This source delivers no malformed events: a post with an unreadable line is refused as a whole.",
            ),
            unavailable: None,
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Source>> {
        Ok(Arc::new(shared(self, context)?.source()))
    }

    fn record_map(&self) -> Option<Result<RecordMap, BadSetting>> {
        self.map.as_ref().map(map::Settings::compile)
    }

    fn inbox(&self, context: &Context) -> Option<Arc<dyn Inbox>> {
        // Invalid settings are an error of `build`.
        Some(shared(self, context).ok()?)
    }
}

/// Returns the inbox of the pipeline. The API keeps it in use, so that it and its events outlive a restart of the
/// pipeline. Other settings have an inbox of their own.
fn shared(settings: &Settings, context: &Context) -> Result<Arc<MemoryInbox>, BadSetting> {
    let name = format!("inbox of {}: {settings:?}", context.pipeline);
    context.clients.get_or_make(&name, || MemoryInbox::new(settings, &context.pipeline))
}
