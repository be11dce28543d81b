//! The explanation of the source, the order and the sink.

use expect_test::expect;

use super::{JSON, SCRIPT, check_part};

#[test]
fn each_order_names_the_events_that_wait() {
    let text = |schedule: &str| format!("{JSON}[sink.stdout]\n[schedule]\n{schedule}\n");
    check_part(
        &text("require_all = true"),
        "order",
        expect![[r#"
            The events of a stream are handled one after the other, by index. Streams do not wait for each other. A
            stream waits for each missing index, from 0 on, without limit. The position of each stream is stored with
            the progress. A stream that was handled in part before `require_all` was set waits for ever: give the
            pipeline another `group` then.
        "#]],
    );
    check_part(
        &text("order = 'tranche'"),
        "order",
        expect![[r#"
            All events of a tranche are handled one call after the other, in read order. A failing event therefore holds
            up all later ones.
        "#]],
    );
    check_part(
        &text("order = 'tranche'"),
        "limits",
        expect![[r#"
            Each tranche has one call at a time. One write at a time takes all waiting decisions. A call gets at most
            1,000 events of a stream. Reading of a tranche pauses while it holds 10 batches or 64 MiB of unhandled
            events, or is 1,000,000 events ahead of its position.
        "#]],
    );
    check_part(
        &text("order = 'none'"),
        "order",
        expect![[r#"
            There is none: every event is handled by itself and may overtake any other.
        "#]],
    );
    check_part(
        &text("order = 'none'"),
        "failing_event",
        expect![[r#"
            A failed write holds up nothing but the event itself and is retried after 100 milliseconds. The delay
            doubles with each retry, up to 30 seconds, and is shortened at random by up to half. Once an event has
            failed 10 times, its stream is parked. A parked event is kept aside while the rest goes on. It is stored
            beside the progress, as durably, until another version of the handler succeeds, or an operator retries or
            discards it.
        "#]],
    );
}

#[test]
fn every_kind_describes_its_reads_and_writes() {
    let filter = "[filter]\ncategories = ['order', 'invoice']\nexclude_streams = ['/^test/']\nevents = ['A']\n";
    check_part(
        &format!("{JSON}[sink.stdout]\n{filter}"),
        "filter",
        expect![[r#"
            It takes the streams in the category `order` or `invoice`, but none with the name `/^test/`, and of their
            events those of the type `A`. Excluded events count as handled. System streams, whose names begin with `$`,
            are left out unless an entry names them with their `$`.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.stdout]\n[filter]\nexclude_events = ['B']\nsystem = true\n"),
        "filter",
        expect![[r#"
            It takes all streams, and of their events none of the type `B`. Excluded events count as handled. System
            streams, whose names begin with `$`, pass like others.
        "#]],
    );
    let directory = "stop = { after = '10m' }\n[source.json]\npath = '.'\npattern = '*.log'\nskip = 1\ntranche_per_file = true\n\
                  index = 'line'\non_replaced = 'restart'\n[sink.null]\n";
    check_part(
        directory,
        "source",
        expect![[r#"
            It reads the files of the directory `.` beside the pipeline's file: each by itself and all at the same time,
            a JSON object a line. In a directory, it reads the files named like `*.log`. It skips the first line of each
            file. Indexes are made of the number of the file and that of the line, so they grow but leave gaps. A file
            that is replaced, truncated or added before the one being read is read from its start, as new events. It
            ends 10 minutes after its start, even if events are left.
        "#]],
    );
    let generate =
        "stop = 'tail'\n[source.generate]\ncount = 5000\nrate = 100\ntranches = 4\nduplicates = 0.1\n[sink.null]\n";
    check_part(
        generate,
        "source",
        expect![[r#"
            It generates events: 5,000 in all, 100 events a second, of 1,000 streams, in 4 tranches, the same ones in
            each run. 10 % of them repeat an earlier one. It ends once all existing events are handled.
        "#]],
    );
    for (sink, expected) in [
        (
            "[sink.sqlite]\ntable = 't'\n",
            expect![[r#"
                It stores the events in the table `t` of the SQLite file `projections.db` of the data directory.
            "#]],
        ),
        (
            "[sink.file]\npath = 'out/{category}.jsonl'\n",
            expect![[r#"
                It writes a line of JSON at the end of the file `out/{category}.jsonl` of the data directory for each event.
                There is a file for each value of the placeholders.
            "#]],
        ),
        (
            "[sink.stats]\ninterval = '1m'\n",
            expect![[r#"
                It counts the events by category and type and logs the counts every minute. It writes nothing else.
            "#]],
        ),
        (
            "[sink.null]\n",
            expect![[r#"
                It discards the events.
            "#]],
        ),
        (
            "[sink.http]\nurl = 'http://h/?key=literal-secret'\npath = '/o/{id}'\nper = 'span'\n",
            expect![[r#"
                It sends a POST request to `http://h/`, followed by the path `/o/{id}` for each run of events of one stream,
                and waits at most 30 seconds for its answer. Its idempotency key is made of the stream and the indexes of
                the events that were offered together. A repeat has the same key if the same events are offered together
                again.
            "#]],
        ),
    ] {
        check_part(&format!("{JSON}{sink}"), "sink", expected);
    }
    let by_event = format!("{JSON}[handler.rhai]\nscript = 'event.rhai'\n[sink.http]\nurl = 'http://h/'\n");
    check_part(
        &by_event,
        "handler",
        expect![[r#"
            The script `event.rhai` decides: `handle_event` gets one event after the other of one stream. The effects of
            a call reach the sink only if the call succeeds. A call that takes longer than 30 seconds fails. An event
            that fails keeps back neither the events before it nor their effects.
        "#]],
    );
    check_part(
        &by_event,
        "sink",
        expect![[r#"
        It sends a POST request to `http://h/` for each effect of the script, and waits at most 30 seconds for its
        answer. Its idempotency key is made of the event's stream and index, and of the effect's number for that
        event, so a repeat has the same key.
    "#]],
    );
    let batch = format!("{JSON}{SCRIPT}[schedule]\nstreams_per_call = 10\nmax_bytes = '1MiB'\npurge = '1h'\n");
    check_part(
        &batch,
        "handler",
        expect![[r#"
            The script `ok.rhai` decides: `handle_batch` gets up to 10 streams and the next events of each. The effects
            of a call reach the sink only if the call succeeds. A call that takes longer than 30 seconds fails.
        "#]],
    );
    check_part(
        &batch,
        "sink",
        expect![[r#"
            There is none: the effects of the script are discarded.
        "#]],
    );
    check_part(
        &batch,
        "limits",
        expect![[r#"
            The script runs on as many threads as there are cores, at most 16 (`schedule.concurrency`). A call gets at
            most 1,000 events of a stream, and at most 1 MiB of them unless one event alone is larger. Reading of a
            tranche pauses while it holds 10 batches or 64 MiB of unhandled events, or is 1,000,000 events ahead of its
            position. Every hour, idle streams are forgotten; later duplicates of their events are not recognised.
        "#]],
    );
}

#[test]
fn upcast_is_explained_with_the_filter_that_judges_its_result() {
    check_part(
        "[source.json]\npath = 'in'\n[handler.rhai]\nscript = 'upcast.rhai'\n",
        "handler",
        expect![[r#"
        The script `upcast.rhai` decides: `handle_event` gets one event after the other of one stream. Its `upcast`
        brings each event into the newest form first, and the filter by type judges that form. The effects of a call
        reach the sink only if the call succeeds. A call that takes longer than 30 seconds fails. An event that
        fails keeps back neither the events before it nor their effects.
    "#]],
    );
}

#[test]
fn a_mapping_is_explained_with_its_records_and_indexes() {
    let map = "each = '/items'\nwhen = ['/kind', '!/draft']\nstream = 'order-{/id}'\ntype = '/kind'\ndata = '/body'\n";
    check_part(
        &format!("[source.json]\npath = 'in'\n[source.json.map]\nformat = 'document'\n{map}[sink.stdout]\n"),
        "source",
        expect![[r#"
            It reads the file or directory `in` beside the pipeline's file, as JSON values over any number of lines. The
            files of a directory whose names end in `.json` are read as one log, in the order of their names. Each item
            of the array `/items` of a record is an event. Only records with `/kind` and `!/draft` are taken; the others
            count as handled. The stream is `order-{/id}` and the type is `/kind`. Indexes are made of the numbers of
            the file, the line and the item, so they grow but leave gaps. The body of an event is the part of its record
            at `/body`, as it was read. The pipeline halts if the file being read is replaced or truncated, or if one is
            added before it. If that file is missing at a start, reading is retried until it is back. It follows new
            events and never ends by itself.
        "#]],
    );
    check_part(
        "[source.memory.map]\nformat = 'csv'\nstream = '/s'\ntype = 'x'\nindex = '/i'\n[sink.stdout]\n",
        "source",
        expect![[r#"
            It accepts events that are posted to `/pipelines/a/events`. A post is read as rows of CSV. The stream is
            `/s` and the type is `x`. The record gives the index at `/i`. The body of an event is an object with the
            columns of its row. At most 100,000 events wait, in 64 MiB of memory; the source refuses more until there is
            room. It follows new events and never ends by itself.
        "#]],
    );
    check_part(
        "[source.stdin]\n[sink.stdout]\n",
        "source",
        expect![[r#"
        It reads standard input, a JSON object a line, and ends with it. Each line gives the index of its event in
        its stream. A pipe keeps no events: a restart begins with the line that comes next. Events that were read
        and not handled when the process ends are lost; `schedule.read_ahead` limits their number. It ends once all
        existing events are handled.
    "#]],
    );
}

#[test]
fn a_pipeline_that_comes_after_another_one_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = |name: &str, top: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, format!("{top}[source.generate]\ncount = 1\n[sink.null]\n")).unwrap();
        file
    };
    pipeline("orders.toml", "");
    let loaded = crate::spec::load_file(&pipeline("notices.toml", "after = 'orders'\n")).unwrap();
    let outcome = crate::spec::check(vec![loaded], directory.path()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (definition, script) = outcome.scripts().next().unwrap();
    let explanation = super::explain(definition, script);
    let source = &explanation.words.iter().find(|paragraph| paragraph.about == "source").unwrap().text;
    let after = "It comes after the pipeline `orders` of the same daemon: it gets the events of a read once that pipeline has \
        handled them and all earlier ones of their tranche, and waits until then.";
    assert!(source.contains(after), "{source}");
    let value = explanation.values.iter().find(|setting| setting.path == "after").unwrap();
    assert_eq!(value.value, "orders");
}
