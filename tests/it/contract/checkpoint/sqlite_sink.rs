//! The effects of the SQLite sink: the accepted ones, and the messages for the refused ones.

use std::path::Path;
use std::time::Duration;

use expect_test::{Expect, expect};
use propulsiond::clock::Timestamp;
use propulsiond::config::scalar::Text;
use propulsiond::connector::sqlite::{SinkSettings, SqliteSink};
use propulsiond::effect::{Emitted, Ends, Value};
use propulsiond::event::{Assembler, Kind, Text as Field};
use propulsiond::handler::HandlerErrorKind;
use propulsiond::position::Ordinal;
use propulsiond::sink::{Decided, Effects, Sink, TransactionError, TransactionalSink, Written};
use propulsiond::work::{Work, WorkId, WorkKind};
use rusqlite::types::ValueRef;
use tempfile::TempDir;

use super::harness::*;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS t (a UNIQUE, b)";

fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(key, value)| ((*key).into(), value.clone())).collect())
}

fn rows(database: &Path, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let value = |column| match row.get_ref_unwrap(column) {
            ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
            other => format!("{other:?}"),
        };
        Ok((0..columns).map(value).collect::<Vec<_>>().join(" "))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Writes each effect as a decision of its own, beside a valid one, and compares the results.
async fn check(effects: &[Value], expected: Expect) {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &[TABLE]);
    let works = decided("ok-1", 0, vec![statement("INSERT INTO t VALUES ('it works', 0)", vec![])]);
    let mut decisions = vec![works];
    decisions.extend((0..).zip(effects).map(|(index, effect)| decided("a-1", index, vec![effect.clone()])));
    let results = sink.write(&decisions).await;
    assert_eq!(results[0], Ok(Written::All), "no refused decision spoils it");
    let lines = results[1..].iter().map(|result| match result {
        Ok(written) => format!("{written:?}\n"),
        Err(error) => format!("{}: {error}\n", error.kind().as_str()),
    });
    expected.assert_eq(&lines.collect::<String>());
    let kept = rows(&directory.path().join("projections.db"), "SELECT a FROM t WHERE a = 'it works'");
    assert_eq!(kept.len(), 1);
}

#[tokio::test]
async fn effects_of_the_wrong_shape_are_permanent_and_named() {
    let sql = "INSERT INTO t VALUES (?, ?)";
    check(
        &[
            Value::Int(1),
            Value::Null,
            map(&[]),
            map(&[("params", Value::List(vec![]))]),
            map(&[("sql", Value::Int(1))]),
            map(&[("sql", sql.into()), ("parameters", Value::Null)]),
            map(&[("sql", sql.into()), ("params", Value::Int(1))]),
            statement(sql, vec![Value::Int(1), Value::List(vec![])]),
            map(&[("sql", sql.into()), ("params", map(&[("a", map(&[]))]))]),
        ],
        expect![[r#"
            permanent: the `sqlite` sink expects `#{ sql: "...", params: [...] }`, not an integer
            permanent: the `sqlite` sink expects `#{ sql: "...", params: [...] }`, not nothing
            permanent: an effect for the `sqlite` sink has no `sql`
            permanent: an effect for the `sqlite` sink has no `sql`
            permanent: `sql` must be a string, not an integer
            permanent: unknown key `parameters` in an effect of the `sqlite` sink, expected `sql` or `params`
            permanent: cannot run `INSERT INTO t VALUES (?, ?)`: `params` must be an array or a map, not an integer
            permanent: cannot run `INSERT INTO t VALUES (?, ?)`: parameter 2 is an array, which no column can hold (make it JSON text)
            permanent: cannot run `INSERT INTO t VALUES (?, ?)`: parameter `a` is a map, which no column can hold (make it JSON text)
        "#]],
    )
    .await;
}

#[tokio::test]
async fn statements_that_cannot_work_are_permanent_and_named() {
    let long = format!("INSERT INTO t VALUES (1, '{}'", "x".repeat(100));
    let by_name = |sql: &str, names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name, Value::Int(1))).collect();
        map(&[("sql", sql.into()), ("params", map(&names))])
    };
    check(
        &[
            statement("INSERT INTO t VALUES (?, ?)", vec![Value::Int(1)]),
            statement("INSERT INTO t VALUES (1, 2)", vec![Value::Int(1)]),
            statement("INSERT INTO t VALUES ('it works', 1)", vec![]),
            statement("INSERT  INTO\n nowhere VALUES (1)", vec![]),
            statement("INSERT INTO t (c) VALUES (1)", vec![]),
            statement("INSERT INTO t VALUES (1, 2); INSERT INTO t VALUES (3, 4)", vec![]),
            statement("INSERT INTO t VALUES (1, 2) RETURNING a", vec![]),
            statement(&long, vec![]),
            statement("gibberish", vec![]),
            statement("", vec![]),
            statement("-- nothing\n/* at all */ ;", vec![]),
            by_name("INSERT INTO t VALUES (:a, :b)", &["a"]),
            by_name("INSERT INTO t VALUES (:a, :b)", &["a", "b", "c"]),
            by_name("INSERT INTO t VALUES (?, ?)", &["a", "b"]),
        ],
        expect![[r#"
            permanent: cannot run `INSERT INTO t VALUES (?, ?)`: it has 2 parameters, but `params` gives 1
            permanent: cannot run `INSERT INTO t VALUES (1, 2)`: it has 0 parameters, but `params` gives 1
            permanent: cannot run `INSERT INTO t VALUES ('it works', 1)`: UNIQUE constraint failed: t.a
            permanent: cannot run `INSERT INTO nowhere VALUES (1)`: no such table: nowhere (correct the statement, or create the table in `init`)
            permanent: cannot run `INSERT INTO t (c) VALUES (1)`: table t has no column named c (correct the statement, or declare the column in `init` and run `propulsiond rebuild`)
            permanent: cannot run `INSERT INTO t VALUES (1, 2); INSERT INTO t VALUES (3, 4)`: it is more than one statement
            permanent: cannot run `INSERT INTO t VALUES (1, 2) RETURNING a`: it returns rows, which would go nowhere
            permanent: cannot run `INSERT INTO t VALUES (1, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…`: incomplete input
            permanent: cannot run `gibberish`: `gibberish` is not allowed in effects
            permanent: cannot run ``: there is no statement in it
            permanent: cannot run `-- nothing /* at all */ ;`: there is no statement in it
            permanent: cannot run `INSERT INTO t VALUES (:a, :b)`: `params` lacks its parameter `:b`
            permanent: cannot run `INSERT INTO t VALUES (:a, :b)`: it has 2 parameters, but `params` gives 3
            permanent: cannot run `INSERT INTO t VALUES (?, ?)`: its parameters have no names: give `params` as an array
        "#]],
    )
    .await;
}

#[tokio::test]
async fn statements_that_do_not_fit_their_table_are_permanent_and_name_the_remedy() {
    check(
        &[
            statement("CREATE TABLE strict (n INTEGER) STRICT", vec![]),
            statement("CREATE TABLE keyed (id INTEGER PRIMARY KEY)", vec![]),
            statement("INSERT INTO strict VALUES (?)", vec!["one".into()]),
            statement("INSERT INTO keyed VALUES (?)", vec!["one".into()]),
            statement("INSERT INTO t VALUES (1, 2, 3)", vec![]),
            statement("INSERT INTO t (a, b) VALUES (1)", vec![]),
            statement("UPDATE t SET a = c", vec![]),
        ],
        expect![[r#"
            All
            All
            permanent: cannot run `INSERT INTO strict VALUES (?)`: cannot store TEXT value in INTEGER column strict.n (emit a value of the column's type, or declare another type in `init` and run `propulsiond rebuild`)
            permanent: cannot run `INSERT INTO keyed VALUES (?)`: datatype mismatch (emit an integer for the column that is INTEGER PRIMARY KEY)
            permanent: cannot run `INSERT INTO t VALUES (1, 2, 3)`: table t has 2 columns but 3 values were supplied (correct the statement, or declare the column in `init` and run `propulsiond rebuild`)
            permanent: cannot run `INSERT INTO t (a, b) VALUES (1)`: 1 values for 2 columns (correct the statement, or declare the column in `init` and run `propulsiond rebuild`)
            permanent: cannot run `UPDATE t SET a = c`: no such column: c (correct the statement, or declare the column in `init` and run `propulsiond rebuild`)
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_table_of_another_form_that_cannot_store_an_event_is_named_with_the_remedy() {
    let directory = TempDir::new().unwrap();
    let (init, table) = (vec![Text::literal(TABLE)], Text::literal("t"));
    let sink = SqliteSink::new(&SinkSettings { init, table, ..SinkSettings::default() }, &context(directory.path()));
    let error = sink.write(&[events("a-1", 0, &[b"{}"], 1)]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Permanent);
    expect!["cannot store an event: table t has no column named stream (the table has a form of its own: name another `table`)"]
        .assert_eq(error.message());
}

#[tokio::test]
async fn statements_that_could_end_the_transaction_or_change_our_tables_are_refused() {
    let statements = [
        "SELECT * FROM t",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "VALUES (1)",
        "EXPLAIN INSERT INTO t VALUES (1, 2)",
        "BEGIN",
        "COMMIT",
        "end",
        "/* sly */ rollback",
        "SAVEPOINT s",
        "RELEASE batch",
        "ATTACH 'x.db' AS x",
        "DETACH x",
        "PRAGMA synchronous = OFF",
        "VACUUM INTO 'x.db'",
        "REINDEX",
        "ANALYZE",
        "UPDATE propulsiond_progress SET fence = 0",
        "DELETE FROM \"Propulsion_Checkpoint\"",
    ];
    check(&statements.map(|sql| statement(sql, vec![])), expect![[r#"
        permanent: cannot run `SELECT * FROM t`: it only reads, and its result would go nowhere
        permanent: cannot run `WITH x AS (SELECT 1) SELECT * FROM x`: it only reads, and its result would go nowhere
        permanent: cannot run `VALUES (1)`: it only reads, and its result would go nowhere
        permanent: cannot run `EXPLAIN INSERT INTO t VALUES (1, 2)`: it only reads, and its result would go nowhere
        permanent: cannot run `BEGIN`: `begin` is not allowed in effects
        permanent: cannot run `COMMIT`: `commit` is not allowed in effects
        permanent: cannot run `end`: `end` is not allowed in effects
        permanent: cannot run `/* sly */ rollback`: `rollback` is not allowed in effects
        permanent: cannot run `SAVEPOINT s`: `savepoint` is not allowed in effects
        permanent: cannot run `RELEASE batch`: `release` is not allowed in effects
        permanent: cannot run `ATTACH 'x.db' AS x`: `attach` is not allowed in effects
        permanent: cannot run `DETACH x`: `detach` is not allowed in effects
        permanent: cannot run `PRAGMA synchronous = OFF`: `pragma` is not allowed in effects
        permanent: cannot run `VACUUM INTO 'x.db'`: `vacuum` is not allowed in effects
        permanent: cannot run `REINDEX`: `reindex` is not allowed in effects
        permanent: cannot run `ANALYZE`: `analyze` is not allowed in effects
        permanent: cannot run `UPDATE propulsiond_progress SET fence = 0`: names that begin with `propulsiond_` are the daemon's own
        permanent: cannot run `DELETE FROM "Propulsion_Checkpoint"`: names that begin with `propulsiond_` are the daemon's own
    "#]]).await;
}

#[tokio::test]
async fn every_kind_of_value_arrives_unchanged() {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &["CREATE TABLE v (place INTEGER PRIMARY KEY, value)"]);
    let values = [
        Value::Null,
        Value::Bool(true),
        Value::Bool(false),
        Value::Int(i64::MIN),
        Value::Float(1.5),
        "text with \0 and 漢字".into(),
        Value::Bytes(b"\xff\0".as_slice().into()),
    ];
    let by_place =
        values.iter().map(|value| statement("INSERT INTO v (value) VALUES (?)", vec![value.clone()])).collect();
    let sql = "WITH x AS (SELECT :one AS one) INSERT INTO v (value) SELECT one || @two || $one FROM x";
    let by_name = map(&[
        ("sql", sql.into()),
        ("params", map(&[(":one", "1".into()), ("two", "2".into()), ("$one", "3".into())])),
    ]);
    let results = sink.write(&[decided("a-1", 0, by_place), decided("a-2", 0, vec![by_name])]).await;
    assert_eq!(results, [Ok(Written::All), Ok(Written::All)]);
    let stored = rows(&directory.path().join("projections.db"), "SELECT value FROM v ORDER BY place").join("\n");
    expect![[r#"
        Null
        Integer(1)
        Integer(0)
        Integer(-9223372036854775808)
        Real(1.5)
        "text with \0 and 漢字"
        Blob([255, 0])
        "123""#]]
    .assert_eq(&stored);
}

/// Puts statements that undo more than themselves into a batch, with others before and after.
async fn check_contained(init: &str, culprit: &str) {
    for transactional in [false, true] {
        let directory = TempDir::new().unwrap();
        let sink = sqlite_sink(directory.path(), &[EFFECTS, TABLE, init]);
        let bad = decided("x-1", 0, vec![insert("x-1", 0), statement(culprit, vec![])]);
        let decisions = [inserts("a-1", 0), bad, inserts("a-2", 0), inserts("bad-1", 0), inserts("a-3", 0)];
        let kinds = |results: Vec<Result<Written, propulsiond::handler::HandlerError>>| -> Vec<_> {
            results.into_iter().map(|result| result.map_err(|error| error.kind())).collect()
        };
        let results = if transactional {
            let mut transaction = sink.begin().await.unwrap();
            let results = transaction.write(&decisions).await;
            transaction.commit(&[], &[]).await.unwrap();
            kinds(results)
        } else {
            kinds(sink.write(&decisions).await)
        };
        let (all, permanent) = (Ok(Written::All), Err(HandlerErrorKind::Permanent));
        assert_eq!(results, [all, permanent, all, permanent, all], "{culprit}");
        let mut streams = effects_in(&directory.path().join("projections.db"));
        streams.sort();
        assert_eq!(streams, ["a-1", "a-2", "a-3"].map(|stream| (stream.to_owned(), 0)), "{culprit}");
    }
}

#[tokio::test]
async fn a_statement_that_rolls_back_or_keeps_half_of_itself_spoils_no_other() {
    let full = "INSERT INTO t VALUES ('taken', 0)";
    check_contained(full, "INSERT OR ROLLBACK INTO t VALUES ('new', 1), ('taken', 1)").await;
    check_contained(full, "INSERT OR FAIL INTO t VALUES ('new', 1), ('taken', 1)").await;
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON t BEGIN SELECT RAISE(ROLLBACK, 'never'); END";
    check_contained(trigger, "INSERT INTO t VALUES ('new', 1)").await;
}

#[tokio::test]
async fn a_statement_that_rolls_back_earlier_writes_fails_the_transaction() {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &[EFFECTS, TABLE, "INSERT INTO t VALUES ('taken', 0)"]);
    let mut transaction = sink.begin().await.unwrap();
    assert_eq!(transaction.write(&[inserts("a-1", 0)]).await, [Ok(Written::All)]);
    let bad = statement("INSERT OR ROLLBACK INTO t VALUES ('taken', 1)", vec![]);
    let results = transaction.write(&[inserts("a-2", 0), decided("x-1", 0, vec![bad])]).await;
    assert!(results.iter().all(|result| result.as_ref().is_err_and(|e| e.kind() == HandlerErrorKind::Transient)));
    assert!(transaction.write(&[inserts("a-3", 0)]).await[0].is_err(), "nothing more is taken");
    let failed = transaction.commit(&[], &[]).await;
    assert!(matches!(failed, Err(TransactionError::Failed(_))), "{failed:?}");
    assert_eq!(effects_in(&directory.path().join("projections.db")), []);
}

#[tokio::test]
async fn a_deferred_constraint_is_the_fault_of_one_decision() {
    let directory = TempDir::new().unwrap();
    let child = "CREATE TABLE child (t REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)";
    let sink = sqlite_sink(directory.path(), &[EFFECTS, TABLE, child]);
    let orphan = decided("x-1", 0, vec![statement("INSERT INTO child VALUES ('nobody')", vec![])]);
    let results = sink.write(&[inserts("a-1", 0), orphan, inserts("a-2", 0)]).await;
    let fine: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, true]);
    assert_eq!(results[1].as_ref().unwrap_err().kind(), HandlerErrorKind::Permanent);
    assert_eq!(effects_in(&directory.path().join("projections.db")).len(), 2);
}

#[tokio::test]
async fn a_failed_init_makes_every_write_unavailable() {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &["CREATE TABLE x (a)", "CREATE TABL y (a)"]);
    for _ in 0..2 {
        let error = sink.write(&[decided("a-1", 0, vec![])]).await.remove(0).unwrap_err();
        assert_eq!(error.kind(), HandlerErrorKind::Unavailable);
        assert!(error.message().contains("`CREATE TABL y (a)` of `init` failed: near \"TABL\""), "{error}");
        let error = sink.begin().await.err().unwrap();
        assert_eq!(error.kind(), HandlerErrorKind::Unavailable);
    }
    let tables = rows(&directory.path().join("projections.db"), "SELECT name FROM sqlite_schema WHERE name = 'x'");
    assert!(tables.is_empty(), "all of it or nothing");
}

fn events(stream: &str, first: i64, data: &[&[u8]], next: i64) -> Decided {
    let event = |(index, data): (i64, &&[u8])| {
        let event = Assembler::new(stream, "Placed").data(data).text(Field::Id, "e").text(Field::Timestamp, "now");
        event.build(Kind::Event, Ordinal::new(40 + index.unsigned_abs(), 2), index).unwrap()
    };
    let mut events: Vec<_> = (first..).zip(data).map(event).collect();
    let unfold = Assembler::new(stream, "Snapshot").data(b"{}").build(Kind::Unfold, Ordinal::new(99, 0), next);
    events.push(unfold.unwrap());
    let id = WorkId { slot: 0, generation: 0 };
    let work = Work {
        id,
        kind: WorkKind::Handle,
        next: first + 1,
        failures: 0,
        read_at: Timestamp::ZERO,
        late: false,
        trace: None,
        events,
    };
    Decided { work, next, effects: Effects::Events, accepted: 0 }
}

#[tokio::test]
async fn c19_the_error_of_an_effect_of_one_event_names_that_event() {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &[TABLE]);
    let insert = || statement("INSERT INTO t VALUES ('once', 0)", vec![]);
    for refused in [insert(), Value::Int(1)] {
        let Decided { work, next, .. } = events("a-1", 3, &[b"{}", b"{}"], 5);
        let effects = Emitted::by_event(vec![insert(), refused], Ends::from_slice(&[1, 2]));
        let decided = Decided { work, next, effects: Effects::Emitted(effects), accepted: 0 };
        let error = sink.write(&[decided]).await.remove(0).unwrap_err();
        assert_eq!((error.kind(), error.index()), (HandlerErrorKind::Permanent, Some(4)), "{error}");
    }
    assert!(rows(&directory.path().join("projections.db"), "SELECT a FROM t").is_empty(), "all of it or nothing");
}

#[tokio::test]
async fn without_a_handler_each_event_below_the_next_index_is_stored_once() {
    let directory = TempDir::new().unwrap();
    let settings = SinkSettings { table: Text::literal("the \"log\""), ..SinkSettings::default() };
    let sink = SqliteSink::new(&settings, &context(directory.path()));
    let results = sink.write(&[events("a-1", 3, &[b"{\"n\":1}", b"\xff", b"beyond"], 5)]).await;
    assert_eq!(results, [Ok(Written::All)]);
    let mut transaction = sink.begin().await.unwrap();
    assert_eq!(transaction.write(&[events("a-1", 4, &[b""], 5)]).await, [Ok(Written::All)]);
    transaction.commit(&[], &[]).await.unwrap();
    let kept = rows(&directory.path().join("projections.db"), "SELECT * FROM \"the \"\"log\"\"\" ORDER BY stream, idx");
    expect![[r#"
        "a-1" Integer(3) "Placed" "{\"n\":1}" Null "e" Null Null "now" Integer(43) Integer(2)
        "a-1" Integer(4) "Placed" Null Null "e" Null Null "now" Integer(44) Integer(2)"#]]
    .assert_eq(&kept.join("\n"));
}

#[tokio::test]
async fn more_statements_than_the_batch_keeps_all_work() {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &[TABLE]);
    let texts: Vec<_> = (0..400).map(|n| format!("INSERT INTO t VALUES (?, {n})")).collect();
    let effects = (0..).zip(&texts).map(|(n, sql)| statement(sql, vec![Value::Int(n)])).collect();
    assert_eq!(sink.write(&[decided("a-1", 0, effects)]).await, [Ok(Written::All)]);
    assert_eq!(rows(&directory.path().join("projections.db"), "SELECT count(*) FROM t WHERE a = b"), ["Integer(400)"]);
}

#[tokio::test]
async fn l13_numbers_that_a_column_cannot_hold_are_permanent_and_named() {
    let sql = "INSERT INTO t VALUES (?, ?)";
    check(
        &[
            statement(sql, vec!["average".into(), Value::Float(f64::NAN)]),
            statement(sql, vec!["average".into(), Value::Float(f64::INFINITY)]),
            map(&[("sql", "INSERT INTO t VALUES (:a, 1)".into()), ("params", map(&[("a", Value::Float(f64::NAN))]))]),
        ],
        expect![[r#"
            permanent: cannot run `INSERT INTO t VALUES (?, ?)`: parameter 2 is `NaN`, which is not a number that a column can hold (emit `()` for NULL, or text)
            permanent: cannot run `INSERT INTO t VALUES (?, ?)`: parameter 2 is `inf`, which is not a number that a column can hold (emit `()` for NULL, or text)
            permanent: cannot run `INSERT INTO t VALUES (:a, 1)`: parameter `a` is `NaN`, which is not a number that a column can hold (emit `()` for NULL, or text)
        "#]],
    )
    .await;
}

#[tokio::test]
async fn l13_an_integer_beyond_64_bits_keeps_its_digits_or_fails() {
    const LARGE: &str = "9223372036854775809";
    let directory = TempDir::new().unwrap();
    let table = "CREATE TABLE v (id INTEGER PRIMARY KEY, whole INTEGER, text TEXT, plain)";
    let sink = sqlite_sink(directory.path(), &[table, "INSERT INTO v VALUES (1, 1, '1', 1)"]);
    let by_name = |sql: &str| map(&[("sql", sql.into()), ("params", map(&[("large", LARGE.into())]))]);
    let upsert = "INSERT INTO v VALUES (1, ?, '', 0) ON CONFLICT (id) DO UPDATE SET whole = excluded.whole";
    let effects = [
        statement("INSERT INTO v (whole, text) VALUES (?, 'x'); -- all", vec![LARGE.into()]),
        by_name("UPDATE v SET whole = :large WHERE id = 1 -- one"),
        statement(upsert, vec![LARGE.into()]),
        statement("INSERT INTO v (text, plain) VALUES (?, ?)", vec![LARGE.into(), LARGE.into()]),
        statement("DELETE FROM v WHERE text = ?", vec!["12345678901234567890".into()]),
    ];
    let decisions: Vec<_> = (0..).zip(effects).map(|(index, effect)| decided("a-1", index, vec![effect])).collect();
    let results = sink.write(&decisions).await;
    for result in &results[..3] {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), HandlerErrorKind::Permanent);
        let why = format!(
            "column `whole` would store `{LARGE}`, an integer beyond 64 bits, as a float (declare it TEXT in `init` and \
             run `propulsiond rebuild`)"
        );
        assert!(error.message().ends_with(&why), "{error}");
    }
    assert_eq!(results[3..], [Ok(Written::All), Ok(Written::All)]);
    let stored = rows(&directory.path().join("projections.db"), "SELECT whole, text, plain FROM v ORDER BY id");
    assert_eq!(stored, ["Integer(1) \"1\" Integer(1)", &*format!("Null \"{LARGE}\" \"{LARGE}\"")]);
}

/// Counts the effects in the database's file alone, as a program that ignores the log does.
fn effects_without_log(directory: &Path) -> u32 {
    let copy = TempDir::new().unwrap();
    let path = copy.path().join("copy.db");
    std::fs::copy(directory.join("projections.db"), &path).unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    let count = connection.query_row("SELECT count(*) FROM effects", [], |row| row.get(0));
    // Before the first write back, the file lacks even the table.
    count.unwrap_or(0)
}

/// Waits until the database's file alone holds this many effects.
async fn wait_until_written_back(directory: &Path, expected: u32) {
    let written_back = async {
        while effects_without_log(directory) < expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written_back).await.unwrap();
}

#[tokio::test]
async fn w2_an_idle_sink_writes_its_log_back_into_the_file() {
    let directory = TempDir::new().unwrap();
    let sink = sqlite_sink(directory.path(), &[EFFECTS]);
    for round in 1..=2 {
        let decisions: Vec<_> = (0..100).map(|n| inserts("a-1", i64::from(round * 100 + n))).collect();
        assert!(sink.write(&decisions).await.iter().all(Result::is_ok));
        wait_until_written_back(directory.path(), round * 100).await;
    }
}
