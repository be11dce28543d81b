//! The pipeline that is explained, with the phrases of its connectors.

use std::ops::Deref;

use crate::connector::kind::{SinkPhrases, SourcePhrases, StorePhrases};
use crate::connector::prose::Prose;
use crate::event::Indexes;
use crate::script::{Entry, Script};
use crate::spec::{Definition, Order, PipelineSpec, Progress};

/// A pipeline, the wording of its values, and the phrases of its connectors.
pub(super) struct Subject<'a> {
    pub(super) definition: &'a Definition,
    prose: Prose<'a>,
    pub(super) entry: Option<Entry>,
    /// The script turns older forms of events into the newest one.
    pub(super) upcasts: bool,
    pub(super) source: SourcePhrases,
    pub(super) sink: SinkPhrases,
    pub(super) store: StorePhrases,
}

/// Paths begin at the top of the file.
impl<'a> Deref for Subject<'a> {
    type Target = Prose<'a>;

    fn deref(&self) -> &Prose<'a> {
        &self.prose
    }
}

impl<'a> Subject<'a> {
    pub(super) fn new(definition: &'a Definition, script: Option<&Script>) -> Self {
        let entry = script.map(Script::entry);
        let prose = Prose { by_event: entry == Some(Entry::HandleEvent), ..definition.prose(&[]) };
        Self {
            definition,
            prose,
            entry,
            upcasts: script.is_some_and(Script::upcasts),
            source: definition.source.phrases(&prose.within(&["source", definition.source.key])),
            sink: definition.sink.phrases(&prose.within(&["sink", definition.sink.key])),
            store: match &definition.progress {
                Progress::Store(store) => store.phrases(&prose.within(&["checkpoint", store.key])),
                Progress::Sink(sink) => sink.phrases(&prose.within(&["sink", definition.sink.key])),
            },
        }
    }

    pub(super) fn spec(&self) -> &'a PipelineSpec {
        &self.definition.loaded.spec
    }

    /// Returns whether effects and progress are one transaction.
    pub(super) fn sink_holds_progress(&self) -> bool {
        self.definition.progress.is_sink()
    }

    /// Returns whether the progress outlives the process.
    pub(super) fn progress_is_durable(&self) -> bool {
        self.definition.progress.facts().is_durable()
    }

    /// Returns whether the events outlive the process.
    pub(super) fn source_is_durable(&self) -> bool {
        self.definition.source.is_durable()
    }

    pub(super) fn has_ordinals(&self) -> bool {
        self.definition.source.contract().ordinals
    }

    pub(super) fn repeats(&self) -> bool {
        self.definition.source.contract().repeats
    }

    pub(super) fn indexes(&self) -> Indexes {
        self.definition.source.contract().indexes
    }

    pub(super) fn keeps_write_positions(&self) -> bool {
        self.definition.keeps_write_positions()
    }

    /// Returns the object that a failing event holds up.
    pub(super) fn held_up(&self) -> &'static str {
        match self.spec().schedule.order {
            Order::Stream => "its stream",
            Order::Tranche => "its tranche",
            Order::None => "nothing but the event itself",
        }
    }
}
