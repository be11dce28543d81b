//! An HTTP server that records its requests, with scripted answers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The answer to a request.
#[derive(Clone)]
pub(crate) enum Reply {
    Status(u16),
    With(u16, &'static [(&'static str, &'static str)], &'static str),
    /// With this many headers.
    Headers(u16, usize),
    /// With a body that is compressed with gzip.
    Gzip(u16, &'static str),
    /// With the request's headers and body.
    Echo(u16),
    /// No answer.
    Hold,
    /// An answer after a notification.
    Slow(Arc<Notify>),
    /// An answer in whose middle the connection closes.
    BreakOff(u16),
    /// An answer without end.
    Endless(u16),
}

pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    arrived: watch::Sender<Vec<Arrived>>,
    replies: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(State {
            arrived: watch::Sender::new(Vec::new()),
            replies: Mutex::default(),
            otherwise: Mutex::new(Reply::Status(200)),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = {
            let state = Arc::clone(&state);
            Router::new().fallback(move |request| answer(Arc::clone(&state), request))
        };
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, serve).await.unwrap() });
        Self { url, state, _serving: serving }
    }

    /// Queues answers to the next requests.
    pub(crate) fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.replies.lock().unwrap().extend(replies);
    }

    /// Sets the answer to requests without a queued one.
    pub(crate) fn otherwise(&self, reply: Reply) {
        *self.state.otherwise.lock().unwrap() = reply;
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.state.arrived.borrow().clone()
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut arrived = self.state.arrived.subscribe();
        let enough = arrived.wait_for(|arrived| arrived.len() >= count);
        tokio::time::timeout(std::time::Duration::from_secs(30), enough).await.unwrap().unwrap();
    }
}

async fn answer(state: Arc<State>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return respond(400, &[], Body::empty()) };
    let arrived = Arrived {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let reply = state.replies.lock().unwrap().pop_front();
    let reply = reply.unwrap_or_else(|| state.otherwise.lock().unwrap().clone());
    let echo = format!("{:?} {}", arrived.headers, arrived.body);
    state.arrived.send_modify(|all| all.push(arrived));
    match reply {
        Reply::Status(status) => respond(status, &[], Body::empty()),
        Reply::With(status, headers, body) => respond(status, headers, Body::from(body)),
        Reply::Headers(status, count) => {
            let response = (0..count).fold(Response::builder().status(status), |response, number| {
                response.header(format!("x-h{number}"), "v")
            });
            response.body(Body::empty()).unwrap()
        }
        Reply::Gzip(status, text) => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
            respond(status, &[("content-encoding", "gzip")], Body::from(gzip.finish().unwrap()))
        }
        Reply::Echo(status) => respond(status, &[], Body::from(echo)),
        Reply::Hold => std::future::pending().await,
        Reply::Slow(go) => {
            go.notified().await;
            respond(200, &[], Body::empty())
        }
        Reply::BreakOff(status) => {
            let half = stream::iter([Ok(Bytes::from_static(b"half of"))]);
            // The server sends the first half only when it has to wait for the second.
            let rest = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("on purpose"))
            });
            respond(status, &[], Body::from_stream(half.chain(rest)))
        }
        Reply::Endless(status) => {
            let part = Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 * 1024]));
            respond(status, &[], Body::from_stream(stream::repeat(part)))
        }
    }
}

fn respond(status: u16, headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let response = headers
        .iter()
        .fold(Response::builder().status(status), |response, (name, value)| response.header(*name, *value));
    response.body(body).unwrap()
}
