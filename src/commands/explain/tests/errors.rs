//! What becomes of failures.

use expect_test::expect;

use super::{JSON, SCRIPT, check_part};

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
                On a permanent error it is skipped without a retry: a mistake in the script, its `malformed` or `throw` of
                that class, or an answer that `permanent` names. To skip is to pass that one event without effect: it counts
                as handled, `propulsiond_skipped_total` counts it, and the log names it (target `propulsiond::audit`).
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
            pipeline halts. On a permanent error the pipeline halts without a retry: a stream whose name makes no path.
            To halt is to finish what runs, store the progress and stop, with the event not handled: `/health` says why
            and answers 503, other pipelines go on, a finite job ends with exit code 1. The next start meets the same
            event.
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
