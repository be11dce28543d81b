//! The settings that the modules' documentation shows.

use propulsiond::connector::{file, http, null, stats, stdout};
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
