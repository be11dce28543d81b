//! The counters of `metric.inc(name)`.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;

/// The counter for names beyond the limit.
const OTHER: &str = "_other";

/// Counters by name, shared by all threads of a script, with at most [`Self::MOST`] names.
#[derive(Debug, Default)]
pub struct ScriptMetrics {
    counters: RwLock<HashMap<Box<str>, AtomicU64>>,
}

impl ScriptMetrics {
    /// The maximum number of names. Further names count as `_other`, as names made of data would otherwise grow without
    /// bound (R76).
    pub const MOST: usize = 1_000;

    /// Adds to a counter.
    ///
    /// # Errors
    /// `name` is not a valid name.
    pub fn add(&self, name: &str, by: u64) -> Result<(), String> {
        if let Some(counter) = self.counters.read().expect("counting does not panic").get(name) {
            counter.fetch_add(by, Ordering::Relaxed);
            return Ok(());
        }
        if !is_name(name) {
            return Err(format!(
                "`{name}` cannot name a metric: use 1 to 64 of the letters a-z, A-Z, 0-9, `_`, `.`, `-`"
            ));
        }
        let mut counters = self.counters.write().expect("counting does not panic");
        let name = if counters.len() < Self::MOST || counters.contains_key(name) { name } else { OTHER };
        counters.entry(name.into()).or_default().fetch_add(by, Ordering::Relaxed);
        Ok(())
    }

    /// Passes the counts since the last call to `each`.
    pub fn drain(&self, mut each: impl FnMut(&str, u64)) {
        for (name, count) in self.counters.read().expect("counting does not panic").iter() {
            match count.swap(0, Ordering::Relaxed) {
                0 => {}
                counted => each(name, counted),
            }
        }
    }

    /// Returns the counts since the last [`Self::drain`], sorted by name.
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        let counters = self.counters.read().expect("counting does not panic");
        let mut all: Vec<_> =
            counters.iter().map(|(name, count)| (name.to_string(), count.load(Ordering::Relaxed))).collect();
        all.sort();
        all
    }
}

/// Returns whether a text may become the label value of a metric or the tag of a call.
pub(super) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=64).contains(&text.len()) && text.chars().all(fits)
}
