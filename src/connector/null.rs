//! Sink `null`: accepts everything and keeps nothing. For pipelines whose handler needs no sink, and as the baseline of
//! measurements.
//!
//! ```toml
//! [sink.null]
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::kind::{Kind, SinkKind, SinkPhrases};
use super::prose::Prose;
use crate::handler::HandlerError;
use crate::sink::{Decided, Sink, Written};

/// `[sink.null]`: accepts everything and keeps nothing. It has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "NullSink")]
pub struct Settings {}

impl Kind for Settings {}

impl SinkKind for Settings {
    fn can_fail(&self) -> bool {
        false
    }

    fn phrases(&self, prose: &Prose<'_>) -> SinkPhrases {
        SinkPhrases { writes: format!("It discards {}.", prose.effects()), ..SinkPhrases::default() }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(Arc::new(NullSink::new(self, context)?))
    }
}

/// Stores nothing. See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct NullSink;

impl NullSink {
    pub fn new(_settings: &Settings, _context: &Context) -> anyhow::Result<Self> {
        Ok(Self)
    }
}

#[async_trait]
impl Sink for NullSink {
    fn max_batch(&self) -> usize {
        1 << 16
    }

    async fn write(&self, decided: &[Decided]) -> Vec<Result<Written, HandlerError>> {
        decided.iter().map(|_| Ok(Written::All)).collect()
    }
}
