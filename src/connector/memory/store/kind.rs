//! The answers of store `memory` about itself.

use std::sync::Arc;

use super::{MemoryCheckpoints, Settings};
use crate::checkpoint::CheckpointStore;
use crate::connector::Context;
use crate::connector::kind::{Kind, StoreFacts, StoreKind, StorePhrases, StorePlace};
use crate::connector::prose::Prose;

impl Kind for Settings {}

impl StoreKind for Settings {
    fn facts(&self) -> StoreFacts {
        StoreFacts { place: StorePlace::Process, write_positions: false, parked: true }
    }

    fn phrases(&self, _prose: &Prose<'_>) -> StorePhrases {
        StorePhrases { place: "in memory".to_owned(), power_failure: None }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn CheckpointStore>> {
        Ok(Arc::new(MemoryCheckpoints::new(self, context)))
    }
}
