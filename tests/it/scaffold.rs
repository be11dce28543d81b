//! `propulsiond new`: the created pipelines pass `check` and `test`, and run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::sync::mpsc;

use crate::daemon::{LIMIT, Place, check, program, run};

fn new(place: &Place, arguments: &[&str]) -> Output {
    run(program().arg("new").args(arguments).current_dir(place.path("")))
}

fn bare() -> Place {
    let place = Place::new(&[]);
    std::fs::remove_dir(place.path("pipelines")).unwrap();
    place
}

/// Creates a pipeline, checks and tests it, and runs it with these variables to its tail.
fn check_template(template: &str, variables: &[(&str, &str)]) -> Place {
    check_template_in("toml", template, &[], variables)
}

/// Like [`check_template`], with a pipeline in another format.
fn check_template_in(ending: &str, template: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Place {
    let place = bare();
    let output = new(&place, &[&["shop", "--from", template], arguments].concat());
    let pipeline = &*format!("pipelines/shop.{ending}");
    let created = [pipeline, "pipelines/shop.rhai"].map(|file| format!("created {file} "));
    check(&output, 0, &[&created[0], &created[1], &format!("propulsiond test {pipeline}")]);
    check(&run(program().arg("check").current_dir(place.path(""))), 0, &["no problems found"]);
    check(&run(program().args(["test", pipeline]).current_dir(place.path(""))), 0, &[" passed"]);
    let mut command = program();
    command.args(["--config", pipeline, "--until-tail", "--listen", "off"]).current_dir(place.path(""));
    check(&run(command.envs(variables.iter().copied())), 0, &["finished: 4 events handled"]);
    place
}

#[test]
fn a_pipeline_that_writes_lines_is_created_and_runs() {
    let place = check_template("events", &[]);
    let lines = place.read("data/shop.jsonl");
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.contains("\"carrier\":\"UPS\""), "{lines}");
}

#[test]
fn a_pipeline_in_yaml_is_created_and_runs() {
    let place = check_template_in("yaml", "events", &["--yaml"], &[]);
    assert_eq!(place.read("data/shop.jsonl").lines().count(), 3);
    assert!(place.path("pipelines/shop.test.yaml").is_file());
}

#[test]
fn a_projection_is_created_and_runs() {
    let place = check_template("projection", &[]);
    let database = rusqlite::Connection::open(place.path("data/shop.db")).unwrap();
    let mut statement = database.prepare("SELECT id || ' ' || status FROM orders ORDER BY id").unwrap();
    let rows: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, ["1 shipped", "2 placed"]);
}

#[test]
fn a_webhook_is_created_and_runs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (said, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer_all(stream.unwrap(), &said);
        }
    });
    check_template("webhook", &[("WEBHOOK_URL", &url)]);
    let mut arrived: Vec<String> = (0..2).map(|_| bodies.recv_timeout(LIMIT).unwrap()).collect();
    arrived.sort();
    assert_eq!(arrived, [r#"{"text":"order 1 of Ada was placed"}"#, r#"{"text":"order 2 of Grace was placed"}"#]);
}

/// Answers each request with success.
fn answer_all(stream: std::net::TcpStream, said: &mpsc::Sender<String>) {
    let said = said.clone();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        loop {
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if length == 0 || reader.read_exact(&mut body).is_err() {
                return;
            }
            said.send(String::from_utf8(body).unwrap()).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
}

#[test]
fn an_existing_file_is_named_and_not_overwritten() {
    let place = Place::new(&[("shop.yaml", "mine"), ("shop.rhai", "mine")]);
    let output = new(&place, &["shop"]);
    check(&output, 2, &["pipelines/shop.yaml", "pipelines/shop.rhai", "not overwritten"]);
    assert_eq!(std::fs::read_dir(place.path("pipelines")).unwrap().count(), 2);
    assert_eq!(place.read("pipelines/shop.rhai"), "mine");
    check(&new(&place, &["Shop!"]), 2, &["`Shop!`", "at most 64 letters"]);
}

#[test]
fn json_output_lists_the_created_files() {
    let place = bare();
    let output = new(&place, &["shop", "--config", "mine", "--json"]);
    check(&output, 0, &[]);
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for made in made["made"].as_array().unwrap() {
        assert!(place.path(made["path"].as_str().unwrap()).is_file(), "{made}");
    }
    assert_eq!(made["made"].as_array().unwrap().len(), 4);
}
