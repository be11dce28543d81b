//! The check of a sink's `init` statements and table name.
//!
//! The statements run in a transaction, before the first write of each start. `check` runs none of them.

use rusqlite::Connection;

use super::{SinkSettings, sql};
use crate::config::scalar::Text;
use crate::connector::BadSetting;

/// Pragmas without effect in a transaction, or in a file that exists, each with its remedy.
const PRAGMAS: &[(&str, &str)] = &[
    ("auto_vacuum", "run it in the file before its first use"),
    ("defer_foreign_keys", "declare the constraints as `DEFERRABLE INITIALLY DEFERRED`"),
    ("encoding", "run it in the file before its first use"),
    ("foreign_keys", "the sink always checks foreign keys"),
    ("journal_mode", "the sink always writes a write-ahead log"),
    ("page_size", "run it in the file before its first use"),
    ("synchronous", "use the setting `synchronous`"),
    ("temp_store", "the sink always keeps temporary tables in memory"),
    ("wal_checkpoint", "use the setting `log`"),
];

/// Returns the `init` statements that can never succeed, and a table name that SQLite or the daemon reserves.
pub(super) fn check(settings: &SinkSettings) -> Vec<BadSetting> {
    let mut bad: Vec<_> = reserved_table(&settings.table).into_iter().collect();
    let texts = settings.init.iter().enumerate().filter(|(_, text)| !text.is_hole());
    // Without an in-memory database there is no parser; the statements then fail at the first write.
    let Ok(nowhere) = Connection::open_in_memory() else { return bad };
    bad.extend(texts.filter_map(|(index, text)| {
        let path = ["init", &index.to_string()];
        if let Some(why) = syntax_error(&nowhere, text) {
            return Some(BadSetting::new(&path, format!("invalid SQL: {why}")));
        }
        let (why, help) = sql::statements(text).into_iter().find_map(refusal)?;
        Some(BadSetting::new(&path, why).help(help))
    }));
    bad
}

fn reserved_table(table: &Text) -> Option<BadSetting> {
    let lower = table.to_ascii_lowercase();
    let why = if table.is_hole() {
        return None;
    } else if lower.starts_with("sqlite_") {
        "names that begin with `sqlite_` are SQLite's own"
    } else if sql::names_daemon_table(&lower) {
        sql::RESERVED
    } else {
        return None;
    };
    Some(BadSetting::new(&["table"], format!("`{}` is reserved: {why}", table.written())).help("choose another name"))
}

/// Returns the syntax error of a text. An error that depends on existing tables is none.
fn syntax_error(nowhere: &Connection, text: &str) -> Option<String> {
    sql::statements(text).into_iter().find_map(|statement| {
        let message = match nowhere.prepare(statement) {
            Err(rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg))) => msg,
            _ => return None,
        };
        let is_syntax = message.contains("syntax error")
            || message.starts_with("unrecognized token")
            || message.starts_with("incomplete input")
            || message.starts_with("object name reserved");
        is_syntax.then_some(message)
    })
}

/// Returns the reason for which a statement cannot succeed in `init`, and its remedy.
fn refusal(statement: &str) -> Option<(String, String)> {
    let mut words = sql::words(statement);
    let word = words.next()?;
    match &*word {
        "begin" | "commit" | "end" | "rollback" | "savepoint" | "release" => {
            let why = format!("`{}` cannot be used in `init`, which runs in a transaction", word.to_uppercase());
            Some((why, "remove it: all of `init` takes effect together".to_owned()))
        }
        "vacuum" | "attach" | "detach" => {
            let why = format!("`{}` cannot run in `init`, which runs in a transaction", word.to_uppercase());
            Some((why, "run it in the file while no daemon uses it".to_owned()))
        }
        "pragma" => refused_pragma(statement, words),
        "create" | "alter" | "drop" | "insert" | "update" | "delete" | "replace" | "with" => {
            // A view over the daemon's tables only reads them.
            let is_view = word == "create" && words.take(2).any(|word| word == "view");
            (sql::names_daemon_table(statement) && !is_view)
                .then(|| (sql::RESERVED.to_owned(), "choose another name".to_owned()))
        }
        _ => None,
    }
}

fn refused_pragma(statement: &str, words: impl Iterator<Item = String>) -> Option<(String, String)> {
    let words: Vec<_> = words.collect();
    // `PRAGMA schema.name = value`: the name is the first word that is known.
    let (name, remedy) = PRAGMAS.iter().find(|(name, _)| words.iter().take(2).any(|word| word == name))?;
    // Without a value a pragma only reads, which is harmless. `wal_checkpoint` acts without one.
    let sets = statement.contains(['=', '(']) || *name == "wal_checkpoint";
    // Files often state this default of the sink.
    let is_default = *name == "foreign_keys"
        && (words.iter().skip(1).any(|word| ["on", "true", "yes"].contains(&&**word)) || statement.contains('1'));
    (sets && !is_default).then(|| {
        let why = format!("`PRAGMA {name}` has no effect in `init`, which runs in a transaction");
        (why, (*remedy).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_init(sql: &str) -> Vec<String> {
        let settings = SinkSettings { init: vec![Text::literal(sql)], ..SinkSettings::default() };
        check(&settings).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn x4_statements_that_cannot_run_in_a_transaction_are_refused() {
        for sql in ["VACUUM", "BEGIN", "COMMIT", "end", "CREATE TABLE t (a); ROLLBACK", "DETACH x", "-- x\nSAVEPOINT s"]
        {
            let found = check_init(sql);
            assert!(found.len() == 1 && found[0].contains("which runs in a transaction"), "{sql}: {found:?}");
        }
    }

    #[test]
    fn x4_pragmas_without_effect_in_a_transaction_are_refused() {
        for sql in [
            "PRAGMA synchronous = OFF",
            "PRAGMA journal_mode = DELETE",
            "pragma main.Journal_Mode(delete)",
            "PRAGMA foreign_keys = OFF",
            "PRAGMA wal_checkpoint",
        ] {
            let found = check_init(sql);
            assert!(found.len() == 1 && found[0].contains("has no effect in `init`"), "{sql}: {found:?}");
        }
        for sql in
            ["PRAGMA foreign_keys = ON", "PRAGMA foreign_keys=1", "PRAGMA max_page_count = 40", "PRAGMA encoding"]
        {
            assert!(check_init(sql).is_empty(), "{sql}");
        }
    }

    #[test]
    fn x4_reserved_names_are_refused() {
        for table in ["sqlite_x", "Propulsiond_mine", "propulsion_checkpoint"] {
            let settings = SinkSettings { table: Text::literal(table), ..SinkSettings::default() };
            let found = check(&settings);
            assert_eq!(found[0].path, ["table"], "{table}");
        }
        assert_eq!(check_init("CREATE TABLE sqlite_x (a)").len(), 1);
        assert_eq!(check_init("DROP TABLE propulsiond_progress").len(), 1);
        assert!(check_init("CREATE VIEW v AS SELECT * FROM propulsiond_progress").is_empty());
    }

    #[test]
    fn x4_statements_that_can_work_are_accepted() {
        for sql in [
            "CREATE TABLE IF NOT EXISTS t (a); CREATE INDEX IF NOT EXISTS i ON t (a)",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END",
            "INSERT INTO elsewhere VALUES ('VACUUM; BEGIN')",
            "",
        ] {
            assert!(check_init(sql).is_empty(), "{sql}: {:?}", check_init(sql));
        }
    }

    #[test]
    fn a_syntax_error_in_any_statement_is_named() {
        assert_eq!(
            check_init("INSERT INTO elsewhere VALUES (1); CREAT TABLE t (a)"),
            ["invalid SQL: near \"CREAT\": syntax error"]
        );
    }
}
