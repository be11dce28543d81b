//! Answers to questions.

use expect_test::expect;

use super::script::check;

#[test]
fn explain_gives_the_reason_of_a_wait_and_the_ordinal_held_back() {
    check(
        "explain a; read t0: a/0 a/1 b/0; explain a; explain b; take; explain a; tick 3; explain a; fail a; explain a; tick 10; explain a; take; explain a; ok a; take; ok a; explain a; explain b",
        expect![[r#"
            Unknown write=None
            Ready head=Some(0) events=2 age=0 write=None blocks=1.0
            Ready head=Some(0) events=1 age=0 write=None
            a 0 1
            Active head=None events=2 age=0 write=None blocks=1.0
            Active head=None events=2 age=3 write=None blocks=1.0
            Failing head=Some(0) events=2 failures=1 age=3 until=13 write=None blocks=1.0
            Failing head=Some(0) events=2 failures=1 age=13 until=13 write=None blocks=1.0
            a 0 failures=1
            Failing head=Some(1) events=2 failures=1 age=13 write=None blocks=1.0
            a 1
            Idle head=None events=0 age=0 write=Some(2)
            Ready head=Some(0) events=1 age=13 write=None blocks=3.0
        "#]],
    );
}

#[test]
fn a_duplicate_that_waits_is_held_back_by_its_stream() {
    check(
        "read t0: a/0; take; read t0: a/0; ok a; read t0: a/5 b/0; read t0: a/5; take; take; ok b; explain a",
        expect![[r#"
        a 0
        a 5
        b 0
        Active head=None events=1 age=0 write=Some(1) blocks=3.0
    "#]],
    );
}

#[test]
fn a_snapshot_counts_by_state_with_ages_and_lists_streams_that_need_attention() {
    check(
        "read t0: a-1/0 a-2/0 b-1/0 b-2/0 c-1/0 d-1/0; snapshot; tick 5; take; take; take; take; take; snapshot; tick 5; fail a-1; wait a-2; defer b-1; park b-2; tick 5; snapshot; tick 10; take all; snapshot",
        expect![[r#"
            idle=0 ready=6s/6e/4c ages=0..0 listed=[]
            a-1 0
            a-2 0
            b-1 0
            b-2 0
            c-1 0
            idle=0 ready=1s/1e/1c ages=5..5 active=5s/5e/3c ages=0..0 listed=["a-1", "a-2"]
            idle=0 ready=1s/1e/1c ages=15..15 active=1s/1e/1c ages=10..10 failing=1s/1e/1c ages=10..10 stalled=1s/1e/1c ages=10..10 deferred=1s/1e/1c ages=5..5 parked=1s/1e/1c ages=5..5 listed=["a-1", "a-2", "c-1", "b-2"]
            d-1 0
            park b-2 0
            a-1 0 failures=1
            a-2 0
            b-1 0
            idle=0 active=6s/6e/4c ages=0..20 failing=1s/1e/1c ages=20..20 stalled=1s/1e/1c ages=20..20 parked=1s/1e/1c ages=15..15 listed=["a-1", "a-2", "c-1", "b-2", "d-1"]
        "#]],
    );
}
