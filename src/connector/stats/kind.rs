//! The answers of sink `stats` about itself.

use std::sync::Arc;

use super::{Settings, StatsSink};
use crate::connector::Context;
use crate::connector::kind::{BadSetting, Kind, SinkKind, SinkPhrases};
use crate::connector::prose::Prose;
use crate::sink::Sink;

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        let is_zero = self.interval.is_zero();
        is_zero.then(|| BadSetting::new(&["interval"], "`interval` must be greater than 0")).into_iter().collect()
    }
}

impl SinkKind for Settings {
    fn can_fail(&self) -> bool {
        false
    }

    fn phrases(&self, prose: &Prose<'_>) -> SinkPhrases {
        let (effects, interval) = (prose.effects(), prose.interval(&["interval"], self.interval));
        SinkPhrases {
            writes: format!(
                "It counts {effects} by category and type and logs the counts every {interval}. It writes nothing else."
            ),
            overlap: "One write at a time takes all waiting decisions.",
            repeat: "A repeated event is counted again.",
            ..SinkPhrases::default()
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Sink>> {
        Ok(Arc::new(StatsSink::new(self, context)?))
    }
}
