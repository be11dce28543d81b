//! Suggestions for misspelled names.

use strsim::osa_distance;

/// Returns the candidate that resembles `written` most, if any does.
pub fn closest<'a>(written: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let written = folded(written);
    let (distance, candidate) =
        candidates.iter().map(|candidate| (osa_distance(&written, &folded(candidate)), *candidate)).min()?;
    let shorter = written.len().min(candidate.len());
    let begins = shorter >= 4 && (candidate.starts_with(&*written) || written.starts_with(candidate));
    (distance * 3 <= written.len().max(candidate.len()) || begins).then_some(candidate)
}

/// Returns a name in lower case, without separators.
fn folded(name: &str) -> String {
    name.chars().take(64).filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested_and_others_are_not() {
        let known = ["concurrency", "read_ahead", "max_events", "max_bytes", "url", "path"];
        let found = ["concurency", "readAhead", "max-events", "max_event", "ulr", "pathh", "colour", "x", ""]
            .map(|written| closest(written, &known));
        assert_eq!(
            found,
            [
                Some("concurrency"),
                Some("read_ahead"),
                Some("max_events"),
                Some("max_events"),
                Some("url"),
                Some("path"),
                None,
                None,
                None
            ]
        );
        assert_eq!(closest("anything", &[]), None);
    }
}
