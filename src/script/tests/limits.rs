use expect_test::expect;

use super::*;

fn check_limited(source: &str, change: impl FnOnce(&mut Options), expected: Expect) {
    let mut options = Options::default();
    change(&mut options);
    let shown = match compile(&[("main.rhai", source)], options) {
        Ok(script) => run(&script, &[order()]),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn an_endless_loop_ends_by_operations_or_by_time() {
    let source = "fn handle(stream, events) { loop { } }";
    check_limited(
        source,
        |options| options.limits.operations = 10_000,
        expect![[r#"
            Permanent
              main.rhai:1:34: the call took more operations than `limits.operations` allows (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    check_limited(
        source,
        |options| options.timeout = Duration::from_millis(20),
        expect![[r#"
            TimedOut
              main.rhai:1:34: the call ran for longer than 20ms (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    let looping = "fn handle(stream, events) { loop { try { loop { } } catch { } } }";
    check_limited(
        looping,
        |options| options.timeout = Duration::from_millis(20),
        expect![[r#"
            TimedOut
              main.rhai:1:47: the call ran for longer than 20ms (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn each_call_has_the_full_limits() {
    let options = Options { limits: Limits { operations: 1_000, ..Limits::default() }, ..Options::default() };
    let source = "fn handle(stream, events) { let n = 0; while n < 50 { n += 1; } }";
    let script = compile(&[("main.rhai", source)], options).unwrap();
    let mut handler = script.factory().make();
    for _ in 0..20 {
        assert_eq!(show(&call(&mut *handler, &[order()])), "all\n");
    }
}

#[test]
fn recursion_ends_before_the_stack_does() {
    let source = "fn handle(stream, events) { deep(1) }\nfn deep(n) { if n > 0 { [1].map(|x| deep(n + x)); } }";
    let run_it = move || {
        check_limited(
            source,
            |_| {},
            expect![[r#"
                Permanent
                  main.rhai:2:29: functions call each other deeper than `limits.call_depth` allows (stream `order-1_a`, index 5, type `OrderPlaced`)
            "#]],
        )
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run_it).unwrap().join().unwrap();
}

#[test]
fn the_deepest_calls_in_the_deepest_expressions_fit_the_stack() {
    let (open, close) = ("(1 + ".repeat(MAX_EXPRESSION_DEPTH / 2 - 12), ")".repeat(MAX_EXPRESSION_DEPTH / 2 - 12));
    let source = format!(
        "fn handle(stream, events) {{ deep(1) }}\nfn deep(n) {{ {open}[1].map(|x| deep(n + x)).len(){close} }}"
    );
    let run_it = move || {
        check_limited(
            &source,
            |options| {
                options.limits.call_depth = MAX_CALL_DEPTH;
                options.limits.expression_depth = MAX_EXPRESSION_DEPTH;
            },
            expect![[r#"
                Permanent
                  main.rhai:2:118: functions call each other deeper than `limits.call_depth` allows (stream `order-1_a`, index 5, type `OrderPlaced`)
            "#]],
        )
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run_it).unwrap().join().unwrap();
}

#[test]
fn values_do_not_grow_without_bound() {
    let strings = "fn handle(stream, events) { let s = \"ab\"; loop { s += s; } }";
    check_limited(
        strings,
        |options| options.limits.string_bytes = 1_000,
        expect![[r#"
            Permanent
              main.rhai:1:52: length of string exceeds `limits` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    let arrays = "fn handle(stream, events) { let a = [1]; loop { a.push(a); } }";
    check_limited(
        arrays,
        |options| options.limits.array_items = 1_000,
        expect![[r#"
            Permanent
              main.rhai:1:51: size of array/BLOB exceeds `limits` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    let maps = "fn handle(stream, events) { let m = #{}; let n = 0; loop { n += 1; m.set(`k${n}`, n); } }";
    check_limited(
        maps,
        |options| options.limits.map_entries = 100,
        expect![[r#"
            Permanent
              main.rhai:1:70: size of object map exceeds `limits` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    // rhai does not limit a map that grows by assignment. The limit on operations ends the loop.
    let maps = "fn handle(stream, events) { let m = #{}; let n = 0; loop { n += 1; m[`k${n}`] = n; } }";
    check_limited(
        maps,
        |options| options.limits.operations = 10_000,
        expect![[r#"
            Permanent
              main.rhai:1:68: the call took more operations than `limits.operations` allows (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    let effects = "fn handle(stream, events) { loop { emit(\"some text\") } }";
    check_limited(
        effects,
        |options| options.limits.emitted_bytes = 100,
        expect![[r#"
            Permanent
              main.rhai:1:36: the call emitted more than 100 bytes (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
    let padded = "fn handle(stream, events) { let s = \"\"; s.pad(1000000000, 'x'); }";
    check_limited(
        padded,
        |_| {},
        expect![[r#"
            Permanent
              main.rhai:1:43: length of string exceeds `limits` (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

#[test]
fn top_level_statements_are_bounded_too() {
    check_limited(
        "loop { }\nfn handle(s, e) { }",
        |options| options.limits.operations = 1_000,
        expect![[r#"
            main.rhai:1:6: the top-level statements took more operations than `limits.operations` allows
               1 | loop { }
                 |      ^"#]],
    );
    check_limited(
        "loop { }\nfn handle(s, e) { }",
        |options| options.timeout = Duration::from_millis(20),
        expect![[r#"
        main.rhai:1:6: the top-level statements ran for longer than 20ms
           1 | loop { }
             |      ^"#]],
    );
    check_limited(
        "const A = 1;\nthrow `no ${A}`;\nfn handle(s, e) { }",
        |_| {},
        expect![[r#"
            main.rhai:2:1: the top-level statements fail: no 1
               2 | throw `no ${A}`;
                 | ^"#]],
    );
}

#[test]
fn expressions_have_the_same_depth_in_every_build() {
    let nested = |depth: usize| {
        format!("fn handle(stream, events) {{ let x = {}1{}; }}", "(1 + ".repeat(depth), ")".repeat(depth))
    };
    check_limited(
        &nested(25),
        |_| {},
        expect![[r#"
        all
    "#]],
    );
    check_limited(
        &nested(80),
        |_| {},
        expect![[r#"
            main.rhai:1:183: this is nested deeper than `limits.expression_depth` allows
               1 | fn handle(stream, events) { let x = (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + (1 + 1)))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))); }
                 |                                                                                                                                                                                       ^"#]],
    );
}

#[test]
fn modules_are_counted() {
    let options = Options { limits: Limits { modules: 1, ..Limits::default() }, ..Options::default() };
    let source = "import \"a\" as a;\nimport \"b\" as b;\nfn handle(s, e) { }";
    let error = compile(&[("main.rhai", source), ("a.rhai", ""), ("b.rhai", "")], options).unwrap_err();
    expect![[r#"
        main.rhai:2:8: the script has more than 1 modules (`limits.modules`)
           2 | import "b" as b;
             |        ^"#]]
    .assert_eq(&error.to_string());
}

#[test]
fn a_thread_survives_a_panic_in_the_engine() {
    let mut handler =
        handler("fn handle(stream, events) { if events[0].index == 0 { panic_for_a_test() } emit(stream.name) }");
    expect![[r#"
        all
          "order-1_a"
        Permanent
          main.rhai: the script engine failed: as the test asked (stream `order-1`, index 0, type `OrderPlaced`)
        Permanent
          main.rhai: the script engine failed in an earlier stream of this call (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]].assert_eq(&show(&call(&mut *handler, &[order(), single("{}"), order()])));
    assert_eq!(show(&call(&mut *handler, &[order()])), "all\n  \"order-1_a\"\n");
}

/// Returns the decision of a call with the default limits and less memory, which a debug build fills in reasonable time.
fn outcome(body: &str) -> String {
    let source = format!(
        "fn handle(stream, events) {{ let long = \"a\"; while long.len() < 1000000 {{ long += long; }} {body} }}"
    );
    let limits = Limits { memory_bytes: 32 << 20, ..Limits::default() };
    // A busy machine must not turn an exceeded size into an exceeded time.
    let options = Options { limits, timeout: Duration::from_secs(600), ..Options::default() };
    run(&compile(&[("main.rhai", &source)], options).unwrap(), &[order()])
}

/// Bodies that build values beyond the memory limit, or nested too deep to be dropped on the stack.
const TOO_LARGE: [&str; 15] = [
    "let a = []; a.pad(9000, 1); let n = []; n.pad(90000, 1); n.map(|x| a); emit(1);",
    "let f = |x| x; for i in 0..100000 { let g = f; f = |x| g.call(x); } emit(1);",
    "let f = |x| x; for i in 0..100000 { let g = [f]; f = |x| g[0].call(x); } emit(1);",
    "let f = |x| x; for i in 0..100000 { let g = #{ f: f }; f = |x| g.f.call(x); } emit(1);",
    "let f = Fn(\"handle\"); for i in 0..100000 { f = Fn(\"handle\").curry(f); } emit(1);",
    "let a = []; for i in 0..90000 { a = [a]; } emit(1);",
    "let m = #{}; for i in 0..90000 { m = #{ m: m }; } emit(1);",
    "let fs = []; for i in 0..99000 { let a = []; a.pad(99000, i); fs.push(|| a.len()); } emit(1);",
    "let fs = []; for i in 0..99000 { let s = long + i; fs.push(Fn(\"handle\").curry(s)); } emit(1);",
    "let m = #{}; for i in 0..99000 { let s = long + i; m[`k${i}`] = s; } emit(1);",
    "let s = long; s.replace(\"a\", long); emit(1);",
    "let s = long; s.replace(\"\", long); emit(1);",
    "let s = long; s.replace(\"a\", \" a\"); s.split(\" \"); emit(1);",
    "long.to_chars(); emit(1);",
    "let a = []; a.pad(99000, 1); for i in 0..100000 { emit(a); }",
];

#[test]
fn x1_a_call_that_builds_too_much_fails_alone() {
    for body in TOO_LARGE {
        let shown = outcome(body);
        assert!(shown.starts_with("Permanent\n"), "{body}: {shown}");
        let caught = outcome(&format!("try {{ {body} }} catch {{ }} emit(\"more\");"));
        assert!(caught.starts_with("Permanent\n") || body.ends_with("emit(a); }"), "{body}: {caught}");
    }
    expect![[r#"
        Permanent
          main.rhai:1:145: nesting of values exceeds `limits` (stream `order-1_a`, index 5, type `OrderPlaced`)
    "#]]
    .assert_eq(&outcome(TOO_LARGE[1]));
}

#[test]
fn x1_top_level_statements_that_build_too_much_are_an_error() {
    let source = "let f = |x| x; for i in 0..100000 { let g = f; f = |x| g.call(x); }\nfn handle(stream, events) { }";
    check_limited(
        source,
        |_| {},
        expect![[r#"
        main.rhai:1:48: the top-level statements fail: nesting of values exceeds `limits`
           1 | let f = |x| x; for i in 0..100000 { let g = f; f = |x| g.call(x); }
             |                                                ^"#]],
    );
}

#[test]
fn x1_many_variables_are_measured_together() {
    let variables = |count: u32| (0..count).map(|n| format!("let s{n} = long + {n}; ")).collect::<String>();
    assert_eq!(outcome(&format!("{} emit(1);", variables(20))), "all\n  1\n");
    let error = "memory of the variables exceeds `limits`";
    assert!(outcome(&format!("{} emit(1);", variables(60))).contains(error));
    let callers = "fn handle(stream, events) { let long = \"a\"; while long.len() < 1000000 { long += long; } deep(1, long) }\n\
                   fn deep(n, long) { let a = long + n; let b = a + n; for i in 0..20 { a.len(); } if n < 30 { deep(n + 1, long); } b.len(); return; }";
    let limits = Limits { memory_bytes: 32 << 20, ..Limits::default() };
    let script = compile(&[("main.rhai", callers)], Options { limits, ..Options::default() }).unwrap();
    let shown = run(&script, &[order()]);
    assert!(shown.contains(error), "{shown}");
}

#[test]
fn x1_the_variables_of_callers_count_although_few_are_accessed() {
    // Each caller holds a megabyte, and passes five accesses to variables: most of them are never measured themselves.
    let source = "fn handle(stream, events) { let long = \"a\"; while long.len() < 1000000 { long += long; } deep(1, long) }\n\
                  fn deep(n, long) { let a = long + n; if n < DEPTH { deep(n + 1, long); } a.len(); return; }";
    let outcome = |depth: &str| {
        let limits = Limits { memory_bytes: 32 << 20, ..Limits::default() };
        let options = Options { limits, timeout: Duration::from_secs(600), ..Options::default() };
        run(&compile(&[("main.rhai", &source.replace("DEPTH", depth))], options).unwrap(), &[order()])
    };
    assert_eq!(outcome("5"), "all\n");
    assert!(outcome("29").contains("memory of the variables exceeds `limits`"), "{}", outcome("29"));
}

#[test]
fn split_and_to_chars_count_their_pieces_before_they_make_them() {
    for pieces in ["\"a b c\".split(\" \")", "\"a b c\".split(' ')", "\" a  b c\".split()", "\"abc\".to_chars()"] {
        let outcome = |array_items| {
            let limits = Limits { array_items, ..Limits::default() };
            let source = format!("fn handle(stream, events) {{ let n = {pieces}; emit(n.len()); }}");
            run(&compile(&[("main.rhai", &source)], Options { limits, ..Options::default() }).unwrap(), &[order()])
        };
        // rhai's own check, which comes after the array is made, says `size of array/BLOB`.
        assert!(outcome(2).contains(": size of array exceeds `limits`"), "{pieces}: {}", outcome(2));
        assert_eq!((outcome(3), outcome(0)), ("all\n  3\n".to_owned(), "all\n  3\n".to_owned()), "{pieces}");
    }
}

/// The closure holds the parameters of the script, of which the test counts the references.
#[test]
fn x1_a_closure_that_captures_itself_is_freed_with_its_call() {
    let references = |body: &str| {
        let script = compile(&[("main.rhai", &format!("fn handle(stream, events) {{ {body} }}"))], Options::default());
        let script = script.unwrap();
        let mut handler = script.factory().make();
        let mut count = || {
            let shown = show(&call(&mut *handler, &[order()]));
            (shown, Arc::strong_count(&script.0.host.params))
        };
        let (shown, first) = count();
        assert_eq!(count(), (shown.clone(), first), "{body}: each call leaves a reference");
        shown
    };
    assert_eq!(references("let p = params; let f = 0; f = |n| [p, f]; emit(1);"), "all\n  1\n");
    assert_eq!(references("let p = params; let a = [0]; a[0] = |n| [p, a]; emit(2);"), "all\n  2\n");
    assert!(references("let p = params; let f = 0; f = |n| [p, f]; throw \"no\";").starts_with("Transient"));
}

#[test]
fn x1_closures_within_the_limits_work() {
    assert_eq!(
        outcome("let f = |x| x; for i in 0..20 { let g = f; f = |x| g.call(x) + 1; } emit(f.call(1));"),
        "all\n  21\n"
    );
    let shared = "let big = []; big.pad(90000, 1); let n = 0; for i in 0..300 { n += [1, 2].filter(|x| x < big.len()).len(); } emit(n);";
    assert_eq!(outcome(shared), "all\n  600\n");
}

/// Runs itself in a child process for each body, and reads the peak memory of the child.
#[test]
fn x1_the_peak_memory_of_a_call_is_bounded() {
    const CHILD: &str = "PROPULSIOND_TEST_SCRIPT_CHILD";
    if let Ok(number) = std::env::var(CHILD) {
        outcome(TOO_LARGE[number.parse::<usize>().unwrap()]);
        return;
    }
    let this = std::env::current_exe().unwrap();
    for (number, body) in TOO_LARGE.iter().enumerate() {
        let child = std::process::Command::new("/usr/bin/env")
            .args(["sh", "-c", "\"$0\" --exact script::tests::limits::x1_the_peak_memory_of_a_call_is_bounded >&2 & while kill -0 $! 2>/dev/null; do grep VmHWM /proc/$!/status 2>/dev/null; done; wait $!"])
            .arg(&this)
            .env(CHILD, number.to_string())
            .output()
            .unwrap();
        assert!(child.status.success(), "{body}: {}", String::from_utf8_lossy(&child.stderr));
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        let peak = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).max();
        let peak = peak.expect("the child was seen");
        assert!(peak < 400 << 10, "{body}: {peak} KiB");
    }
}

#[test]
fn x2_the_clock_is_read_between_slow_built_in_functions() {
    // Each operation takes some milliseconds in this build, so the limit passes within a hundred of them.
    let body = "let a = []; a.pad(99000, 1); for i in 0..100000 { a.index_of(2); }";
    check_limited(
        &format!("fn handle(stream, events) {{ {body} }}"),
        |options| options.timeout = Duration::from_millis(50),
        expect![[r#"
            TimedOut
              main.rhai:1:90: the call ran for longer than 50ms (stream `order-1_a`, index 5, type `OrderPlaced`)
        "#]],
    );
}

/// Runs `body`, which adds `N` items, and returns the number of values that were measured meanwhile.
fn measured(body: &str, items: usize) -> u64 {
    let before = methods::measured();
    let source = format!(
        "fn handle(stream, events) {{ {} }}\nfn add(a, x) {{ a.push(x); a }}",
        body.replace('N', &items.to_string())
    );
    let options = Options { timeout: Duration::from_secs(600), ..Options::default() };
    assert_eq!(run(&compile(&[("main.rhai", &source)], options).unwrap(), &[order()]), format!("all\n  {items}\n"));
    methods::measured() - before
}

#[test]
fn x2_adding_items_measures_each_item_a_few_times() {
    for body in [
        "let a = []; for i in 0..N { a.push(i); } emit(a.len());",
        "let a = []; let f = |x| a.push(x); for i in 0..N { f.call(i); } emit(a.len());",
        "let o = #{ items: [] }; for i in 0..N { o.items.push(i); if o.items.len() == 0 { } } emit(o.items.len());",
        "let m = #{}; for i in 0..N { m.set(`k${i}`, i); } emit(m.len());",
    ] {
        let (few, many) = (measured(body, 2_000), measured(body, 8_000));
        assert!(few > 2_000 && many < few * 6, "{body}: {few} and {many} items");
    }
}

#[test]
fn x2_pushes_are_measured_as_rhai_measures_them() {
    let source =
        "fn handle(stream, events) { let o = #{ a: [] }; for i in 0..LIMIT { o.a.push(i); } emit(o.a.len()); }";
    let pushed = |limit: &str| {
        let limits = Limits { array_items: 1_000, ..Limits::default() };
        let script = compile(
            &[("main.rhai", &source.replace("LIMIT", limit))],
            Options { limits, timeout: Duration::from_secs(600), ..Options::default() },
        );
        run(&script.unwrap(), &[order()])
    };
    assert_eq!(pushed("1000"), "all\n  1000\n");
    assert!(pushed("1001").contains("size of array/BLOB exceeds `limits`"));
    let texts = "let a = []; for i in 0..100 { a.push(long); } emit(a.len());";
    assert!(outcome(texts).contains("length of string exceeds `limits`"));
}
