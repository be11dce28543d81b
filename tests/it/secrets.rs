//! R63: no output shows a secret, on success and on every error.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::daemon::{Daemon, program, run};

/// The planted secrets, each at another place. No output may show one.
const SECRETS: [&str; 7] =
    ["hush-variable", "hush-file", "hush-bearer", "hush-header", "hush-user", "hush-proxy", "hush-token"];

/// Every command that reads pipeline files. A new one is a line here.
const COMMANDS: [&[&str]; 9] = [
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

/// A directory with one pipeline, `pipelines/p.toml`, and secrets at every place that can hold one.
struct Planted {
    directory: tempfile::TempDir,
}

impl Planted {
    fn new(pipeline: &str) -> Self {
        let planted = Self { directory: tempfile::tempdir().unwrap() };
        planted.write("pipelines/p.toml", pipeline);
        planted.write("pipelines/events.jsonl", "{\"stream\":\"a-1\",\"index\":0,\"type\":\"A\",\"data\":{}}\n");
        planted.write("pipelines/secret", "hush-file\n");
        planted.write("config/propulsiond.toml", "[http]\ntoken = \"hush-token\"\n");
        planted
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).current_dir(self.directory.path()).env_clear().stdin(Stdio::null());
        command.env("VARIABLE", "hush-variable");
        command
    }

    /// Returns the output of a command that runs to its end.
    fn output(&self, arguments: &[&str]) -> String {
        let Output { stdout, stderr, status } = run(&mut self.command(arguments));
        let text = |bytes| String::from_utf8(bytes).expect("all output is UTF-8");
        let output = format!("{}{}", text(stdout), text(stderr));
        assert!(matches!(status.code(), Some(0..=4)), "{status}: {output}");
        output
    }
}

fn sink(more: &str) -> String {
    format!(
        "[source.json]\npath = \"events.jsonl\"\n[sink.http]\nurl = \"http://127.0.0.1:9/${{VARIABLE}}\"\n\
         proxy = \"http://u:hush-proxy@127.0.0.1:9\"\nheaders = {{ X-Api-Key = \"hush-header\", X-File = \"${{file:secret}}\" }}\n\
         auth = {{ bearer = \"hush-bearer\" }}\n{more}"
    )
}

fn assert_hidden(output: &str, origin: &str) {
    for secret in SECRETS {
        assert!(!output.contains(secret), "`{secret}` is shown by {origin}:\n{output}");
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
fn r63_an_error_beside_a_secret_does_not_show_it() {
    let url = "[source.memory]\n[sink.http]\nurl = \"http://name:hush-user@127.0.0.1:9/\"\n";
    for text in [sink(""), url.to_owned()].iter().flat_map(|text| broken(text)) {
        assert_hidden(&Planted::new(&text).output(&["check"]), &format!("check of\n{text}\n"));
    }
    for text in broken("[http]\ntoken = \"hush-token\"\n") {
        let planted = Planted::new(&sink(""));
        planted.write("config/propulsiond.toml", &text);
        assert_hidden(&planted.output(&["check"]), &text);
    }
}

#[test]
fn r63_no_command_shows_a_secret() {
    for command in COMMANDS {
        assert_hidden(&Planted::new(&sink("")).output(command), &command.join(" "));
    }
}

#[test]
fn r63_no_log_metric_or_answer_shows_a_secret() {
    for format in ["text", "json"] {
        let planted = Planted::new(&sink("[errors]\nretry = { initial = \"1ms\", attempts = 3 }\n"));
        let arguments = ["--listen", "127.0.0.1:0", "--log-level", "trace", "--log-format", format];
        let daemon = Daemon::start(planted.command(&arguments));
        let token = [("authorization", "Bearer hush-token")];
        let health = daemon.until("/health", |_, body| body.contains("has been unavailable for"));
        assert_hidden(&health, "/health");
        for path in ["/metrics", "/version", "/readyz", "/livez", "/pipelines", "/pipelines/p", "/pipelines/other"] {
            let (_, body) = daemon.request(&format!("GET {path}"), &token, "");
            assert_hidden(&body, path);
        }
        let heard = daemon.heard();
        let (code, output) = daemon.stop("TERM");
        assert_eq!(code, Some(0), "{output}");
        assert!(heard.contains("serving"), "{heard}");
        assert_hidden(&format!("{heard}{output}"), &format!("{format} logs"));
    }
}
