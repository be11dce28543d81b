//! The explanation of the delivery contract and of crashes.

use expect_test::{expect, expect_file};

use super::{JSON, SCRIPT, check_part, check_whole};

#[test]
fn c13_exactly_once_names_its_reason() {
    let sink = "[sink.sqlite]\npath = 'a.db'\n";
    let text = |source: &str, more: &str| format!("checkpoint = 'sink'\n{source}{SCRIPT}{sink}{more}");
    check_whole(&text(JSON, ""), expect_file!["exactly_once.txt"]);
    // The feed repeats nothing.
    check_part(
        &text("[source.json]\npath = 'in.jsonl'\nindex = 'line'\n", ""),
        "why",
        expect![[r#"
            Exactly once: effects and progress are one transaction, so that a crash leaves both or neither. Each line is
            an event of its own, even if another line is equal. This holds for effects: the logs and counts of a script
            may repeat.
        "#]],
    );
    let restart = "[source.json]\npath = 'in.jsonl'\nindex = 'line'\non_replaced = 'restart'\n";
    check_part(
        &text(restart, ""),
        "why",
        expect![[r#"
            Exactly once: effects and progress are one transaction, so that a crash leaves both or neither. Each line is
            an event of its own, even if another line is equal. A file that is read again, as `on_replaced` asks for, is
            new events, which have their effect again. This holds for effects: the logs and counts of a script may
            repeat.
        "#]],
    );
    check_part(
        &text("[source.generate]\n", ""),
        "why",
        expect![[r#"
            Exactly once: effects and progress are one transaction, so that a crash leaves both or neither. The source
            has every event once. This holds for effects: the logs and counts of a script may repeat.
        "#]],
    );
    // The source repeats events, and `write_positions`, which recognises them, is off.
    check_part(
        &text(JSON, "[schedule]\nwrite_positions = false\n"),
        "why",
        expect![[r#"
            Exactly once: effects and progress are one transaction, so that a crash leaves both or neither. This holds
            for each place in the feed, not for each event. `write_positions` is off, so a duplicate in the feed may
            have its effect again after a restart. This holds for effects: the logs and counts of a script may repeat.
        "#]],
    );
    check_part(
        &text(JSON, "[schedule]\norder = 'tranche'\n"),
        "why",
        expect![[r#"
            Exactly once: effects and progress are one transaction, so that a crash leaves both or neither. This holds
            for each place in the feed, not for each event. A duplicate in the feed has its effect again: only `order =
            "stream"` could recognise it. This holds for effects: the logs and counts of a script may repeat.
        "#]],
    );
    check_part(
        &text(JSON, "synchronous = 'normal'\n"),
        "crash",
        expect![[r#"
            A transaction in flight is rolled back, and its events are handled again. No event is left out. A power
            failure may undo the last transactions (`synchronous = "normal"`), effects and progress together; their
            events are then redelivered.
        "#]],
    );
}

#[test]
fn at_least_once_names_its_reason_and_the_effect_of_a_repeat() {
    for (sink, expected) in [
        (
            "[sink.sqlite]\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has accepted its effects, and progress is committed
                after that. It would be exactly once with `checkpoint = "sink"`: this sink can hold the progress. A repeated
                event overwrites its own row, which stream and index identify.
            "#]],
        ),
        (
            "[sink.null]\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has accepted its effects, and progress is committed
                after that. It cannot be exactly once: the `null` sink cannot hold the progress, so effects and progress are
                two steps.
            "#]],
        ),
        (
            "[sink.file]\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has accepted its effects, and progress is committed
                after that. It cannot be exactly once: the `file` sink cannot hold the progress, so effects and progress are
                two steps. A repeated event writes its line again.
            "#]],
        ),
        (
            "[sink.stats]\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has accepted its effects, and progress is committed
                after that. It cannot be exactly once: the `stats` sink cannot hold the progress, so effects and progress
                are two steps. A repeated event is counted again.
            "#]],
        ),
        (
            "[sink.http]\nurl = 'http://localhost/'\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has accepted its effects, and progress is committed
                after that. It cannot be exactly once: the `http` sink cannot hold the progress, so effects and progress are
                two steps. A receiver that honours the idempotency key handles an event once.
            "#]],
        ),
    ] {
        check_part(&format!("{JSON}{sink}"), "why", expected);
    }
    check_part(
        &format!("{JSON}{SCRIPT}"),
        "why",
        expect![[r#"
            At least once: an event counts as handled once the sink has accepted its effects, and progress is committed
            after that. It cannot be exactly once: there is no sink that could hold the progress.
        "#]],
    );
    check_part(
        &format!("{JSON}{SCRIPT}[sink.sqlite]\n"),
        "why",
        expect![[r#"
            At least once: an event counts as handled once the sink has accepted its effects, and progress is committed
            after that. It would be exactly once with `checkpoint = "sink"`: this sink can hold the progress. Write
            statements that may run twice, such as `INSERT … ON CONFLICT …` or `UPDATE … SET total = ?`.
        "#]],
    );
}

#[test]
fn the_cost_of_a_crash_depends_on_the_store_and_the_sink() {
    check_part(
        &format!("{JSON}[sink.stdout]\n"),
        "crash",
        expect![[r#"
            Events that were handled since the last commit are handled again. Commits are 5 seconds apart
            (`schedule.commit_interval`), or more while the store is unavailable. Writes in flight are repeated as well.
            `propulsiond_replay_exposure_events` is the number of these events. A stop by signal commits progress first
            and repeats nothing, if the drain ends within the daemon's `drain`.
        "#]],
    );
    check_part(
        &format!("{JSON}[checkpoint.memory]\n[sink.stdout]\n"),
        "crash",
        expect![[r#"
            All events are handled again, from the origin. The same holds after every other stop, and after a failure of
            the pipeline.
        "#]],
    );
    check_part(
        "[source.memory]\n[sink.stdout]\n",
        "crash",
        expect![[r#"
            Received events that are not handled yet are lost. Handled events are not repeated. If the pipeline alone
            fails and restarts in the same process, it repeats the events that were handled since the last commit, or
            beyond an unhandled event.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.file]\nfsync = {{ every = '2s' }}\n"),
        "crash",
        expect![[r#"
            Events that were handled since the last commit are handled again. Commits are 5 seconds apart
            (`schedule.commit_interval`), or more while the store is unavailable. Writes in flight are repeated as well.
            `propulsiond_replay_exposure_events` is the number of these events. A stop by signal commits progress first
            and repeats nothing, if the drain ends within the daemon's `drain`. A power failure may lose the lines of 2
            seconds (`fsync = { every = … }`). They are lost for good if progress was committed meanwhile.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.sqlite]\nsynchronous = 'normal'\n"),
        "crash",
        expect![[r#"
            Events that were handled since the last commit are handled again. Commits are 5 seconds apart
            (`schedule.commit_interval`), or more while the store is unavailable. Writes in flight are repeated as well.
            `propulsiond_replay_exposure_events` is the number of these events. A stop by signal commits progress first
            and repeats nothing, if the drain ends within the daemon's `drain`. A power failure may lose the last rows
            (`synchronous = "normal"`). They are lost for good if progress was committed meanwhile.
        "#]],
    );
    check_part(
        &format!(
            "{JSON}[checkpoint.sqlite]\nsynchronous = 'normal'\n[sink.stdout]\n[schedule]\ncommit_interval = '1m'\n"
        ),
        "crash",
        expect![[r#"
            Events that were handled since the last commit are handled again. Commits are 1 minute apart
            (`schedule.commit_interval`), or more while the store is unavailable. Writes in flight are repeated as well.
            `propulsiond_replay_exposure_events` is the number of these events. A stop by signal commits progress first
            and repeats nothing, if the drain ends within the daemon's `drain`. A power failure may lose the last
            commits (`synchronous = "normal"`), and more events are repeated.
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
            Only while the process runs: its end loses the received events that are not handled yet. Until then, exactly
            once: effects and progress are one transaction, so that a crash leaves both or neither. A duplicate in the
            feed is recognised by its stream and index: the same transaction keeps the position of each stream
            (`write_positions`). This holds for effects: the logs and counts of a script may repeat.
        "#]],
    );
    check_part(
        "[source.memory]\n[checkpoint.file]\n[sink.stdout]\n",
        "progress",
        expect![[r#"
            Its progress is kept in the directory `checkpoints` of the data directory, for each tranche under the group
            `a` and the source `memory`. It is committed every 5 seconds while it changes, and when the pipeline stops.
            It is a position alone, because the events of this source have no ordinals. A restart repeats events that
            were handled beyond an unhandled one. One process at a time owns it: a later claim fences this process,
            which stops committing and names the new owner.
        "#]],
    );
}
