//! R63: what is secret is shown nowhere, whatever goes wrong.

use expect_test::expect;

use super::{Case, check, run, said};
use crate::daemon::Daemon;

/// What nobody may ever see. Each stands at another place.
const SECRETS: [&str; 7] =
    ["hush-variable", "hush-file", "hush-bearer", "hush-header", "hush-user", "hush-proxy", "hush-token"];

/// Every verb that reads files. A new one is a line here.
const VERBS: [&[&str]; 9] = [
    &["check"],
    &["check", "--json"],
    &["check", "--allow-missing-env"],
    &["test"],
    &["test", "--json"],
    &["doctor"],
    &["doctor", "--json"],
    &["explain", "p"],
    &["explain", "p", "--json"],
];

fn sink(more: &str) -> String {
    format!(
        "[source.json]\npath = \"events.jsonl\"\n[sink.http]\nurl = \"http://127.0.0.1:9/${{VARIABLE}}\"\n\
         proxy = \"http://u:hush-proxy@127.0.0.1:9\"\nheaders = {{ X-Api-Key = \"hush-header\", X-File = \"${{file:secret}}\" }}\n\
         auth = {{ bearer = \"hush-bearer\" }}\n{more}"
    )
}

fn planted(pipeline: &str) -> Case {
    Case::toml(pipeline)
        .and("secret", "hush-file\n")
        .and("config/propulsiond.toml", "[http]\ntoken = \"hush-token\"\n")
        .variable("VARIABLE", "hush-variable")
}

fn assert_hidden(said: &str, where_from: &str) {
    for secret in SECRETS {
        assert!(!said.contains(secret), "`{secret}` is shown by {where_from}:\n{said}");
    }
}

/// Breaks every line of a file in several ways.
fn broken(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let breaks = [
            format!("{line} x"),
            format!("x{line}"),
            line.replace('"', ""),
            line.replacen('"', "", 1),
            line.replace(" = ", " = 5 "),
            line.replace(" = \"", " = [\"").replace("\"\n", "\"]\n"),
            line.replace("auth = { bearer", "auth = { baerer"),
            format!("{line}\n{line}"),
        ];
        for replacement in breaks.iter().filter(|replacement| replacement != line) {
            let mut all = lines.clone();
            all[number] = replacement;
            found.push(all.join("\n"));
        }
    }
    found
}

#[test]
fn r63_no_mistake_beside_a_secret_shows_it() {
    let url = "[source.memory]\n[sink.http]\nurl = \"http://name:hush-user@127.0.0.1:9/\"\n";
    for text in [sink(""), url.to_owned()].iter().flat_map(|text| broken(text)) {
        let case = planted(&text);
        assert_hidden(&case.run(), &format!("check of\n{text}\n"));
    }
    for text in broken("[http]\ntoken = \"hush-token\"\n") {
        assert_hidden(&planted(&sink("")).and("config/propulsiond.toml", &text).run(), &text);
    }
}

#[test]
fn r63_no_verb_shows_a_secret() {
    for verb in VERBS {
        let case = planted(&sink("")).arguments(verb);
        let output = run(&mut case.command());
        assert!(matches!(output.status.code(), Some(0..=4)), "{output:?}");
        assert_hidden(&said(&output), &verb.join(" "));
    }
}

#[test]
fn r63_no_log_metric_or_answer_shows_a_secret() {
    for format in ["text", "json"] {
        let case = planted(&sink("[errors]\nretry = { initial = \"1ms\", attempts = 3 }\n"));
        let arguments = ["--listen", "127.0.0.1:0", "--log-level", "trace", "--log-format", format];
        let case = case.arguments(&arguments);
        let daemon = Daemon::start(case.command());
        let token = [("authorization", "Bearer hush-token")];
        let health = daemon.until("/health", |_, body| body.contains("could not be reached"));
        assert_hidden(&health, "/health");
        for path in ["/metrics", "/version", "/readyz", "/livez", "/pipelines", "/pipelines/p", "/pipelines/nobody"] {
            let (_, body) = daemon.request(&format!("GET {path}"), &token, "");
            assert_hidden(&body, path);
        }
        let heard = daemon.heard();
        let (code, said) = daemon.stop("TERM");
        assert_eq!(code, Some(0), "{said}");
        assert!(heard.contains("serving"), "{heard}");
        assert_hidden(&format!("{heard}{said}"), &format!("{format} logs"));
    }
}

#[test]
fn secrets_in_clear_are_advised_against() {
    check(
        planted(&sink("")),
        expect![[r#"
        exit 0
        warning: a secret is written in clear
         --> config/propulsiond.toml:2:9 (http.token)
        2 | token = "**********"
          |         ^^^^^^^^^^^^
          = help: keep it outside of the file: `${NAME}` for a variable, `${file:/run/secrets/name}` for a file

        warning: a secret is written in clear
         --> pipelines/p.toml:5:9 (sink.http.proxy)
        5 | proxy = "http://u:**********@127.0.0.1:9"
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          = help: keep it outside of the file: `${NAME}` for a variable, `${file:/run/secrets/name}` for a file

        warning: a secret is written in clear
         --> pipelines/p.toml:6:25 (sink.http.headers.X-Api-Key)
        6 | headers = { X-Api-Key = "***********", X-File = "${file:secret}" }
          |                         ^^^^^^^^^^^^^
          = help: keep it outside of the file: `${NAME}` for a variable, `${file:/run/secrets/name}` for a file

        warning: a secret is written in clear
         --> pipelines/p.toml:7:19 (sink.http.auth.bearer)
        7 | auth = { bearer = "***********" }
          |                   ^^^^^^^^^^^^^
          = help: keep it outside of the file: `${NAME}` for a variable, `${file:/run/secrets/name}` for a file
    "#]],
    );
}
