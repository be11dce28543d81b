//! What is promised of deliveries and crashes.

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
                stored after that. It cannot be exactly once: the `null` sink cannot hold the progress, so what it takes and
                what is stored of it are two steps.
            "#]],
        ),
        (
            "[sink.file]\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                stored after that. It cannot be exactly once: the `file` sink cannot hold the progress, so what it takes and
                what is stored of it are two steps. After a repeat the same line is there twice.
            "#]],
        ),
        (
            "[sink.stats]\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                stored after that. It cannot be exactly once: the `stats` sink cannot hold the progress, so what it takes
                and what is stored of it are two steps. What comes again is counted again.
            "#]],
        ),
        (
            "[sink.http]\nurl = 'http://localhost/'\n",
            expect![[r#"
                At least once: an event counts as handled once the sink has taken what follows from it, and progress is
                stored after that. It cannot be exactly once: the `http` sink cannot hold the progress, so what it takes and
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
            or neither. If the feed has an event twice, the second is known by its stream and index, as the place of
            each stream is kept in the same transaction (`write_positions`). This is about what is written: what a
            script logs or counts may happen twice.
        "#]],
    );
    check_part(
        "[source.memory]\n[checkpoint.file]\n[sink.stdout]\n",
        "progress",
        expect![[r#"
            Its progress is kept in the folder `checkpoints` of the data directory, for each tranche under the group `a`
            and the source `memory`. It is stored every 5 seconds while it changes, and when the pipeline stops. It is a
            position alone, as this source gives events no places that last: behind an event that is not handled yet,
            what is handled is not remembered. One process at a time owns it: whoever claims it later fences this one,
            which then stores nothing more and says by whom.
        "#]],
    );
}
