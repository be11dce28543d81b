use std::ffi::OsString;

use expect_test::{Expect, expect};

use super::*;
use crate::config::document::Style;

fn load(file: Option<&str>, variables: &[(&str, &str)], flags: &Flags) -> Result<DaemonSettings, Vec<Problem>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("propulsiond.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    DaemonSettings::load(Some(&path), variables, flags)
}

/// Says how the settings differ from the defaults.
fn check(file: &str, variables: &[(&str, &str)], flags: &Flags, expected: Expect) {
    let settings = load(Some(file), variables, flags).unwrap();
    let lines =
        |settings: &DaemonSettings| toml::to_string(settings).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let defaults = lines(&DaemonSettings::default());
    let changed: Vec<_> = lines(&settings).into_iter().filter(|line| !defaults.contains(line)).collect();
    expected.assert_eq(&changed.join("\n"));
}

fn check_bad(file: &str, variables: &[(&str, &str)], flags: &Flags, expected: Expect) {
    let problems = load(Some(file), variables, flags).unwrap_err();
    let shown: String = problems
        .into_iter()
        .map(|problem| {
            let name = problem.file.file_name().map_or_else(|| problem.file.clone(), PathBuf::from);
            Problem { file: name, ..problem }.render(Style::Plain)
        })
        .collect();
    expected.assert_eq(&shown);
}

#[test]
fn later_layers_win() {
    let flags = Flags { listen: Some("off".to_owned()), ..Flags::default() };
    let variables =
        [("PROPULSIOND__DRAIN", "7s"), ("PROPULSIOND__LISTEN", "0.0.0.0:1"), ("PROPULSIOND_SERVICE_HOST", "x")];
    check(
        "drain = '5s'\ndata_dir = 'd'\n[log]\nformat = 'json'",
        &variables,
        &flags,
        expect![[r#"
        listen = "off"
        data_dir = "d"
        drain = "7s"
        format = "json""#]],
    );
}

#[test]
fn r63_a_token_is_never_shown_and_may_be_digits() {
    let settings = load(None, &[("PROPULSIOND__HTTP__TOKEN", "12345")], &Flags::default()).unwrap();
    assert_eq!(settings.http.token.as_ref().unwrap().expose(), "12345");
    assert!(!format!("{settings:?}{}", toml::to_string(&settings).unwrap()).contains("12345"));
}

#[test]
fn the_shipped_file_shows_every_default() {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/propulsiond.toml")).unwrap();
    let uncommented: String = shipped
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
        .collect();
    let shown: toml::Table = uncommented.parse().unwrap();
    let mut defaults = toml::Table::try_from(DaemonSettings::default()).unwrap();
    // A secret has no default; its line shows how one is given.
    let token = toml::Table::from_iter([("token".to_owned(), "${file:/run/secrets/propulsiond-token}".into())]);
    defaults.insert("http".to_owned(), token.into());
    // Nor has a collector.
    defaults["otlp"].as_table_mut().unwrap().insert("endpoint".to_owned(), "http://127.0.0.1:4318".into());
    assert_eq!(shown, defaults);
    assert_eq!(
        load(Some(&shipped), &[], &Flags::default()).unwrap(),
        DaemonSettings::default(),
        "all of it is commented out"
    );
}

#[test]
fn r59_mistakes_of_the_file_name_their_place() {
    check_bad(
        "listn = 'off'\ndrain = 25\n[log]\nformat = 'jsn'\nlevel = 3\n",
        &[],
        &Flags::default(),
        expect![[r#"
            error: unknown key `listn`
             --> propulsiond.toml:1:1
              |
            1 | listn = 'off'
              | ^^^^^ listn
              |
              = help: did you mean `listen`?
            error: expected a duration such as "5s", found the number 25
             --> propulsiond.toml:2:9
              |
            2 | drain = 25
              |         ^^ drain
            error: unknown value `jsn`, expected one of `text` or `json`
             --> propulsiond.toml:4:10
              |
            4 | format = 'jsn'
              |          ^^^^^ log.format
              |
              = help: did you mean `json`?
            error: expected a string, found a number
             --> propulsiond.toml:5:9
              |
            5 | level = 3
              |         ^ log.level
              |
              = help: put it in quotes
        "#]],
    );
    check_bad(
        "[log\n",
        &[],
        &Flags::default(),
        expect![[r#"
            error: the name of the table has no closing `]`
             --> propulsiond.toml:1:5
              |
            1 | [log
              |     ^
        "#]],
    );
}

#[test]
fn mistakes_of_the_environment_name_their_variable() {
    for (name, value, expected) in [
        (
            "PROPULSIOND__LOG__LEVL",
            "debug",
            expect![[r#"
                error: no setting has this name
                --> PROPULSIOND__LOG__LEVL
                 = help: did you mean `PROPULSIOND__LOG__LEVEL`?
            "#]],
        ),
        (
            "PROPULSIOND__DRAIN",
            "soon",
            expect![[r#"
                error: `soon` is not a duration such as "5s", "250ms" or "1h 30m"
                --> PROPULSIOND__DRAIN
            "#]],
        ),
        (
            "PROPULSIOND__LOG",
            "debug",
            expect![[r#"
                error: expected a section with keys, not a value
                --> PROPULSIOND__LOG
            "#]],
        ),
        (
            "PROPULSIOND__LOG__FORMAT",
            "xml",
            expect![[r#"
                error: expected one of `text` or `json`
                --> PROPULSIOND__LOG__FORMAT
            "#]],
        ),
        (
            "PROPULSIOND__LISTEN",
            "9464",
            expect![[r#"
                error: `9464` is not an address such as "127.0.0.1:9464", nor "off"
                --> PROPULSIOND__LISTEN
            "#]],
        ),
    ] {
        check_bad("", &[(name, value)], &Flags::default(), expected);
    }
}

#[test]
fn a_token_that_is_empty_is_a_mistake_in_a_file_and_in_a_variable() {
    check_bad(
        "[http]\ntoken = \"${PROPULSIOND_TEST_NO_TOKEN:-}\"\n",
        &[],
        &Flags::default(),
        expect![[r#"
            error: the token is empty: leave it out, or set a value that cannot be guessed
             --> propulsiond.toml:2:9
              |
            2 | token = "${PROPULSIOND_TEST_NO_TOKEN:-}"
              |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ http.token
        "#]],
    );
    check_bad(
        "",
        &[("PROPULSIOND__HTTP__TOKEN", " ")],
        &Flags::default(),
        expect![[r#"
            error: the token is empty: leave it out, or set a value that cannot be guessed
            --> PROPULSIOND__HTTP__TOKEN
        "#]],
    );
}

#[test]
fn mistakes_of_flags_name_their_flag() {
    check_bad(
        "",
        &[],
        &Flags { drain: Some("5".to_owned()), ..Flags::default() },
        expect![[r#"
            error: `5` is not a duration such as "5s", "250ms" or "1h 30m"
            --> --drain
        "#]],
    );
}

#[test]
fn a_file_that_was_named_must_exist() {
    let problems = DaemonSettings::load(Some(Path::new("/no/such.toml")), [], &Flags::default()).unwrap_err();
    expect![[r#"
        error: cannot read the file: no such file or directory
        --> /no/such.toml
    "#]]
    .assert_eq(&problems[0].render(Style::Plain));
}

#[cfg(feature = "otlp")]
#[test]
fn traces_are_exported_where_the_settings_say() {
    check(
        "[otlp]\nendpoint = 'https://collector:4318'\nsample = 1\nheaders = { a = '${PATH}' }",
        &[("PROPULSIOND__OTLP__SERVICE_NAME", "shop"), ("PROPULSIOND__OTLP__ATTRIBUTES__TEAM", "blue")],
        &Flags::default(),
        expect![[r#"
            endpoint = "https://collector:4318"
            sample = 1.0
            service_name = "shop"
            a = "${PATH}"
            team = "blue""#]],
    );
    let settings = load(None, &[("PROPULSIOND__OTLP__SAMPLE", "0.5")], &Flags::default()).unwrap();
    assert_eq!(settings.otlp.sample.get(), 0.5);
}

#[cfg(feature = "otlp")]
#[test]
fn mistakes_about_traces_name_their_place() {
    check_bad(
        "[otlp]\nendpoint = 'collector:4318'\nsample = 1.5\nheader = {}\n[log]\nstats_interval = 'never'\n",
        &[],
        &Flags::default(),
        expect![[r#"
            error: `collector:4318` is not a URL such as "http://127.0.0.1:4318"
             --> propulsiond.toml:2:12
              |
            2 | endpoint = 'collector:4318'
              |            ^^^^^^^^^^^^^^^^ otlp.endpoint
            error: 1.5 is not a ratio between 0 and 1, such as 0.01
             --> propulsiond.toml:3:10
              |
            3 | sample = 1.5
              |          ^^^ otlp.sample
            error: unknown key `header`
             --> propulsiond.toml:4:1
              |
            4 | header = {}
              | ^^^^^^ otlp.header
              |
              = help: did you mean `headers`?
            error: `never` is not a duration such as "5s", nor "off"
             --> propulsiond.toml:6:18
              |
            6 | stats_interval = 'never'
              |                  ^^^^^^^ log.stats_interval
        "#]],
    );
}

#[cfg(feature = "otlp")]
#[test]
fn an_endpoint_is_the_collectors_own() {
    check_bad(
        "[otlp]\nendpoint = 'http://127.0.0.1:4318/v1/traces'\n",
        &[],
        &Flags::default(),
        expect![[r#"
            error: `http://127.0.0.1:4318/v1/traces` ends in `/v1/traces`, which is appended: remove it
             --> propulsiond.toml:2:12
              |
            2 | endpoint = 'http://127.0.0.1:4318/v1/traces'
              |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ otlp.endpoint
        "#]],
    );
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_without_traces_says_how_to_build_one_with_them() {
    check_bad(
        "[otlp]\nendpoint = 'http://127.0.0.1:4318'\n",
        &[],
        &Flags::default(),
        expect![[r#"
            error: this build exports no traces: build it with `--features otlp`, or take `[otlp]` out
             --> propulsiond.toml:2:12 (otlp.endpoint)
            2 | endpoint = 'http://127.0.0.1:4318'
              |            ^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[cfg(feature = "otlp")]
#[test]
fn r63_headers_of_the_export_are_never_shown() {
    let file = "[otlp]\nheaders = { authorization = 'planted-secret' }";
    let settings = load(Some(file), &[], &Flags::default()).unwrap();
    assert_eq!(settings.otlp.headers["authorization"].expose(), "planted-secret");
    assert!(!format!("{settings:?}{}", toml::to_string(&settings).unwrap()).contains("planted-secret"));
}
