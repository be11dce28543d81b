//! The stores and helpers of the contract cases.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use propulsiond::checkpoint::{
    CheckpointError, CheckpointErrorKind, CheckpointKey, CheckpointStore, Commit, Fence, Owner, ParkedMark, ParkedState,
};
use propulsiond::clock::Timestamp;
use propulsiond::config::scalar::Text;
use propulsiond::connector::Context;
use propulsiond::connector::file::store::{self, FileCheckpoints};
use propulsiond::connector::memory::store::{Fault, MemoryCheckpoints, MemorySink, Operation};
use propulsiond::connector::sqlite::{CheckpointSettings, SinkSettings, SqliteCheckpoints, SqliteSink};
use propulsiond::effect::Value;
use propulsiond::event::{Assembler, Event, Kind};
use propulsiond::handler::HandlerErrorKind;
use propulsiond::position::{Ordinal, OrdinalSet, Position, Progress, TrancheId};
use propulsiond::sink::{Decided, Effects, TransactionalSink};
use propulsiond::work::{Work, WorkId, WorkKind};
use tempfile::TempDir;
use time::OffsetDateTime;

/// Makes stores over the same place.
pub(super) enum Harness {
    Sqlite(TempDir),
    File(TempDir),
    Memory(MemoryCheckpoints),
    SqliteSink(TempDir),
    MemorySink(MemorySink),
}

impl Harness {
    pub(super) fn sqlite() -> Self {
        Self::Sqlite(TempDir::new().unwrap())
    }

    pub(super) fn file() -> Self {
        Self::File(TempDir::new().unwrap())
    }

    pub(super) fn memory() -> Self {
        Self::Memory(MemoryCheckpoints::default())
    }

    pub(super) fn sqlite_sink() -> Self {
        Self::SqliteSink(TempDir::new().unwrap())
    }

    pub(super) fn memory_sink() -> Self {
        let sink = MemoryCheckpoints::default().sink();
        sink.checkpoints().inject(refuse_bad_streams);
        Self::MemorySink(sink)
    }

    /// Opens the store, as a new process does.
    pub(super) fn open(&self) -> Arc<dyn CheckpointStore> {
        match self {
            Self::Sqlite(directory) => {
                Arc::new(SqliteCheckpoints::new(&CheckpointSettings::default(), &context(directory.path())))
            }
            Self::File(directory) => {
                Arc::new(FileCheckpoints::new(&store::Settings::default(), &context(directory.path())))
            }
            Self::Memory(store) => Arc::new(store.clone()),
            Self::SqliteSink(_) | Self::MemorySink(_) => self.open_sink().checkpoints(),
        }
    }

    /// Opens the sink of a harness that has one.
    pub(super) fn open_sink(&self) -> Arc<dyn TransactionalSink> {
        match self {
            Self::SqliteSink(directory) => Arc::new(sqlite_sink(directory.path(), &[EFFECTS])),
            Self::MemorySink(sink) => Arc::new(sink.clone()),
            _ => panic!("this harness has no sink"),
        }
    }

    /// Returns the streams and numbers of all stored effects, sorted.
    pub(super) fn effects(&self) -> Vec<(String, i64)> {
        let mut effects = match self {
            Self::SqliteSink(directory) => effects_in(&directory.path().join("projections.db")),
            Self::MemorySink(sink) => {
                let emitted = sink.effects().into_iter().flat_map(|effect| effect.emitted);
                emitted.map(|value| stream_and_number(&value)).collect()
            }
            _ => panic!("this harness has no sink"),
        };
        effects.sort();
        effects
    }

    /// Makes the next commit of a transaction fail without storing anything.
    pub(super) fn fail_next_commit(&self) {
        if let Self::MemorySink(sink) = self {
            let mut armed = true;
            sink.checkpoints().inject(move |operation| match operation {
                Operation::Transaction if std::mem::take(&mut armed) => Some(Fault::Reject),
                other => refuse_bad_streams(other),
            });
        }
    }
}

fn refuse_bad_streams(operation: &Operation<'_>) -> Option<Fault> {
    match operation {
        Operation::Write(decided) if decided.work.category() == "bad" => {
            Some(Fault::Refuse(HandlerErrorKind::Permanent))
        }
        _ => None,
    }
}

/// A table that takes no streams of the category `bad`.
pub(super) const EFFECTS: &str = "CREATE TABLE IF NOT EXISTS effects (
    stream TEXT NOT NULL CHECK (stream NOT LIKE 'bad-%'), n INTEGER NOT NULL, PRIMARY KEY (stream, n))";

pub(super) fn context(data: &Path) -> Context {
    Context { group: "g".into(), ..Context::new("orders", data, data) }
}

pub(super) fn sqlite_sink(data: &Path, init: &[&str]) -> SqliteSink {
    let init = init.iter().map(|sql| Text::literal(sql)).collect();
    SqliteSink::new(&SinkSettings { init, ..SinkSettings::default() }, &context(data))
}

pub(super) fn effects_in(database: &Path) -> Vec<(String, i64)> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT stream, n FROM effects").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

pub(super) fn key(group: &str, source: &str, tranche: &str) -> CheckpointKey {
    CheckpointKey { group: group.into(), source: source.into(), tranche: TrancheId::new(tranche) }
}

pub(super) fn owner(name: &str) -> Owner {
    Owner(name.into())
}

pub(super) fn at(number: i64) -> Progress {
    Progress::at(Position::Number(number))
}

pub(super) fn set(runs: &[(u64, u64)]) -> OrdinalSet {
    let mut set = OrdinalSet::new();
    for &(first, last) in runs {
        set.push(Ordinal::new(first, 0), Ordinal::new(last, 0));
    }
    set
}

pub(super) fn commit<'a>(key: &'a CheckpointKey, fence: Fence, sequence: u64, progress: &'a Progress) -> Commit<'a> {
    Commit { key, fence, sequence, progress, write_positions: &[] }
}

/// Makes one commit.
pub(super) async fn commit_one(
    store: &dyn CheckpointStore,
    key: &CheckpointKey,
    fence: Fence,
    sequence: u64,
    progress: &Progress,
) -> Result<(), CheckpointError> {
    let mut results = store.commit(&[commit(key, fence, sequence, progress)]).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

/// Returns the mark of a stream whose event failed for this reason.
pub(super) fn mark(why: &str) -> ParkedMark {
    ParkedMark {
        state: ParkedState::Failed,
        class: "permanent".into(),
        why: why.into(),
        index: 0,
        event_type: "Placed".into(),
        since: time(1),
        attempts: 1,
        version: "v1".into(),
        due: None,
        job: None,
    }
}

/// Returns a time, so many seconds and a millisecond after a fixed moment.
pub(super) fn time(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(1_700_000_000_001 + seconds * 1_000)
}

/// Returns the owner that a fenced error names.
pub(super) fn fenced_by<T: std::fmt::Debug>(result: Result<T, CheckpointError>) -> String {
    match result.unwrap_err().kind {
        CheckpointErrorKind::Fenced { by, .. } => by,
        other => panic!("not fenced, but {other:?}"),
    }
}

pub(super) fn kind<T: std::fmt::Debug>(result: Result<T, CheckpointError>) -> CheckpointErrorKind {
    result.unwrap_err().kind
}

pub(super) fn event(stream: &str, index: i64, ordinal: u64) -> Event {
    let event = Assembler::new(stream, "Placed").data(b"{\"n\":1}").meta(b"\xff");
    event.build(Kind::Event, Ordinal::new(ordinal, 0), index).unwrap()
}

/// A decision of one event with the given effects.
pub(super) fn decided(stream: &str, index: i64, effects: Vec<Value>) -> Decided {
    let work = Work {
        id: WorkId { slot: 0, generation: 0 },
        kind: WorkKind::Handle,
        events: vec![event(stream, index, index.unsigned_abs())],
        next: index + 1,
        failures: 0,
        read_at: Timestamp::ZERO,
        late: false,
        trace: None,
    };
    Decided { next: work.next, work, effects: Effects::Emitted(effects.into()), accepted: 0 }
}

/// A decision that inserts (stream, index) into the table of effects.
pub(super) fn inserts(stream: &str, index: i64) -> Decided {
    decided(stream, index, vec![insert(stream, index)])
}

pub(super) fn insert(stream: &str, n: i64) -> Value {
    statement("INSERT INTO effects (stream, n) VALUES (?, ?)", vec![stream.into(), Value::Int(n)])
}

pub(super) fn statement(sql: &str, params: Vec<Value>) -> Value {
    Value::Map(vec![("sql".into(), sql.into()), ("params".into(), Value::List(params))])
}

fn stream_and_number(value: &Value) -> (String, i64) {
    match value.get("params") {
        Some(Value::List(items)) => match items.as_slice() {
            [Value::Text(stream), Value::Int(n)] => (stream.to_string(), *n),
            other => panic!("not a stream and a number: {other:?}"),
        },
        other => panic!("no parameters: {other:?}"),
    }
}

pub(super) fn file_in(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

/// Makes one `#[tokio::test]` of each case for each harness.
macro_rules! cases {
    ($($harness:ident: $cases:tt;)*) => { $(
        mod $harness {
            $crate::contract::checkpoint::harness::cases!(@each $harness $cases);
        }
    )* };
    (@each $harness:ident [$($case:ident),* $(,)?]) => { $(
        #[tokio::test]
        async fn $case() {
            super::$case(super::Harness::$harness()).await;
        }
    )* };
}
pub(super) use cases;
