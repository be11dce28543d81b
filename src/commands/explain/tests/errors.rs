//! The explanation of failures.

use expect_test::expect;

use super::{JSON, SCRIPT, check_part};

#[test]
fn r18_the_error_policy_is_described() {
    let skip = format!(
        "{JSON}{SCRIPT}[sink.http]\nurl = 'http://localhost/'\n[errors]\nthen = 'skip'\nstuck_after = '1h'\n\
         retry = {{ initial = '1s', max = '1m', attempts = 3 }}\n"
    );
    for (about, expected) in [
        (
            "failing_event",
            expect![[r#"
                A failed call or write holds up its stream and is retried after 1 second. The delay doubles with each retry,
                up to 1 minute, and is shortened at random by up to half. After a failure, the events of the stream are
                offered one by one, so that only the event at fault fails. Once an event has failed 3 times, it is skipped.
                On a permanent error it is skipped without a retry. Permanent errors are mistakes in the script, its
                `malformed(..)` and permanent `throw`, and answers that `permanent` names. A skipped event has no effect and
                counts as handled. `propulsiond_skipped_total` counts it, and the log names it (target
                `propulsiond::audit`).
            "#]],
        ),
        (
            "malformed_event",
            expect![[r#"
                An unreadable line is a malformed event: it is skipped at once, and the message names its file and line.
            "#]],
        ),
        (
            "outage",
            expect![[r#"
                If the server cannot be reached, or answers 401, 407, 502, 503 or 504, no event is at fault and no attempt
                is spent. The circuit breaker opens: all calls wait, and one call at a time probes the sink, with delays
                from 1 second to 1 minute. `/health` reports the outage. 20 transient failures of writes in a row, of at
                least 5 streams, are an outage as well. The circuit breaker opens, and later failures spend no attempt until
                a write succeeds. An answer of 429 spends no attempt either. All requests pause for the time of
                `Retry-After`. Then half as many go out at the same time, and more as they succeed. If progress cannot be
                committed in the SQLite file `propulsiond.db` of the data directory, handling goes on and the commit is
                retried after 100 milliseconds at first and 30 seconds at most. Until it succeeds, more and more events
                would be repeated after a crash. If the files cannot be read, reading is retried after 100 milliseconds at
                first and 30 seconds at most, without limit.
            "#]],
        ),
        (
            "stuck_stream",
            expect![[r#"
                If a stream makes no progress for 1 hour while it is offered, its first event is skipped as soon as no call
                of it runs. The clock stands still while the stream is deferred, in back-off, paused or behind an open
                circuit breaker. A thread whose call does not return for that long is abandoned and replaced.
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
            A failed write holds up its stream and is retried after 100 milliseconds. The delay doubles with each retry,
            up to 30 seconds, and is shortened at random by up to half. After a failure, the events of the stream are
            offered one by one, so that only the event at fault fails. A failing event is retried without limit. The
            other streams go on until reading is 1,000,000 events ahead of it. A parked event and all later ones of its
            stream are kept aside while the rest goes on. They are in memory beside the progress, and the end of the
            process loses both.
        "#]],
    );
    check_part(
        &park.replace("[checkpoint.memory]\n", "[schedule]\norder = 'none'\n"),
        "failing_event",
        expect![[r#"
            A failed write holds up nothing but the event itself and is retried after 100 milliseconds. The delay
            doubles with each retry, up to 30 seconds, and is shortened at random by up to half. A failing event is
            retried without limit. The other streams go on until reading is 1,000,000 events ahead of it. A parked event
            is kept aside while the rest goes on. It is stored beside the progress, as durably, until another version of
            the handler succeeds, or an operator retries or discards it.
        "#]],
    );
    check_part(
        &park,
        "stuck_stream",
        expect![[r#"
            If a stream makes no progress for 5 minutes while it is offered, it is parked as soon as no call of it runs.
            The clock stands still while the stream is deferred, in back-off, paused or behind an open circuit breaker.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.null]\n"),
        "failing_event",
        expect![[r#"
            Only a malformed event can fail. There is no handler, and this sink accepts everything. A parked event and
            all later ones of its stream are kept aside while the rest goes on. They are stored beside the progress, as
            durably, until another version of the handler succeeds, or an operator retries or discards them.
        "#]],
    );
    check_part(
        "[source.generate]\n[sink.null]\n",
        "failing_event",
        expect![[r#"
            No event can fail: there is no handler, this sink accepts everything, and this source delivers no malformed
            events.
        "#]],
    );
    check_part(
        &format!("{JSON}[sink.file]\npath = 'o/{{id}}'\n"),
        "failing_event",
        expect![[r#"
            A failed write holds up its stream and is retried after 100 milliseconds. The delay doubles with each retry,
            up to 30 seconds, and is shortened at random by up to half. After a failure, the events of the stream are
            offered one by one, so that only the event at fault fails. Once an event has failed 10 times, its stream is
            parked. On a permanent error its stream is parked without a retry. Permanent errors are stream names that
            make no path. A parked event and all later ones of its stream are kept aside while the rest goes on. They
            are stored beside the progress, as durably, until another version of the handler succeeds, or an operator
            retries or discards them.
        "#]],
    );
    check_part(
        "[source.generate]\n[sink.null]\n",
        "malformed_event",
        expect![[r#"
            This source delivers no malformed events.
        "#]],
    );
}
