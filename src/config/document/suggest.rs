//! What was probably meant.

/// Returns the candidate that resembles `written` most, if one does.
pub fn closest<'a>(written: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let written = folded(written);
    let (distance, candidate) =
        candidates.iter().map(|candidate| (distance(&written, &folded(candidate)), *candidate)).min()?;
    let shorter = written.len().min(candidate.len());
    let begins = shorter >= 4 && (candidate.starts_with(&*written) || written.starts_with(candidate));
    (distance * 3 <= written.len().max(candidate.len()) || begins).then_some(candidate)
}

/// Returns a name as it is however it was cased and joined.
fn folded(name: &str) -> String {
    name.chars().take(64).filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Returns how many letters must be added, dropped, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_meant_are_found_and_others_are_not() {
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
