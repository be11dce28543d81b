//! Everything that is parsed from text that a user writes: scalars, documents, filters, the daemon's settings.

pub mod scalar;
pub mod secret;
pub mod document;
pub mod filter;
pub mod template;
pub mod settings;
