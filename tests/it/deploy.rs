//! The files for operators: independent tools accept them, and they agree with the program.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use propulsiond::config::settings::{DaemonSettings, Listen};
use serde_json::Value;

use crate::daemon::{Daemon, Place, check, program, run};
use crate::tools::{accepts, tool};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the documents of a YAML file.
fn documents(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn manifests() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("deploy/kubernetes")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The page for operators.
const OPERATING: &str = "docs/src/how-to/operate.md";

/// Returns the only object of a kind, or the one of that name.
pub(crate) fn manifest(kind: &str, name: &str) -> Value {
    let all = manifests().into_iter().flat_map(|file| documents(file.to_str().unwrap()));
    let mut found: Vec<_> = all.filter(|object| object["kind"] == kind && object["metadata"]["name"] == name).collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    found.pop().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("`{value}` is no text"))
}

/// The image, as the Dockerfile describes it.
pub(crate) struct Image {
    text: String,
}

impl Image {
    pub(crate) fn read() -> Self {
        Self { text: read("Dockerfile").replace("\\\n", " ") }
    }

    /// Returns the argument of the last instruction of a name: that of the last stage.
    pub(crate) fn last(&self, instruction: &str) -> &str {
        let mut lines = self.text.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
        lines.next_back().unwrap_or_else(|| panic!("the Dockerfile has no {instruction}")).trim()
    }

    fn variables(&self) -> Vec<(String, String)> {
        let pairs = self.last("ENV").split_whitespace().map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Returns the settings that the program has in the image.
    fn settings(&self) -> DaemonSettings {
        let variables = self.variables().into_iter().map(|(name, value)| (name.into(), value.into()));
        DaemonSettings::load(None, variables, &Default::default()).unwrap()
    }

    fn address(&self) -> SocketAddr {
        let Listen::At(address) = self.settings().listen else { panic!("it listens nowhere") };
        address
    }
}

#[test]
fn hadolint_accepts_the_dockerfile() {
    let Some(mut hadolint) = tool("hadolint") else { return };
    accepts(hadolint.current_dir(root()).arg("Dockerfile"));
}

#[test]
fn the_image_agrees_with_the_program() {
    let image = Image::read();
    let (address, settings) = (image.address(), image.settings());
    assert!(address.ip().is_unspecified(), "it must be reached from outside of the container");
    let Listen::At(default) = DaemonSettings::default().listen else { panic!() };
    assert_eq!(address.port(), default.port());
    assert_eq!(image.last("EXPOSE"), address.port().to_string());
    assert_eq!(Path::new(image.last("VOLUME")), settings.data_dir());
    assert_eq!(image.last("ARG"), format!("VERSION={}", env!("CARGO_PKG_VERSION")));
    let (user, group) = image.last("USER").split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    let rust = format!("rust:{}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(image.text.contains(&format!("FROM {rust}-")), "the compiler is not {rust}");
    check(&run(program().args(["health", "--help"])), 0, &["Show the health"]);
    // A file that is not sent to the builder cannot be copied.
    let sent = read(".dockerignore");
    for line in image.text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, sources @ .., _] = &words[..] else { panic!("{line}") };
        for source in sources {
            assert!(
                sent.lines().any(|line| line.strip_prefix('!') == Some(source)),
                "`{source}` is not in .dockerignore"
            );
        }
    }
}

#[test]
fn the_image_runs_the_sample_without_privileges_on_a_read_only_root() {
    let Some(buildah) = tool("buildah") else { return };
    let mut command = std::process::Command::new(root().join("deploy/image-check"));
    command.arg(env!("CARGO_BIN_EXE_propulsiond")).env("BUILDAH", buildah.get_program());
    let said = accepts(&mut command);
    assert!(said.ends_with("== the image is as it should be\n"), "{said}");
}

#[test]
fn kubernetes_accepts_every_manifest() {
    let Some(mut validate) = tool("kubernetes-validate") else { return };
    let said = accepts(validate.arg("--strict").args(manifests()));
    let objects: usize = manifests().iter().map(|file| documents(file.to_str().unwrap()).len()).sum();
    assert_eq!(said.matches(" passed for resource ").count(), objects, "{said}");
}

#[test]
fn the_manifests_agree_with_the_image_and_with_each_other() {
    let image = Image::read();
    let deployment = manifest("Deployment", "propulsiond");
    let (spec, pod) = (&deployment["spec"], &deployment["spec"]["template"]["spec"]);
    assert_eq!(spec["strategy"]["type"], "Recreate", "the data directory has one owner");
    assert_eq!(pod["enableServiceLinks"], false);
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > DaemonSettings::default().drain.as_secs());
    let user = format!("{}:{}", pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]);
    assert_eq!(user, image.last("USER"));
    assert_eq!(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsGroup"]);

    let [container] = list(&pod["containers"]) else { panic!("one container") };
    assert_eq!(container["image"], format!("propulsiond:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(container["ports"][0]["containerPort"], image.address().port());
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let annotations = &spec["template"]["metadata"]["annotations"];
    assert_eq!(text(&annotations["prometheus.io/port"]), image.address().port().to_string());
    let service = manifest("Service", "propulsiond");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    for selector in [
        &spec["selector"]["matchLabels"],
        &service["spec"]["selector"],
        &manifest("PodDisruptionBudget", "propulsiond")["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(*selector, spec["template"]["metadata"]["labels"]);
    }

    let mut declared = BTreeSet::new();
    for volume in list(&pod["volumes"]) {
        declared.insert(text(&volume["name"]));
        let named = [
            ("PersistentVolumeClaim", &volume["persistentVolumeClaim"]["claimName"]),
            ("ConfigMap", &volume["configMap"]["name"]),
            ("Secret", &volume["secret"]["secretName"]),
        ];
        for (kind, name) in named.into_iter().filter(|(_, name)| name.is_string()) {
            manifest(kind, text(name));
        }
    }
    let mounts = list(&container["volumeMounts"]);
    assert_eq!(mounts.iter().map(|mount| text(&mount["name"])).collect::<BTreeSet<_>>(), declared);
    let mounted = |name: &str| text(&mounts.iter().find(|mount| mount["name"] == name).unwrap()["mountPath"]);
    let directory = Path::new(image.last("WORKDIR"));
    assert_eq!(Path::new(mounted("data")), image.settings().data_dir());
    assert_eq!(Path::new(mounted("pipelines")), directory.join("pipelines"));
    assert_eq!(Path::new(mounted("settings")), directory.join("config"));
    let settings = manifest("ConfigMap", "propulsiond-settings");
    let settings = text(&settings["data"]["propulsiond.toml"]);
    for key in manifest("Secret", "propulsiond")["stringData"].as_object().unwrap().keys() {
        assert!(settings.contains(&format!("${{file:{}/{key}}}", mounted("secrets"))), "nobody reads `{key}`");
    }
}

/// Writes a ConfigMap as Kubernetes mounts it: each file is a link into a directory, and that is a link as well.
fn mount(config_map: &str, at: &Path, change: impl Fn(&str) -> String) {
    let map = manifest("ConfigMap", config_map);
    let version = at.join("..2026_11_24_08_00_00.17");
    fs::create_dir_all(&version).unwrap();
    std::os::unix::fs::symlink(version.file_name().unwrap(), at.join("..data")).unwrap();
    for (key, content) in map["data"].as_object().unwrap() {
        fs::write(version.join(key), change(text(content))).unwrap();
        std::os::unix::fs::symlink(Path::new("..data").join(key), at.join(key)).unwrap();
    }
}

#[test]
fn the_pipelines_of_the_config_map_run_as_kubernetes_mounts_them() {
    let place = Place::new(&[]);
    let secrets = place.path("secrets");
    mount("propulsiond-pipelines", &place.path("pipelines"), str::to_owned);
    mount("propulsiond-settings", &place.path("config"), |text| {
        text.replace("/run/secrets/propulsiond", secrets.to_str().unwrap())
    });
    fs::create_dir(&secrets).unwrap();
    let secret = manifest("Secret", "propulsiond");
    fs::write(secrets.join("http-token"), text(&secret["stringData"]["http-token"])).unwrap();
    let refused = place.run(&["--until-tail"]);
    check(&refused, 2, &["the token is empty", "config/propulsiond.toml:"]);

    fs::write(secrets.join("http-token"), "4711\n").unwrap();
    check(&run(program().arg("check").current_dir(place.path(""))), 0, &["no problems found"]);
    let daemon = Daemon::start_unheard(place.bare_command(&["--listen", "127.0.0.1:0"]));
    let line = daemon.wait_for("serving metrics and health");
    let line: Value = serde_json::from_str(&line).unwrap();
    let daemon = daemon.at(text(&line["address"]));
    let deployment = manifest("Deployment", "propulsiond");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        daemon.until(text(&container[probe]["httpGet"]["path"]), |status, _| status == 200);
    }
    let headers = [("content-type", "application/json"), ("authorization", "Bearer 4711")];
    let event = r#"{"stream":"a-1","index":0,"type":"A","timestamp":"2026-11-24T08:00:00Z","data":{}}"#;
    let (status, body) = daemon.request("POST /pipelines/inbox/events", &headers, event);
    assert_eq!(status, 202, "{body}");
    daemon.until("/metrics", |_, page| crate::daemon::handled(page, "inbox") == 1);
    let (code, said) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    let database = rusqlite::Connection::open(place.path("data/inbox.db")).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let seen: (String, String, i64) = database.query_row("SELECT day, type, events FROM seen", [], row).unwrap();
    assert_eq!(seen, ("2026-11-24".to_owned(), "A".to_owned(), 1));
}

#[test]
fn compose_agrees_with_the_image_and_with_prometheus() {
    if let Some(mut check_jsonschema) = tool("check-jsonschema") {
        accepts(
            check_jsonschema
                .args(["--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"])
                .current_dir(root()),
        );
    }
    let image = Image::read();
    let compose = documents("deploy/compose.yaml").pop().unwrap();
    let service = &compose["services"]["propulsiond"];
    let port = image.address().port();
    assert_eq!(service["ports"][0], format!("127.0.0.1:{port}:{port}"));
    assert_eq!(Path::new(text(&service["volumes"][0])), Path::new(&format!("data:{}", image.last("VOLUME"))));
    let grace = humantime::parse_duration(text(&service["stop_grace_period"])).unwrap();
    assert!(grace > DaemonSettings::default().drain, "it is killed while it drains");
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
    }
    let prometheus = documents("deploy/prometheus/prometheus.yaml").pop().unwrap();
    assert_eq!(prometheus["scrape_configs"][0]["static_configs"][0]["targets"][0], format!("propulsiond:{port}"));
    let job = text(&prometheus["scrape_configs"][0]["job_name"]);
    assert!(read("deploy/prometheus/alerts.yaml").contains(&format!("up{{job=\"{job}\"}}")));
}

#[test]
fn the_operators_page_names_every_state_and_every_health() {
    let page = read(OPERATING);
    for state in propulsiond::telemetry::health::State::ALL {
        assert!(page.contains(&format!("`{state}`")), "{state}");
    }
    for health in ["healthy", "degraded", "failed"] {
        assert!(page.contains(&format!("`{health}`")), "{health}");
    }
}

/// Returns the names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    words.filter(|word| word.starts_with("propulsion_") || word.starts_with("propulsiond_")).collect()
}

#[test]
fn r11_every_alert_has_tests_and_uses_existing_metrics() {
    let alerts = documents("deploy/prometheus/alerts.yaml").pop().unwrap();
    let rules = list(&alerts["groups"][0]["rules"]);
    assert!(rules.iter().any(|rule| rule["alert"] == "PropulsiondCheckpointStuck"));
    let tests = documents("deploy/prometheus/alerts.test.yaml").pop().unwrap();
    let cases: Vec<_> = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])).collect();
    let page = read(OPERATING);
    for rule in rules {
        let name = text(&rule["alert"]);
        let of_it = || cases.iter().filter(|case| case["alertname"] == name);
        assert!(of_it().any(|case| !list(&case["exp_alerts"]).is_empty()), "no test lets {name} fire");
        assert!(of_it().any(|case| list(&case["exp_alerts"]).is_empty()), "no test keeps {name} quiet");
        assert!(page.contains(&format!("`{name}`")), "{OPERATING} does not say what to do about {name}");
        assert!(["page", "ticket"].contains(&text(&rule["labels"]["severity"])), "{name}");
    }
    let golden = read("tests/it/metrics.golden");
    for file in ["deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts.test.yaml", OPERATING] {
        for metric in metrics_in(&read(file)) {
            assert!(golden.contains(&format!("# TYPE {metric} ")), "{file}: there is no metric `{metric}`");
        }
    }
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests() {
    for arguments in [
        ["check", "config", "prometheus.yaml"],
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts.test.yaml"],
    ] {
        let Some(mut promtool) = tool("promtool") else { return };
        accepts(promtool.args(arguments).current_dir(root().join("deploy/prometheus")));
    }
}

/// Returns the values that a unit gives to a key.
fn of_unit<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_agrees_with_the_program() {
    let unit = read("deploy/propulsiond.service");
    let [command] = of_unit(&unit, "ExecStart")[..] else { panic!("one command") };
    let mut words = command.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    words.push("--help".to_owned());
    check(&run(program().args(words)), 0, &["Usage"]);
    let variables: Vec<_> =
        of_unit(&unit, "Environment").into_iter().map(|pair| pair.split_once('=').unwrap()).collect();
    let settings = DaemonSettings::load(
        None,
        variables.iter().map(|(name, value)| (name.into(), value.into())),
        &Default::default(),
    );
    let state = Path::new("/var/lib").join(of_unit(&unit, "StateDirectory")[0]);
    assert_eq!(settings.unwrap().data_dir(), state);
    let stop = humantime::parse_duration(of_unit(&unit, "TimeoutStopSec")[0]).unwrap();
    assert!(stop > DaemonSettings::default().drain, "it is killed while it drains");
}

#[test]
fn systemd_accepts_the_unit_and_its_confinement() {
    let place = Place::new(&[]);
    let file = place.path("propulsiond.service");
    let unit = read("deploy/propulsiond.service");
    // The unit must name an existing program.
    let program = format!("ExecStart={}", env!("CARGO_BIN_EXE_propulsiond"));
    fs::write(&file, unit.replace("ExecStart=propulsiond", &program)).unwrap();
    for arguments in [&["verify"][..], &["security", "--offline=true", "--no-pager", "--threshold=15"]] {
        let Some(mut analyze) = tool("systemd-analyze") else { return };
        accepts(analyze.args(arguments).arg(&file));
    }
}
