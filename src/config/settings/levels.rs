//! `log.level`: the levels of log lines, in general and by target.

use tracing_subscriber::EnvFilter;

use crate::config::document::closest;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Log levels that were parsed, such as `info,propulsiond::pipeline=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevels(String);

/// The error of levels that do not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadLevel {
    pub message: String,
    pub help: Option<String>,
}

impl LogLevels {
    /// Parses levels, separated by commas.
    ///
    /// # Errors
    /// A part is no level, and no level of a target.
    pub fn parse(written: &str) -> Result<Self, BadLevel> {
        written.split(',').try_for_each(|part| check(part.trim()))?;
        Ok(Self(written.to_owned()))
    }

    /// Returns the filter of log lines.
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse(&self.0).expect("each part was parsed before")
    }
}

/// Checks one part. tracing takes a lone unknown word for a target, and would log nothing else.
fn check(part: &str) -> Result<(), BadLevel> {
    let (target, level) = part.rsplit_once('=').map_or((None, part), |(target, level)| (Some(target), level));
    if LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
        let parsed = EnvFilter::builder().parse(part);
        return parsed.map(drop).map_err(|_| BadLevel { message: format!("invalid log level `{part}`"), help: None });
    }
    let help = match (closest(level, &LEVELS), target) {
        (Some(near), Some(target)) => format!("did you mean `{target}={near}`?"),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, _) => "write a level, or one for a target as in `info,propulsiond::pipeline=debug`".to_owned(),
    };
    let message = format!("unknown level `{level}`, expected `{}`", LEVELS.join("`, `"));
    Err(BadLevel { message, help: Some(help) })
}
