use rusqlite::Connection;

use super::*;
use crate::spec;

/// A data directory with the files of a pipeline, and those of a rebuild beside them.
struct Place {
    root: tempfile::TempDir,
    definition: Definition,
    workspace: Workspace,
}

const FILES: [&str; 3] = ["rows.db", "rows.db-held", "json/p"];

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("p.toml");
        let text = "checkpoint = 'sink'\n[source.json]\npath = 'feed.jsonl'\n[sink.sqlite]\npath = 'rows.db'\n";
        fs::write(&file, text).unwrap();
        let definition = spec::load_file(&file).and_then(spec::define).unwrap();
        let data = root.path().join("data");
        let workspace = Workspace::new(&data, "p");
        fill(&data, "present");
        fill(&workspace.rebuilt(), "rebuilt");
        Self { root, definition, workspace }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Checks whose files are in use, and in which directory the others are kept.
    fn check(&self, used: &str, kept: (&Path, &str)) {
        assert_eq!(contents(&self.data()), FILES.map(|_| Some(used.to_owned())));
        assert_eq!(contents(kept.0), FILES.map(|_| Some(kept.1.to_owned())));
        assert_eq!(self.workspace.interrupted().unwrap(), None);
        assert_eq!(complete(&self.definition, &self.data()).unwrap(), None);
    }
}

/// Makes the files of a pipeline, each with this text in it.
fn fill(directory: &Path, text: &str) {
    fs::create_dir_all(directory.join("json/p")).unwrap();
    let connection = Connection::open(directory.join("rows.db")).unwrap();
    connection.execute_batch(&format!("CREATE TABLE t (a); INSERT INTO t VALUES ('{text}')")).unwrap();
    fs::write(directory.join("rows.db-held"), text).unwrap();
    fs::write(directory.join("json/p/0"), text).unwrap();
}

/// Returns the texts of the files that exist.
fn contents(directory: &Path) -> [Option<String>; 3] {
    let database = directory.join("rows.db");
    let row = || Connection::open(&database).unwrap().query_row("SELECT a FROM t", [], |row| row.get(0)).unwrap();
    let text = |path| fs::read_to_string(directory.join(path)).ok();
    [database.exists().then(row), text("rows.db-held"), text("json/p/0")]
}

#[test]
fn an_exchange_that_stops_at_any_rename_is_completed_by_the_next_process() {
    let mut points = 0;
    loop {
        let place = Place::new();
        let data = place.data();
        let exchange = Exchange::new(&place.definition, &data, &place.workspace, Direction::Rebuilt);
        let intent = exchange.intent().unwrap();
        place.workspace.declare(&intent).unwrap();
        let mut left = points;
        let stopped = place.workspace.rename(&data, &intent, &mut || {
            left = usize::checked_sub(left, 1).ok_or_else(|| io::Error::other("stopped"))?;
            Ok(())
        });
        if stopped.is_ok() {
            break;
        }
        assert!(data.join("rows.db").exists(), "point {points}: a reader finds a database at any time");
        assert_eq!(
            place.workspace.has_begun(&data, &intent),
            points > 1,
            "point {points}: the first file is only linked before"
        );
        assert_eq!(place.workspace.interrupted().unwrap(), Some(intent), "point {points}");
        assert_eq!(complete(&place.definition, &data).unwrap(), Some(Direction::Rebuilt), "point {points}");
        place.check("rebuilt", (&place.workspace.former(), "present"));
        assert!(!place.workspace.rebuilt().exists(), "point {points}");
        points += 1;
    }
    assert_eq!(points, 2 * FILES.len(), "each file is kept and replaced");
}

#[test]
fn an_exchange_back_restores_the_former_files_and_can_be_repeated() {
    let place = Place::new();
    let data = place.data();
    let perform = |direction| Exchange::new(&place.definition, &data, &place.workspace, direction).perform().unwrap();
    perform(Direction::Rebuilt);
    place.check("rebuilt", (&place.workspace.former(), "present"));
    perform(Direction::Former);
    place.check("present", (&place.workspace.rebuilt(), "rebuilt"));
    assert!(!place.workspace.former().exists());
    perform(Direction::Rebuilt);
    place.check("rebuilt", (&place.workspace.former(), "present"));
}

#[test]
fn one_generation_of_former_files_is_kept() {
    let place = Place::new();
    let data = place.data();
    let perform = || Exchange::new(&place.definition, &data, &place.workspace, Direction::Rebuilt).perform().unwrap();
    perform();
    fs::write(place.workspace.former().join("leftover"), "").unwrap();
    fill(&place.workspace.rebuilt(), "second");
    perform();
    place.check("second", (&place.workspace.former(), "rebuilt"));
    assert!(!place.workspace.former().join("leftover").exists());
}

#[test]
fn an_exchange_back_also_restores_that_a_file_did_not_exist() {
    for stops in [false, true] {
        let place = Place::new();
        let data = place.data();
        fs::remove_file(data.join("rows.db")).unwrap();
        let exchange = |direction| Exchange::new(&place.definition, &data, &place.workspace, direction);
        exchange(Direction::Rebuilt).perform().unwrap();
        assert_eq!(contents(&data), FILES.map(|_| Some("rebuilt".to_owned())));
        let former = [None, Some("present".to_owned()), Some("present".to_owned())];
        assert_eq!(contents(&place.workspace.former()), former);
        if stops {
            place.workspace.declare(&exchange(Direction::Former).intent().unwrap()).unwrap();
            // Completed twice: a crash can also come between the last rename and the end.
            let intent = place.workspace.interrupted().unwrap().unwrap();
            place.workspace.rename(&data, &intent, &mut || Ok(())).unwrap();
            complete(&place.definition, &data).unwrap();
        } else {
            exchange(Direction::Former).perform().unwrap();
        }
        assert_eq!(contents(&data), former, "stops: {stops}");
        assert_eq!(contents(&place.workspace.rebuilt()), FILES.map(|_| Some("rebuilt".to_owned())));
    }
}

#[test]
fn an_open_database_prevents_an_exchange_before_it_begins() {
    let place = Place::new();
    let data = place.data();
    let reader = Connection::open(data.join("rows.db")).unwrap();
    reader.execute_batch("PRAGMA journal_mode = WAL; SELECT * FROM t").unwrap();
    let exchange = Exchange::new(&place.definition, &data, &place.workspace, Direction::Rebuilt);
    let error = format!("{:#}", exchange.perform().unwrap_err());
    assert!(error.contains("cannot close the database") && error.contains("close the programs"), "{error}");
    drop(reader);
    assert_eq!(contents(&data), FILES.map(|_| Some("present".to_owned())));
    assert_eq!(place.workspace.interrupted().unwrap(), None);
}

#[test]
fn a_link_or_a_file_of_other_permissions_is_judged_before_an_exchange() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let place = Place::new();
    let data = place.data();
    fs::set_permissions(data.join("rows.db"), fs::Permissions::from_mode(0o640)).unwrap();
    let exchange = Exchange::new(&place.definition, &data, &place.workspace, Direction::Rebuilt);
    fs::rename(data.join("rows.db-held"), data.join("elsewhere")).unwrap();
    symlink("elsewhere", data.join("rows.db-held")).unwrap();
    let error = exchange.perform().unwrap_err().to_string();
    assert!(error.contains("rows.db-held` is a link"), "{error}");
    fs::remove_file(data.join("rows.db-held")).unwrap();
    exchange.perform().unwrap();
    assert_eq!(fs::metadata(data.join("rows.db")).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn an_unreadable_intent_is_an_error() {
    let place = Place::new();
    fs::write(place.workspace.intent(), "else\n").unwrap();
    let error = complete(&place.definition, &place.data()).unwrap_err().to_string();
    assert!(error.contains("cannot parse `") && error.ends_with("rebuild/p/exchange`"), "{error}");
}

#[tokio::test]
async fn an_exchange_is_withdrawn_only_before_it_has_begun() {
    let place = Place::new();
    let data = place.data();
    let intent = Exchange::new(&place.definition, &data, &place.workspace, Direction::Rebuilt).declare().unwrap();
    let start = || complete_at_start(place.definition.clone(), data.clone());
    let reader = Connection::open(data.join("rows.db")).unwrap();
    reader.execute_batch("PRAGMA journal_mode = WAL; SELECT * FROM t").unwrap();
    fs::hard_link(data.join("rows.db-held"), place.workspace.former().join("rows.db-held")).unwrap();
    let AtStart::Withdrawn(error) = start().await.unwrap() else { panic!("the database is open") };
    assert!(format!("{error:#}").contains("database is locked"), "{error:#}");
    assert!(place.workspace.interrupted().unwrap().is_none() && !place.workspace.former().exists());
    assert!(matches!(start().await.unwrap(), AtStart::Nothing));

    place.workspace.declare(&intent).unwrap();
    fs::create_dir_all(place.workspace.former().join("json")).unwrap();
    fs::rename(data.join("json/p"), place.workspace.former().join("json/p")).unwrap();
    start().await.unwrap_err();
    assert_eq!(place.workspace.interrupted().unwrap(), Some(intent));
    drop(reader);
    assert!(matches!(start().await.unwrap(), AtStart::Exchanged));
    place.check("rebuilt", (&place.workspace.former(), "present"));
}
