//! The settings that the modules' documentation shows.

use std::path::Path;

use propulsiond::connector::{CheckpointSpec, SinkSpec, SourceSpec, file, http, null, stats, stdout};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Reads the settings shown in a module's documentation.
fn shown<T: DeserializeOwned>(source: &str, kind: &str) -> T {
    let docs: String =
        source.lines().map_while(|line| line.strip_prefix("//!")).flat_map(|line| [line, "\n"]).collect();
    let sample = docs.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("a sample");
    let spec: toml::Table = toml::from_str(sample).unwrap();
    spec["sink"][kind].clone().try_into().unwrap()
}

macro_rules! shown {
    ($kind:ident) => {
        shown!($kind, $kind::Settings, concat!(stringify!($kind), ".rs"))
    };
    ($kind:ident, $settings:ty, $file:expr) => {
        shown::<$settings>(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/connector/", $file)),
            stringify!($kind),
        )
    };
}

#[test]
fn they_can_be_read_and_show_the_defaults() {
    assert_eq!(shown!(null), null::Settings::default());
    assert_eq!(shown!(stdout), stdout::Settings::default());
    assert_eq!(shown!(stats), stats::Settings::default());
    let file = shown!(file, file::sink::Settings, "file/sink.rs");
    assert_eq!(file::sink::Settings { path: None, ..file }, file::sink::Settings::default());
    let http = shown!(http);
    let default = http::Settings::default();
    assert_eq!(
        (http.per, http.method, http.timeout, http.connect_timeout, http.permanent, http.max_body),
        (default.per, default.method, default.timeout, default.connect_timeout, default.permanent, default.max_body)
    );
}

#[test]
fn an_unknown_setting_is_refused() {
    for text in ["formt = \"json\"", "format = \"xml\""] {
        assert!(toml::from_str::<stdout::Settings>(text).is_err());
        assert!(toml::from_str::<file::sink::Settings>(text).is_err());
    }
    for text in ["uri = \"http://h\"", "per = \"batch\"", "auth = { token = \"x\" }", "timeout = 5"] {
        assert!(toml::from_str::<http::Settings>(text).is_err(), "{text}");
    }
    assert!(toml::from_str::<null::Settings>("x = 1").is_err());
    assert!(toml::from_str::<stats::Settings>("interval = \"soon\"").is_err());
}

/// The tables of connectors in a sample.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    source: Option<SourceSpec>,
    checkpoint: Option<CheckpointSpec>,
    sink: Option<SinkSpec>,
}

/// Reads the samples in the documentation of a connector's module and of those below it. Returns their number.
fn read_samples(path: &Path) -> usize {
    if path.is_dir() {
        return std::fs::read_dir(path).unwrap().map(|entry| read_samples(&entry.unwrap().path())).sum();
    }
    let source = std::fs::read_to_string(path).unwrap();
    let docs = source.lines().map_while(|line| line.strip_prefix("//!"));
    let docs: String = docs.flat_map(|line| [line.strip_prefix(' ').unwrap_or(line), "\n"]).collect();
    let samples = docs.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let read = samples.map(|sample| {
        let read: Sample = toml::from_str(sample).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(read.source.is_some() || read.checkpoint.is_some() || read.sink.is_some(), "{}", path.display());
    });
    read.count()
}

#[test]
fn every_sample_in_the_documentation_of_a_connector_can_be_read() {
    let connectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/connector");
    assert!(read_samples(&connectors) >= 5, "the samples were found");
}
