use expect_test::expect;

use super::*;

fn check_files(files: &[(&str, &str)], expected: Expect) {
    let shown = match compile(files, Options::default()) {
        Ok(script) => run(&script, &[single("{}")]),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn a_script_imports_files_of_its_directory() {
    check_files(
        &[
            (
                "main.rhai",
                "import \"prices\" as prices;\nconst A = 1;\nfn handle(stream, events) { emit([prices::vat(2), prices::RATE, global::A]) }",
            ),
            (
                "prices.rhai",
                "import \"lib/deep\" as deep;\nexport const RATE = 3;\nconst A = 5;\nfn vat(x) { double(x) + global::A + deep::one() }\nprivate fn double(x) { x * 2 }",
            ),
            ("lib/deep.rhai", "fn one() { params.vat }"),
        ],
        expect![[r#"
            all
              [9.2,3,1]
        "#]],
    );
}

#[test]
fn functions_of_several_files_need_distinct_names() {
    check_files(
        &[
            (
                "main.rhai",
                "import \"a\" as a;\nimport \"b\" as b;\nfn help(x) { `main ${x}` }\nfn handle(stream, events) { for i in 0..3 { emit([help(1), a::ask(1), b::ask(1), help(2), a::help(3)]) } }",
            ),
            ("a.rhai", "fn help(x) { `a ${x}` }\nfn ask(x) { help(x) }"),
            ("b.rhai", "fn help(x) { `b ${x}` }\nfn ask(x) { help(x) }"),
        ],
        expect![[r#"
            a.rhai:1:12: `help` with 1 parameter is defined in `main.rhai` too: the functions of a script with several files need distinct names
               1 | fn help(x) { `a ${x}` }
                 |            ^
            b.rhai:1:12: `help` with 1 parameter is defined in `a.rhai` too: the functions of a script with several files need distinct names
               1 | fn help(x) { `b ${x}` }
                 |            ^
            b.rhai:2:11: `ask` with 1 parameter is defined in `a.rhai` too: the functions of a script with several files need distinct names
               2 | fn ask(x) { help(x) }
                 |           ^"#]],
    );
    check_files(
        &[
            ("main.rhai", "import \"a\" as a;\nfn handle(stream, events) { emit(a::ask(1)) }"),
            ("a.rhai", "fn emit(x) { x }\nfn ask(x) {\n  emit(x)\n}"),
        ],
        expect![[r#"
            a.rhai:1:12: `emit` with 1 parameter is built in: the functions of a script with several files need distinct names
               1 | fn emit(x) { x }
                 |            ^"#]],
    );
    // A function with another number of parameters is a different one.
    check_files(
        &[
            (
                "main.rhai",
                "import \"a\" as a;\nfn help(x) { `main ${x}` }\nfn handle(stream, events) { for i in 0..3 { emit([help(1), a::help(1, 2), [1].map(|x| x + 1), a::list()]) } }",
            ),
            ("a.rhai", "fn help(x, y) { `a ${x} ${y}` }\nfn list() { [2].map(|x| x + 1) }"),
        ],
        expect![[r#"
            all
              ["main 1","a 1 2",[2],[3]]
              ["main 1","a 1 2",[2],[3]]
              ["main 1","a 1 2",[2],[3]]
        "#]],
    );
}

#[test]
fn an_import_within_a_function_works_every_time() {
    let source = "fn handle(stream, events) { import \"a\" as a; emit(a::one()) }";
    let script = compile(&[("main.rhai", source), ("a.rhai", "fn one() { 1 }")], Options::default()).unwrap();
    let mut handler = script.factory().make();
    for _ in 0..200 {
        assert_eq!(show(&call(&mut *handler, &[single("{}")])), "all\n  1\n");
    }
}

#[test]
fn imports_in_a_circle_name_the_circle() {
    check_files(
        &[
            ("main.rhai", "import \"a\" as a;\nfn handle(stream, events) { }"),
            ("a.rhai", "import \"b\" as b;"),
            ("b.rhai", "let x = 1;\nimport \"a\" as a;"),
        ],
        expect![[r#"
            b.rhai:2:8: modules import each other in a circle: `a.rhai` → `b.rhai` → `a.rhai`
               2 | import "a" as a;
                 |        ^"#]],
    );
    check_files(
        &[("main.rhai", "import \"main\" as me;\nfn handle(stream, events) { }")],
        expect![[r#"
        main.rhai:1:8: modules import each other in a circle: `main.rhai` → `main.rhai`
           1 | import "main" as me;
             |        ^"#]],
    );
}

#[test]
fn no_file_outside_the_directory_is_imported() {
    let outside = directory(&[("secret.rhai", "fn one() { 1 }")]);
    let inside = directory(&[("main.rhai", "import \"link\" as l;\nfn handle(stream, events) { }")]);
    std::os::unix::fs::symlink(outside.path().join("secret.rhai"), inside.path().join("link.rhai")).unwrap();
    expect![[r#"
        main.rhai:1:8: the module `link.rhai` lies outside the script's directory
           1 | import "link" as l;
             |        ^"#]]
    .assert_eq(&compile_in(&inside, "main.rhai", Options::default()).unwrap_err().to_string());

    for path in ["../secret", "/etc/passwd", "a/../../b", "", ".", "a\\\\b"] {
        let source = format!("import \"{path}\" as m;\nfn handle(stream, events) {{ }}");
        let error = compile(&[("main.rhai", &source)], Options::default()).unwrap_err();
        assert!(error.to_string().contains("modules are named relative to the script's directory"), "{path}: {error}");
    }
}

#[test]
fn a_linked_directory_of_scripts_works() {
    let real = directory(&[
        ("main.rhai", "import \"a\" as a;\nfn handle(s, e) { emit(a::one()) }"),
        ("a.rhai", "fn one() { 1 }"),
    ]);
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("current");
    std::os::unix::fs::symlink(real.path(), &link).unwrap();
    let script = Script::compile(&link.join("main.rhai"), &serde_json::Map::new(), Options::default()).unwrap();
    assert_eq!(run(&script, &[single("{}")]), "all\n  1\n");
}

#[test]
fn all_problems_of_imports_are_reported_together() {
    check_files(
        &[
            (
                "main.rhai",
                "import \"none\" as n;\nimport \"bad\" as b;\nlet x = \"a\";\nimport x as y;\nfn handle(stream, events) { }",
            ),
            ("bad.rhai", "fn f( { }"),
        ],
        expect![[r#"
            main.rhai:1:8: there is no module `none.rhai` beside the script
               1 | import "none" as n;
                 |        ^
            bad.rhai:1:7: expecting `)` to close the parameters list of function `f`
               1 | fn f( { }
                 |       ^
            main.rhai:4:8: a module name must be a plain string, known before the script runs
               4 | import x as y;
                 |        ^"#]],
    );
}

#[test]
fn r50_files_and_hash_cover_the_modules() {
    let files = [("main.rhai", "import \"a\" as a;\nfn handle(s, e) { a::one() }"), ("a.rhai", "fn one() { }")];
    let directory = directory(&files);
    let compile = || compile_in(&directory, "main.rhai", Options::default()).unwrap();
    let before = compile();
    assert_eq!(before.files(), ["main.rhai", "a.rhai"].map(|name| directory.path().canonicalize().unwrap().join(name)));
    assert_eq!(before.hash(), compile().hash());

    std::fs::write(directory.path().join("a.rhai"), "fn one() { throw 1 }").unwrap();
    assert_ne!(before.hash(), compile().hash());
    // The compiled script still runs its old text.
    assert_eq!(run(&before, &[single("{}")]), "all\n");
}

#[test]
fn an_error_in_a_module_names_its_file() {
    check_files(
        &[
            ("main.rhai", "import \"a\" as a;\nfn handle(stream, events) { a::one() }"),
            ("a.rhai", "fn one() {\n  two()\n}\nfn two() {\n  throw \"here\"\n}"),
        ],
        expect![[r#"
            Transient
              a.rhai:5:3: here (stream `order-1`, index 0, type `OrderPlaced`)
        "#]],
    );
}
