//! Source `stdin`: events from standard input. It is source `json` over one pipe, which ends with its input.
//!
//! **Positions.** Standard input keeps no bytes, so a position only numbers the inputs: a later process begins with the
//! line that comes next, under a new number. Ordinals therefore never repeat (C1). A regular file as standard input is
//! read like a pipe, from its start in each process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Index, STDIN, kind};
use crate::config::scalar::Text;
use crate::connector::kind::{BadSetting, Kind, KindFile, SourceKind, SourcePhrases, Usage};
use crate::connector::prose::{Prose, sentences};
use crate::connector::{Context, map};
use crate::formats::map::RecordMap;
use crate::source::{Contract, Source};

/// `[source.stdin]`: events from standard input. The pipeline ends with its input. Events that were read and not handled
/// when the process ends are lost.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "StdinSource")]
pub struct Settings {
    /// The origin of the events' indexes. Not with `map`, which has its own `index`.
    pub index: Index,
    /// The number of lines to pass at the start.
    pub skip: u64,
    /// The mapping of foreign records to events. Left out: each line is an event, or an Equinox document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<map::Settings>,
    /// The number of events in a batch.
    pub batch: NonZeroUsize,
}

impl Default for Settings {
    fn default() -> Self {
        let super::Settings { index, skip, map, batch, .. } = super::Settings::default();
        Self { index, skip, map, batch }
    }
}

impl Settings {
    fn as_json(&self) -> super::Settings {
        let Self { index, skip, map, batch } = self.clone();
        super::Settings { path: Text::literal(STDIN), index, skip, map, batch, ..super::Settings::default() }
    }
}

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        super::check_lines(self.index, self.map.as_ref(), self.batch)
    }

    fn files(&self, _pipeline: &str) -> Vec<KindFile> {
        vec![KindFile { key: None, ..KindFile::named("path", &Text::literal(STDIN), Usage::Stdin) }]
    }
}

impl SourceKind for Settings {
    fn contract(&self) -> Contract {
        super::contract(self.index, self.map.as_ref())
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn ends(&self) -> bool {
        true
    }

    fn record_map(&self) -> Option<Result<RecordMap, BadSetting>> {
        self.map.as_ref().map(map::Settings::compile)
    }

    fn phrases(&self, _prose: &Prose<'_>) -> SourcePhrases {
        let records = self.map.as_ref().map_or("a JSON object a line", map::Settings::records);
        let reads = format!("It reads standard input, {records}, and ends with it.");
        let lines = kind::lines(self.skip, self.index, self.map.as_ref());
        SourcePhrases {
            reads: sentences([&*reads, &*lines, kind::OF_A_PIPE]),
            once: "Each line is an event of its own, even if another line is equal.",
            malformed: kind::malformed(self.map.as_ref()),
            unavailable: Some("standard input cannot be read"),
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Source>> {
        Ok(Arc::new(super::source(&self.as_json(), context, context.finite)?))
    }
}
