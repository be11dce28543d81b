//! Each part of an explanation, for what makes it differ.

use expect_test::{expect, expect_file};

use super::{JSON, SCRIPT, check_part, check_whole};

#[test]
fn c13_exactly_once_says_on_what_it_stands() {
    let sink = "[sink.sqlite]\npath = 'a.db'\n";
    let text = |source: &str, more: &str| format!("checkpoint = 'sink'\n{source}{SCRIPT}{sink}{more}");
    check_whole(&text(JSON, ""), expect_file!["exactly_once.txt"]);
    // The feed repeats nothing.
    check_part(
        &text("[source.json]\npath = 'in.jsonl'\nindex = 'line'\n", ""),
        "why",
        expect![[r#"
              Exactly once: what is written, and how far the events were read, are one transaction: after a crash both are
              there, or neither. Each line is an event of its own, even if another says the same. This is about what is
              written: what a script logs or counts may happen twice.
        "#]],
    );
    let restart = "[source.json]\npath = 'in.jsonl'\nindex = 'line'\non_replaced = 'restart'\n";
    check_part(
        &text(restart, ""),
        "why",
        expect![[r#"
              Exactly once: what is written, and how far the events were read, are one transaction: after a crash both are
              there, or neither. Each line is an event of its own, even if another says the same; a file that is read
              again, as `on_replaced` asks for, is new events, which have their effect again. This is about what is
              written: what a script logs or counts may happen twice.
        "#]],
    );
    check_part(
        &text("[source.generate]\n", ""),
        "why",
        expect![[r#"
              Exactly once: what is written, and how far the events were read, are one transaction: after a crash both are
              there, or neither. The source has every event once. This is about what is written: what a script logs or
              counts may happen twice.
        "#]],
    );
    // It repeats, and what would tell is off.
    check_part(
        &text(JSON, "[schedule]\nwrite_positions = false\n"),
        "why",
        expect![[r#"
              Exactly once: what is written, and how far the events were read, are one transaction: after a crash both are
              there, or neither. That is for each place in the feed, not for each event. `write_positions` is off, so if
              the feed has an event twice, the second may have its effect again after a restart. This is about what is
              written: what a script logs or counts may happen twice.
        "#]],
    );
    check_part(
        &text(JSON, "[schedule]\norder = 'tranche'\n"),
        "why",
        expect![[r#"
              Exactly once: what is written, and how far the events were read, are one transaction: after a crash both are
              there, or neither. That is for each place in the feed, not for each event. If the feed has an event twice,
              the second has its effect again: only with `order = "stream"` could it be known. This is about what is
              written: what a script logs or counts may happen twice.
        "#]],
    );
    check_part(
        &text(JSON, "synchronous = 'normal'\n"),
        "crash",
        expect![[r#"
              A transaction that was under way is undone, and what it was about is decided again. Nothing is left out.
              With `synchronous = "normal"` the last transactions may be undone if the machine loses power, effects and
              progress together: then their events come again.
        "#]],
    );
}

#[test]
fn at_least_once_says_why_it_is_not_once_and_what_a_repeat_does() {
    for (sink, expected) in [
        (
            "[sink.sqlite]\n",
            expect![[r#"
                  At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                  stored after that. It would be exactly once with `checkpoint = "sink"`: this sink can hold the progress. A
                  repeat does no harm here: a row is known by its stream and index, and written over.
            "#]],
        ),
        (
            "[sink.null]\n",
            expect![[r#"
                  At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                  stored after that. It cannot be exactly once: a `null` sink cannot hold the progress, so what it takes and
                  what is stored of it are two steps.
            "#]],
        ),
        (
            "[sink.file]\n",
            expect![[r#"
                  At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                  stored after that. It cannot be exactly once: a `file` sink cannot hold the progress, so what it takes and
                  what is stored of it are two steps. After a repeat the same line is there twice.
            "#]],
        ),
        (
            "[sink.stats]\n",
            expect![[r#"
                  At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                  stored after that. It cannot be exactly once: a `stats` sink cannot hold the progress, so what it takes and
                  what is stored of it are two steps. What comes again is counted again.
            "#]],
        ),
        (
            "[sink.http]\nurl = 'http://localhost/'\n",
            expect![[r#"
                  At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                  stored after that. It cannot be exactly once: a `http` sink cannot hold the progress, so what it takes and
                  what is stored of it are two steps. A receiver that heeds the idempotency key handles an event once.
            "#]],
        ),
    ] {
        check_part(&format!("{JSON}{sink}"), "why", expected);
    }
    check_part(
        &format!("{JSON}{SCRIPT}"),
        "why",
        expect![[r#"
              At least once: an event counts as handled once the sink has taken what follows from it, and progress is
              stored after that. It cannot be exactly once: there is no sink that could hold the progress.
        "#]],
    );
    check_part(
        &format!("{JSON}{SCRIPT}[sink.sqlite]\n"),
        "why",
        expect![[r#"
              At least once: an event counts as handled once the sink has taken what follows from it, and progress is
              stored after that. It would be exactly once with `checkpoint = "sink"`: this sink can hold the progress.
              Write statements that may run twice, such as `INSERT … ON CONFLICT …` or `UPDATE … SET total = ?`.
        "#]],
    );
}

#[test]
fn what_a_crash_costs_depends_on_where_things_are_kept() {
    check_part(
        &format!("{JSON}[sink.stdout]\n"),
        "crash",
        expect![[r#"
              What was handled since progress was last stored is handled again: what comes in about 5 seconds
              (`schedule.commit_interval`), or for as long as the store could not be reached, and what the sink was
              writing at that moment. `propulsiond_replay_exposure_events` says how many that is now. A stop by signal
              stores progress first and repeats nothing, if it ends within the daemon's `drain`.
        "#]],
    );
    check_part(
        &format!("{JSON}[checkpoint.memory]\n[sink.stdout]\n"),
        "crash",
        expect![[r#"
              All that was handled is handled again, from the beginning. So it is after every other stop, and after a
              failure of the pipeline.
        "#]],
    );
    check_part(
        "[source.memory]\n[sink.stdout]\n",
        "crash",
        expect![[r#"
              Events that were posted and are not handled yet are lost. What was handled is not offered again after that.
              When only the pipeline fails and starts over in the same process, what was handled since progress was last
              stored, or behind an event that was not handled, is handled again.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.file]\nfsync = {{ every = '2s' }}\n"),
        "crash",
        expect![[r#"
              What was handled since progress was last stored is handled again: what comes in about 5 seconds
              (`schedule.commit_interval`), or for as long as the store could not be reached, and what the sink was
              writing at that moment. `propulsiond_replay_exposure_events` says how many that is now. A stop by signal
              stores progress first and repeats nothing, if it ends within the daemon's `drain`. If the machine loses
              power, `fsync = { every = … }`, 2 seconds, lets the last lines be lost, and they do not come again where
              progress was stored meanwhile.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.sqlite]\nsynchronous = 'normal'\n"),
        "crash",
        expect![[r#"
              What was handled since progress was last stored is handled again: what comes in about 5 seconds
              (`schedule.commit_interval`), or for as long as the store could not be reached, and what the sink was
              writing at that moment. `propulsiond_replay_exposure_events` says how many that is now. A stop by signal
              stores progress first and repeats nothing, if it ends within the daemon's `drain`. If the machine loses
              power, `synchronous = "normal"` lets the last rows be lost, and they do not come again where progress was
              stored meanwhile.
        "#]],
    );
    check_part(
        &format!(
            "{JSON}[checkpoint.sqlite]\nsynchronous = 'normal'\n[sink.stdout]\n[schedule]\ncommit_interval = '1m'\n"
        ),
        "crash",
        expect![[r#"
              What was handled since progress was last stored is handled again: what comes in about 1 minute
              (`schedule.commit_interval`), or for as long as the store could not be reached, and what the sink was
              writing at that moment. `propulsiond_replay_exposure_events` says how many that is now. A stop by signal
              stores progress first and repeats nothing, if it ends within the daemon's `drain`. If the machine loses
              power, the last progress may be lost too (`synchronous = "normal"`), and more is repeated.
        "#]],
    );
}

#[test]
fn a_source_in_memory_promises_nothing_beyond_the_process() {
    let inbox = format!("checkpoint = 'sink'\n[source.memory]\nindex = 'arrival'\n{SCRIPT}[sink.sqlite]\n");
    check_whole(&inbox, expect_file!["memory.txt"]);
    check_part(
        &inbox.replace("arrival", "field"),
        "why",
        expect![[r#"
            Only while the process runs: what was posted and is not handled when it ends is gone. Until then, exactly
            once: what is written, and how far the events were read, are one transaction: after a crash both are there,
            or neither. If the feed has an event twice, the second is known by its stream and index, as how far each
            stream is is kept in the same transaction (`write_positions`). This is about what is written: what a script
            logs or counts may happen twice.
        "#]],
    );
    check_part(
        "[source.memory]\n[checkpoint.file]\n[sink.stdout]\n",
        "progress",
        expect![[r#"
              Its progress is kept in the folder `checkpoints` of the data directory, for each tranche under the group `a`
              and the source `memory`. It is stored every 5 seconds while it changes, and when the pipeline stops. It is a
              position alone, as this source gives events no places that last: what is handled behind one that is not is
              not remembered. One process at a time owns it: whoever claims it later fences this one, which then stores
              nothing more and says by whom.
        "#]],
    );
}

#[test]
fn orders_differ_in_what_waits_for_what() {
    let text = |schedule: &str| format!("{JSON}[sink.stdout]\n[schedule]\n{schedule}\n");
    check_part(
        &text("require_all = true"),
        "order",
        expect![[r#"
            The events of a stream are handled one after the other, by index; streams do not wait for each other. Where
            an index is missing, from 0 on, the stream waits until it comes, as long as that takes. How far each stream
            was is known after a restart: it is kept beside the progress. A stream that was handled in part before
            `require_all` was set waits for ever: give the pipeline another `group` then.
        "#]],
    );
    check_part(
        &text("order = 'tranche'"),
        "order",
        expect![[r#"
              All events of a tranche are handled one call after the other, in the order in which they are read, so a
              failing one holds up all that follow.
        "#]],
    );
    check_part(
        &text("order = 'tranche'"),
        "limits",
        expect![[r#"
              There is one call at a time for each tranche. One write at a time takes what has gathered. A call gets at
              most 1,000 events of a stream. For each tranche, reading pauses while 10 batches or 64 MiB of events are
              held that are not handled, or it is 1,000,000 events ahead of the position.
        "#]],
    );
    check_part(
        &text("order = 'none'"),
        "order",
        expect![[r#"
              There is none: every event is handled by itself, and any may overtake any.
        "#]],
    );
    check_part(
        &text("order = 'none'"),
        "failing_event",
        expect![[r#"
              A write that fails holds up nothing but the event itself, and is made again after 100 milliseconds, then
              after twice as long each time up to 30 seconds, each delay shortened at random by up to half. Once an event
              has failed 10 times, the pipeline halts. To halt is to finish what runs, store the progress and stop, with
              the event not handled: `/health` says why and answers 503, other pipelines go on, a finite job ends with
              exit code 1. The next start meets the same event.
        "#]],
    );
}

#[test]
fn r18_the_error_policy_is_said_in_words() {
    let skip = format!(
        "{JSON}{SCRIPT}[sink.http]\nurl = 'http://localhost/'\n[errors]\nthen = 'skip'\nstuck_after = '1h'\n\
         retry = {{ initial = '1s', max = '1m', attempts = 3 }}\n"
    );
    for (about, expected) in [
        (
            "failing_event",
            expect![[r#"
                  A call or a write that fails holds up its stream, and is made again after 1 second, then after twice as long
                  each time up to 1 minute, each delay shortened at random by up to half. From then on its events come one by
                  one, so that the others do not suffer for the one at fault. Once an event has failed 3 times, it is skipped.
                  At the first failure that trying again cannot mend, it is skipped without more attempts: a mistake in the
                  script, its `malformed` or `throw` of that class, or an answer that `permanent` names. To skip is to pass
                  that one event without effect: it counts as handled, `propulsiond_skipped_total` counts it, and the log
                  names it (target `propulsiond::audit`).
            "#]],
        ),
        (
            "malformed_event",
            expect![[r#"
                  A line that cannot be read is an event that cannot be handled: it is skipped at once, with its file and line
                  named.
            "#]],
        ),
        (
            "away",
            expect![[r#"
                  Where the server cannot be reached, or answers 401, 407, 502, 503 or 504, no event is to blame and no
                  attempt is spent: everything waits, and one call at a time tries again, with delays from 1 second to 1
                  minute. `/health` says so. An answer of 429 spends no attempt either: everything pauses, for as long as
                  `Retry-After` says, and then half as many requests go out at the same time, more again as they succeed.
                  Where progress cannot be stored in the SQLite file `propulsiond.db` of the data directory, handling goes on,
                  storing is tried again after 100 milliseconds at first and 30 seconds at most, and what a crash would repeat
                  grows. Where the files cannot be read, reading is tried again after 100 milliseconds at first and 30 seconds
                  at most, for ever.
            "#]],
        ),
        (
            "stuck_stream",
            expect![[r#"
                If a stream has been offered for 1 hour without progress, from the first such call on, its first event is
                skipped, once no call of it runs any more. While it waits (after a failure, deferred, paused, or for a sink
                that is away) that time does not count. A thread whose call does not come back for that long is given up and
                replaced.
            "#]],
        ),
    ] {
        check_part(&skip, about, expected);
    }
    let park = format!(
        "{JSON}[checkpoint.memory]\n[sink.stdout]\n[errors]\nthen = 'park'\nretry = {{ attempts = 'unlimited' }}\n"
    );
    check_part(
        &park,
        "failing_event",
        expect![[r#"
              A write that fails holds up its stream, and is made again after 100 milliseconds, then after twice as long
              each time up to 30 seconds, each delay shortened at random by up to half. From then on its events come one
              by one, so that the others do not suffer for the one at fault. It is tried without end, while the rest goes
              on until reading is 1,000,000 events ahead of it. To park is to keep the event and all later ones of its
              stream aside, in memory with the progress, while the rest goes on; they are gone with the process, and so is
              the progress.
        "#]],
    );
    check_part(
        &park,
        "stuck_stream",
        expect![[r#"
            If a stream has been offered for 5 minutes without progress, from the first such call on, it is parked, once
            no call of it runs any more. While it waits (after a failure, deferred, paused, or for a sink that is away)
            that time does not count.
        "#]],
    );
    check_part(
        "[source.generate]\n[sink.null]\n",
        "failing_event",
        expect![[r#"
              None can fail but one that is malformed: there is no handler, and this sink takes everything. To halt is to
              finish what runs, store the progress and stop, with the event not handled: `/health` says why and answers
              503, other pipelines go on, a finite job ends with exit code 1. The next start meets the same event.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.file]\npath = 'o/{{id}}'\n"),
        "failing_event",
        expect![[r#"
              A write that fails holds up its stream, and is made again after 100 milliseconds, then after twice as long
              each time up to 30 seconds, each delay shortened at random by up to half. From then on its events come one
              by one, so that the others do not suffer for the one at fault. Once an event has failed 10 times, the
              pipeline halts. At the first failure that trying again cannot mend, the pipeline halts without more
              attempts: a stream whose name makes no path. To halt is to finish what runs, store the progress and stop,
              with the event not handled: `/health` says why and answers 503, other pipelines go on, a finite job ends
              with exit code 1. The next start meets the same event.
        "#]],
    );
    check_part(
        "[source.generate]\n[sink.null]\n",
        "malformed_event",
        expect![[r#"
              This source makes none.
        "#]],
    );
}

#[test]
fn what_is_read_taken_and_written_is_said_for_every_kind() {
    let filter = "[filter]\ncategories = ['order', 'invoice']\nexclude_streams = ['/^test/']\nevents = ['A']\n";
    check_part(
        &format!("{JSON}[sink.stdout]\n{filter}"),
        "filter",
        expect![[r#"
              It takes the streams in the category `order` or `invoice`, not with the name `/^test/`, and of their events
              those of the type `A`. What is left out counts as handled. System streams, whose names begin with `$`, are
              left out unless an entry names them with their `$`.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.stdout]\n[filter]\nexclude_events = ['B']\nsystem = true\n"),
        "filter",
        expect![[r#"
              It takes all streams, and of their events none of the type `B`. What is left out counts as handled. System
              streams, whose names begin with `$`, are taken as others are.
        "#]],
    );
    let folder = "stop = { after = '10m' }\n[source.json]\npath = '.'\npattern = '*.log'\nskip = 1\ntranche_per_file = true\n\
                  index = 'line'\non_replaced = 'restart'\n[sink.null]\n";
    check_part(
        folder,
        "source",
        expect![[r#"
              It reads the files of the folder `.` beside the pipeline's file: each by itself and all at the same time, a
              JSON object a line. Of a folder, the files named like `*.log` are read. The first line of each file is
              passed. No line says an index: it is made of the number of the file and that of the line, so indexes grow
              but do not follow each other. A file that is replaced, cut short or added before the one being read is read
              from its start, as new events. It ends 10 minutes after its start, whatever is left.
        "#]],
    );
    let generate =
        "stop = 'tail'\n[source.generate]\ncount = 5000\nrate = 100\ntranches = 4\nduplicates = 0.1\n[sink.null]\n";
    check_part(
        generate,
        "source",
        expect![[r#"
              It makes events up: 5,000 in all, 100 events a second, of 1,000 streams, in 4 tranches, the same ones in
              each run. 10 % of them repeat an earlier one. It ends once everything that is there is handled.
        "#]],
    );
    for (sink, expected) in [
        (
            "[sink.sqlite]\ntable = 't'\n",
            expect![[r#"
                  The events are kept in the table `t` of the SQLite file `projections.db` of the data directory.
            "#]],
        ),
        (
            "[sink.file]\npath = 'out/{category}.jsonl'\n",
            expect![[r#"
                  It writes a line of JSON at the end of the file `out/{category}.jsonl` of the data directory for each event.
                  There is a file for each value of what stands in braces.
            "#]],
        ),
        (
            "[sink.stats]\ninterval = '1m'\n",
            expect![[r#"
                  It counts the events by category and type and logs the counts every minute. Nothing is written elsewhere.
            "#]],
        ),
        (
            "[sink.null]\n",
            expect![[r#"
                  There is none to speak of: the events go nowhere.
            "#]],
        ),
        (
            "[sink.http]\nurl = 'http://h/?key=literal-secret'\npath = '/o/{id}'\nper = 'span'\n",
            expect![[r#"
                  It sends a POST request to `http://h/`, with the path `/o/{id}` behind it for each run of events of one
                  stream, and waits at most 30 seconds for its answer. Its idempotency key is made of the stream and of the
                  indexes of the events that were offered together; a repeat has the same one if the same events are offered
                  together again.
            "#]],
        ),
    ] {
        check_part(&format!("{JSON}{sink}"), "sink", expected);
    }
    let batch = format!("{JSON}{SCRIPT}[schedule]\nstreams_per_call = 10\nmax_bytes = '1MiB'\npurge = '1h'\n");
    check_part(
        &batch,
        "handler",
        expect![[r#"
              The script `ok.rhai` decides: `handle_batch` gets up to 10 streams and the next events of each. What it
              emits reaches the sink once the call has ended well, and never if it fails. A call that takes longer than 30
              seconds has failed.
        "#]],
    );
    check_part(
        &batch,
        "sink",
        expect![[r#"
              There is none: what the script emits goes nowhere.
        "#]],
    );
    check_part(
        &batch,
        "limits",
        expect![[r#"
              The script runs on as many threads as there are cores, at most 16 (`schedule.concurrency`). A call gets at
              most 1,000 events of a stream, and no more than 1 MiB of them unless one alone is larger. For each tranche,
              reading pauses while 10 batches or 64 MiB of events are held that are not handled, or it is 1,000,000 events
              ahead of the position. Every hour, streams without work are forgotten; an event that the feed repeats after
              that is not known as one.
        "#]],
    );
}
