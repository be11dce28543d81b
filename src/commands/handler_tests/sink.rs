//! What a pipeline's sink would say to what its script emits.

use crate::connector::{http, sqlite};
use crate::effect::Value;
use crate::spec::SinkSpec;

/// A sink, as far as it can refuse effects without being there.
pub(super) enum Rehearsal {
    Sqlite(sqlite::SqliteDryRun),
    Http,
    /// The others take whatever comes.
    Anything,
}

impl Rehearsal {
    pub(super) fn of(sink: &SinkSpec) -> Self {
        match sink {
            SinkSpec { sqlite: Some(settings), .. } => Self::Sqlite(sqlite::SqliteDryRun::new(settings)),
            SinkSpec { http: Some(_), .. } => Self::Http,
            _ => Self::Anything,
        }
    }

    /// Returns why the effects of a call would be refused.
    pub(super) fn refuses(&self, stream: &str, effects: &[Value]) -> Option<String> {
        match self {
            Self::Sqlite(rehearsal) => rehearsal.check(effects).err(),
            Self::Http => http::check_effects(stream, effects).err().map(|error| error.message().to_owned()),
            Self::Anything => None,
        }
    }
}
