//! Secrets written in clear in a file: the author gets advice, and no output shows them.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::{Document, Kind, Location, Node, Problem};

/// Key names that suggest a secret.
const NAMES: &str = "token|passw|secret|authorization|api[-_]?key|credential|cookie";

/// Returns advice for each secret that is written in clear: under a name that suggests a secret, or as the password of
/// a URL. A reference, also one with a default, is fine.
pub fn clear_secrets(document: &Document) -> Vec<Problem> {
    let mut found = Vec::new();
    look(document, &document.root, &mut Vec::new(), &mut found);
    found
}

fn look(document: &Document, node: &Node, path: &mut Vec<String>, found: &mut Vec<Problem>) {
    match &node.kind {
        Kind::Table(entries) => {
            for entry in entries {
                path.push(entry.key.to_string());
                look(document, &entry.value, path, found);
                path.pop();
            }
        }
        Kind::List(items) => items.iter().for_each(|item| look(document, item, path, found)),
        Kind::Text(text) if is_secret(path, text) => {
            let problem = Problem::new(&document.file, "a secret is written in clear");
            found.push(Problem {
                path: path.join("."),
                ..problem
                    .at(Location::new(&document.text, node.span.clone()))
                    .help(
                        "keep it outside of the file: `${NAME}` for a variable, `${file:/run/secrets/name}` for a file",
                    )
                    .as_warning()
            });
        }
        _ => {}
    }
}

fn is_secret(path: &[String], text: &str) -> bool {
    static NAMED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(&format!("(?i){NAMES}")).expect("the pattern is fixed"));
    static IN_URL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"://[^/@\s:]*:[^/@\s]+@").expect("the pattern is fixed"));
    if text.is_empty() || text.contains("${") {
        return false;
    }
    let is_bearer = matches!(path, [.., auth, kind] if auth == "auth" && kind == "bearer");
    is_bearer || path.last().is_some_and(|key| NAMED.is_match(key)) || IN_URL.is_match(text)
}

/// Returns `line`, which stands alone, with suspected secrets masked. Masking preserves columns.
pub fn without_secrets(line: &str) -> String {
    masked(line, 0, line)
}

pub(super) fn masked(text: &str, start: usize, line: &str) -> String {
    const VALUE: &str = r#"("(?:[^"\\]|\\.)*"?|'[^']*'?|\[(?:"(?:[^"\\]|\\.)*"?|'[^']*'?|[^\]"'])*\]?|[^"'\s{\[].*)"#;
    static ANY: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(&format!(r"([=:]\s*){VALUE}")).expect("the pattern is fixed"));
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = format!(r#"((?i)[\w-]*(?:{NAMES}|bearer)[\w-]*["']?\s*[=:]\s*){VALUE}"#);
        Regex::new(&pattern).expect("the pattern is fixed")
    });
    static IN_URL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(://[^/@\s"':]*:)([^@\s"'/]+)"#).expect("the pattern is fixed"));
    let hide = |captures: &Captures<'_>| format!("{}{}", &captures[1], hidden(&captures[2]));
    let named = if holds_secrets(text, start, line) { &ANY } else { &NAMED };
    let line = named.replace_all(line, hide);
    // The part after `host:` is a port, unless an `@` follows.
    IN_URL
        .replace_all(&line, |captures: &Captures<'_>| {
            let end = captures.get(0).map_or(0, |all| all.end());
            if line[end..].starts_with('@') { hide(captures) } else { captures[0].to_owned() }
        })
        .into_owned()
}

/// Returns whether a line is in, or opens, a table whose values are all secrets. This reads the text, because a file
/// that does not parse has no tree.
fn holds_secrets(text: &str, start: usize, line: &str) -> bool {
    static OPENS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"^\s*(?:\[+[\w.-]*)?["']?(?:[\w.-]*\.)?(?:headers|auth|basic)\b|^\[?http\s*[\].=]|[{,]\s*(?:headers|auth)\s*[=:]"#)
            .expect("the pattern is fixed")
    });
    if OPENS.is_match(line) {
        return true;
    }
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut least = indentation(line);
    for above in text[..start].lines().rev().filter(|above| !above.trim().is_empty()) {
        let is_table = above.trim_start().starts_with('[');
        // In YAML, the lines above with less indentation enclose this one. In TOML, only the header of the table does.
        if is_table || indentation(above) < least {
            least = indentation(above);
            if OPENS.is_match(above) {
                return true;
            }
        }
        if is_table {
            return false;
        }
    }
    false
}

fn hidden(secret: &str) -> String {
    let mut out = String::new();
    let mut rest = secret;
    while !rest.is_empty() {
        let end = match rest.find("${") {
            Some(0) => rest.find('}').map_or(rest.len(), |at| at + 1),
            Some(at) => at,
            None => rest.len(),
        };
        let (part, after) = rest.split_at(end);
        if part.starts_with("${") {
            out.push_str(part);
        } else {
            out.extend(
                part.chars().map(|c| if matches!(c, '"' | '\'' | ' ' | '[' | ']' | '{' | '}' | ',') { c } else { '*' }),
            );
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Format;
    use super::*;

    /// Returns the last line of a text, masked.
    fn shown(text: &str) -> String {
        let start = text.rfind('\n').map_or(0, |at| at + 1);
        masked(text, start, &text[start..])
    }

    #[test]
    fn r63_secrets_in_a_line_are_masked() {
        for (text, expected) in [
            ("path = 'a'", "path = 'a'"),
            ("token = 'hush'", "token = '****'"),
            (r#"token = "a\"hush""#, r#"token = "**"****""#),
            ("x_token = hush, more", "x_token = ****, ****"),
            ("token = '${TOKEN}'", "token = '${TOKEN}'"),
            ("url = 'http://u:hush@h'", "url = 'http://u:****@h'"),
            ("url = 'http://h:80/a@b'", "url = 'http://h:80/a@b'"),
            ("auth = { baerer = 'hush' }", "auth = { baerer = '****' }"),
            ("headers = { x = 'hush', y = 'hush' }", "headers = { x = '****', y = '****' }"),
            ("[sink.http.headers]\nx = 'a'\ny = 'hush'", "y = '****'"),
            ("[sink.http.headers]\nx = 'a'\n[filter]\ny = 'b'", "y = 'b'"),
            ("[http]\ntokn = 'hush'", "tokn = '****'"),
            ("sink:\n  http:\n    headers:\n      x: hush", "      x: ****"),
            ("sink:\n  http:\n    headers:\n      x: a\n    url: b", "    url: b"),
            ("sink:\n  http:\n    auth:\n      basic:\n        user: hush", "        user: ****"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn r63_secrets_in_clear_are_found_by_key_names_and_in_urls() {
        let found = |text: &str| {
            let document = Document::parse(Path::new("a.yaml"), text.to_owned(), Format::Yaml).unwrap();
            clear_secrets(&document).iter().map(|problem| problem.path.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            found("a: {api_token: x, token: '${T}', password: '', n: [{X-Api-Key: y}]}"),
            "a.api_token a.n.X-Api-Key"
        );
        assert_eq!(found("auth: {bearer: x}\nbearer: y\nurl: http://u:p@h\nother: http://h:1/p@q"), "auth.bearer url");
    }
}
