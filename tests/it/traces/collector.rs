//! A listener that keeps its requests, and a reader of OTLP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use super::protobuf::{all, one};

/// A request that arrived.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Returns a header's value, empty if it is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

#[derive(Default)]
struct State {
    requests: Mutex<Vec<Request>>,
    status: AtomicU16,
}

pub(super) struct Collector {
    pub(super) url: String,
    state: Arc<State>,
}

impl Collector {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { status: AtomicU16::new(200), ..State::default() });
        let shared = Arc::clone(&state);
        // It ends with the tests' process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, shared) = (connection.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || serve(connection, &shared));
            }
        });
        Self { url, state }
    }

    /// Sets the status of the answers from here on.
    pub(super) fn answer(&self, status: u16) {
        self.state.status.store(status, Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

fn serve(connection: TcpStream, state: &State) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    while let Some(request) = read_request(&mut reader) {
        state.requests.lock().unwrap().push(request);
        let status = state.status.load(Ordering::Relaxed);
        if write!(writer, "HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&read| read > 0).map(|_| line.trim_end().to_owned())
    };
    let path = line()?.split(' ').nth(1).unwrap().to_owned();
    let mut headers = Vec::new();
    while let Some((name, value)) = line()?.split_once(':') {
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { path, headers, body: Vec::new() };
    let length = request.header("content-length").parse().unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// The tested parts of a span.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) state: String,
    pub(super) name: String,
    kind: u64,
    pub(super) began: u64,
    pub(super) ended: u64,
    attributes: Vec<String>,
    links: usize,
    failed: Option<String>,
}

impl Span {
    /// Writes the parts that are equal in every run.
    pub(super) fn show(&self) -> String {
        let kind = ["unspecified", "internal", "server", "client", "producer", "consumer"][self.kind as usize];
        let attributes: Vec<_> =
            self.attributes.iter().filter(|attribute| !attribute.starts_with("server.port=")).cloned().collect();
        let mut shown = format!("{} ({kind}) {}", self.name, attributes.join(" "));
        if self.links > 0 {
            shown.push_str(&format!(" links={}", self.links));
        }
        if let Some(why) = &self.failed {
            // Messages name the address, whose port differs between runs.
            let why: String =
                why.split("127.0.0.1:").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect();
            shown.push_str(&format!(" failed: {why}"));
        }
        shown.trim_end().to_owned()
    }
}

/// Reads requests of OTLP: the attributes of the resource, and all spans.
pub(super) fn read(requests: &[Request]) -> (String, Vec<Span>) {
    let mut resource = String::new();
    let mut spans = Vec::new();
    for request in requests {
        for of_resource in all(&request.body, 1) {
            let of_resource = of_resource.bytes();
            resource = attributes(one(of_resource, 1).unwrap().bytes(), 1).join(" ");
            for of_scope in all(of_resource, 2) {
                spans.extend(all(of_scope.bytes(), 2).iter().map(|span| read_span(span.bytes())));
            }
        }
    }
    (resource, spans)
}

fn read_span(span: &[u8]) -> Span {
    let text = |field| one(span, field).map(|value| value.text()).unwrap_or_default();
    let hex = |field| {
        one(span, field).map_or_else(String::new, |value| value.bytes().iter().map(|b| format!("{b:02x}")).collect())
    };
    let number = |field| one(span, field).map_or(0, |value| value.number());
    let status = one(span, 15).map(|value| value.bytes());
    Span {
        trace: hex(1),
        id: hex(2),
        parent: hex(4),
        state: text(3),
        name: text(5),
        kind: number(6),
        began: number(7),
        ended: number(8),
        attributes: attributes(span, 9),
        links: all(span, 13).len(),
        // Status code 2 is an error.
        failed: status
            .filter(|status| one(status, 3).is_some_and(|code| code.number() == 2))
            .map(|status| one(status, 2).map(|message| message.text()).unwrap_or_default()),
    }
}

/// Returns attributes as `name=value`, by name.
fn attributes(message: &[u8], field: u64) -> Vec<String> {
    let show = |pair: &[u8]| {
        let value = one(pair, 2).unwrap().bytes();
        let value = match (one(value, 1), one(value, 3)) {
            (Some(text), _) => format!("{:?}", text.text()),
            (_, Some(number)) => number.number().to_string(),
            _ => panic!("neither text nor a number: {value:?}"),
        };
        format!("{}={value}", one(pair, 1).unwrap().text())
    };
    let mut shown: Vec<_> = all(message, field).iter().map(|pair| show(pair.bytes())).collect();
    shown.sort();
    shown
}
