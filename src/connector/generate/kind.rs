//! The answers of source `generate` about itself.

use std::sync::Arc;

use super::Settings;
use crate::connector::Context;
use crate::connector::kind::{BadSetting, Kind, Malformed, SourceKind, SourcePhrases, Unset};
use crate::connector::prose::{Prose, counted, sentences, thousands};
use crate::source::{Contract, Source};

impl Kind for Settings {
    fn check(&self) -> Vec<BadSetting> {
        super::check(self)
    }

    fn unset(&self, _pipeline: &str) -> Vec<Unset> {
        vec![Unset::means("count", "without end"), Unset::means("rate", "as fast as they are read")]
    }
}

impl SourceKind for Settings {
    fn contract(&self) -> Contract {
        Settings::contract(self)
    }

    fn phrases(&self, _prose: &Prose<'_>) -> SourcePhrases {
        SourcePhrases {
            reads: reads(self),
            once: "The source has every event once.",
            malformed: Malformed::Never("This source delivers no malformed events."),
            unavailable: None,
        }
    }

    fn build(&self, context: &Context) -> anyhow::Result<Arc<dyn Source>> {
        Ok(Arc::new(super::source(self, context)?))
    }

    fn build_apart(&self, context: &Context) -> Option<anyhow::Result<Arc<dyn Source>>> {
        Some(Self { rate: None, ..self.clone() }.build(context))
    }
}

fn reads(settings: &Settings) -> String {
    let rate = match settings.rate {
        Some(rate) => format!("{} a second", counted(rate.get(), "event")),
        None => "as fast as they are read".to_owned(),
    };
    let count = match settings.count {
        Some(count) => format!("{} in all", thousands(count)),
        None => "without end".to_owned(),
    };
    let share = |share: f64, of: &str| match share > 0.0 {
        true => format!("{:.0} % of {of}.", share * 100.0),
        false => String::new(),
    };
    let tranches = match settings.tranches.get() {
        1 => String::new(),
        tranches => format!(", in {}", counted(tranches.into(), "tranche")),
    };
    sentences([
        &*format!(
            "It generates events: {count}, {rate}, of {}{tranches}, the same ones in each run.",
            counted(settings.streams.get(), "stream")
        ),
        &*share(settings.duplicates, "them repeat an earlier one"),
        &*share(settings.gaps, "the indexes of a stream are missing"),
    ])
}
