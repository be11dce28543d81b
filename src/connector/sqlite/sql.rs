//! The little that the connector knows of SQL's grammar: statements, their first words, names.

/// The beginnings of the names of the daemon's own tables.
const DAEMON_NAMES: [&str; 2] = ["propulsiond_", "propulsion_checkpoint"];

/// The reason for which a name is refused.
pub(super) const RESERVED: &str = "names that begin with `propulsiond_` are the daemon's own";

/// Returns whether a text names one of the daemon's own tables.
pub(super) fn names_daemon_table(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    DAEMON_NAMES.iter().any(|name| lower.contains(name))
}

/// Returns the first word after white space and comments, in lower case.
pub(super) fn first_word(sql: &str) -> String {
    words(sql).next().unwrap_or_default()
}

/// Splits a text into statements, each without its semicolon. Follows `sqlite3_complete`: the body of a trigger holds
/// statements of its own, and ends with `; END`.
pub(super) fn statements(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut is_trigger = false;
    let mut after_semicolon = false;
    let mut ends_trigger = false;
    let mut seen = 0;
    for token in tokens(sql) {
        match token.kind {
            TokenKind::Semicolon if !is_trigger || ends_trigger => {
                statements.push(&sql[start..token.start]);
                start = token.end;
                (is_trigger, after_semicolon, ends_trigger, seen) = (false, false, false, 0);
            }
            TokenKind::Semicolon => after_semicolon = true,
            TokenKind::Word => {
                let word = sql[token.start..token.end].to_ascii_lowercase();
                // `CREATE TRIGGER` or `CREATE TEMP TRIGGER`.
                is_trigger |= word == "trigger" && (1..=2).contains(&seen) && first_word(&sql[start..]) == "create";
                ends_trigger = is_trigger && after_semicolon && word == "end";
                after_semicolon = false;
                seen += 1;
            }
            TokenKind::Other => (after_semicolon, ends_trigger) = (false, false),
        }
    }
    statements.push(&sql[start..]);
    statements.retain(|statement| tokens(statement).next().is_some());
    statements
}

/// Returns the words of a statement in lower case, without quoted names, numbers and operators.
pub(super) fn words(sql: &str) -> impl Iterator<Item = String> {
    let words = tokens(sql).filter(|token| token.kind == TokenKind::Word);
    words.map(|token| sql[token.start..token.end].to_ascii_lowercase())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Word,
    Semicolon,
    Other,
}

struct Token {
    kind: TokenKind,
    start: usize,
    end: usize,
}

/// Splits a text into tokens. Skips white space and comments; a quoted text is one token.
fn tokens(sql: &str) -> impl Iterator<Item = Token> {
    let bytes = sql.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at;
            let rest = &sql[start..];
            let kind = match *bytes.get(start)? {
                byte if byte.is_ascii_whitespace() => {
                    at += 1;
                    continue;
                }
                b'-' if rest.starts_with("--") => {
                    at = rest.find('\n').map_or(sql.len(), |end| start + end);
                    continue;
                }
                b'/' if rest.starts_with("/*") => {
                    at = rest[2..].find("*/").map_or(sql.len(), |end| start + 2 + end + 2);
                    continue;
                }
                b';' => {
                    at += 1;
                    TokenKind::Semicolon
                }
                quote @ (b'\'' | b'"' | b'`' | b'[') => {
                    let close = if quote == b'[' { ']' } else { char::from(quote) };
                    // A doubled quote becomes two tokens in a row, which changes nothing here.
                    at = rest[1..].find(close).map_or(sql.len(), |end| start + 1 + end + 1);
                    TokenKind::Other
                }
                byte if byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii() => {
                    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
                    at = start + rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                    TokenKind::Word
                }
                _ => {
                    at += 1;
                    TokenKind::Other
                }
            };
            return Some(Token { kind, start, end: at });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &[&str]) {
        let found: Vec<_> = statements(sql).into_iter().map(str::trim).collect();
        assert_eq!(found, expected, "{sql}");
    }

    #[test]
    fn a_text_splits_at_semicolons_outside_quotes_and_comments() {
        check("", &[]);
        check("-- nothing\n;; /* ; */ ;", &[]);
        check("a; b", &["a", "b"]);
        check(
            "INSERT INTO t VALUES (';', \"a;\"\";b\", [;], `;`); -- ;\nVACUUM",
            &["INSERT INTO t VALUES (';', \"a;\"\";b\", [;], `;`)", "-- ;\nVACUUM"],
        );
        check("SELECT 'open;", &["SELECT 'open;"]);
    }

    #[test]
    fn a_trigger_is_one_statement_with_its_body() {
        let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = CASE 1 WHEN 1 THEN 2 END; DELETE FROM d; END";
        check(&format!("{trigger}; COMMIT"), &[trigger, "COMMIT"]);
        check("CREATE TABLE trigger_log (a); END", &["CREATE TABLE trigger_log (a)", "END"]);
    }

    #[test]
    fn the_first_word_follows_comments() {
        for (sql, word) in [
            ("/* sly */ -- x\n ;RollBack", "rollback"),
            ("", ""),
            ("(SELECT 1)", "select"),
            ("  insert into t", "insert"),
        ] {
            assert_eq!(first_word(sql), word, "{sql}");
        }
    }
}
