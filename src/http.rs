//! What the daemon serves over HTTP: metrics and health for machines, and a window into the pipelines for people.
//!
//! Anybody may look at metrics, health and version. The rest shows data and changes things: it answers on loopback, or to
//! whoever holds the token (design.md §2.3).

mod access;
mod answers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::secret::Secret;
use crate::connector::SourceSpec;
use crate::connector::prose::listed;
use crate::pipeline::Handle;
use crate::scheduler::StreamState;
use crate::source::{Inbox, SourceErrorKind};
use crate::telemetry::health::{self, Limits};
use crate::telemetry::metrics::Metrics;

/// The largest body of pushed events.
const MAX_PUSH: usize = 16 * 1024 * 1024;

/// A pipeline as the API knows it.
pub struct Registered {
    pub name: Arc<str>,
    pub handle: Handle,
    /// Where events can be pushed to, if its source takes any.
    pub inbox: Option<Arc<dyn Inbox>>,
    pub gauges: crate::telemetry::metrics::PipelineMetrics,
    /// What its script counts.
    pub script: Option<Arc<crate::script::ScriptMetrics>>,
}

/// Everything that the API answers from.
pub struct Api {
    pub pipelines: Vec<Registered>,
    pub metrics: Arc<Metrics>,
    pub token: Option<Secret<String>>,
    /// Where it listens.
    pub address: SocketAddr,
    pub limits: Limits,
    /// The daemon drains: it is alive, but no longer ready.
    pub stopping: AtomicBool,
}

type Shared = State<Arc<Api>>;

/// Serves until told to stop.
pub async fn serve(listener: tokio::net::TcpListener, api: Arc<Api>, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router(api)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(api: Arc<Api>) -> Router {
    let guarded = Router::new()
        .route("/pipelines", get(pipelines))
        .route("/pipelines/{name}", get(pipeline))
        .route("/pipelines/{name}/streams", get(streams))
        .route("/pipelines/{name}/streams/{stream}/why", get(why))
        .route("/pipelines/{name}/events", post(push).layer(DefaultBodyLimit::max(MAX_PUSH)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), access::guard));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .merge(guarded)
        .fallback(async || {
            failure(StatusCode::NOT_FOUND, "there is nothing here; try `/health`, `/metrics` or `/pipelines`")
        })
        .with_state(api)
}

/// Answers with a message, as JSON like everything else.
fn failure(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({ "error": message }))).into_response()
}

async fn metrics(State(api): Shared) -> Response {
    for pipeline in &api.pipelines {
        answers::refresh(pipeline).await;
    }
    ([(header::CONTENT_TYPE, crate::telemetry::metrics::CONTENT_TYPE)], api.metrics.encode()).into_response()
}

async fn judged(api: &Api) -> health::Judgement {
    let mut statuses = Vec::with_capacity(api.pipelines.len());
    let mut now = crate::clock::Timestamp::ZERO;
    for pipeline in &api.pipelines {
        now = pipeline.handle.clock().now();
        statuses.push(answers::status(pipeline).await);
    }
    health::judge(&statuses, &api.limits, now)
}

async fn health(State(api): Shared) -> Response {
    let judgement = judged(&api).await;
    let status = StatusCode::from_u16(judgement.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(judgement)).into_response()
}

async fn ready(State(api): Shared) -> Response {
    if api.stopping.load(Ordering::Relaxed) {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon is draining");
    }
    let judgement = judged(&api).await;
    let status = if judgement.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": judgement.ready, "pipelines": judgement.pipelines }))).into_response()
}

async fn version() -> Response {
    axum::Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn pipelines(State(api): Shared) -> Response {
    let mut list = Vec::with_capacity(api.pipelines.len());
    for pipeline in &api.pipelines {
        list.push(answers::summary(pipeline));
    }
    axum::Json(json!({ "pipelines": list })).into_response()
}

impl Api {
    /// Returns the pipeline of that name, or the answer that says which there are.
    fn find(&self, name: &str) -> Result<&Registered, Box<Response>> {
        self.pipelines.iter().find(|pipeline| &*pipeline.name == name).ok_or_else(|| {
            let names: Vec<_> = self.pipelines.iter().map(|pipeline| format!("`{}`", pipeline.name)).collect();
            let message = format!("there is no pipeline `{name}`; there are {}", names.join(", "));
            Box::new(failure(StatusCode::NOT_FOUND, &message))
        })
    }
}

async fn pipeline(State(api): Shared, Path(name): Path<String>) -> Response {
    match api.find(&name) {
        Ok(pipeline) => axum::Json(answers::details(pipeline).await).into_response(),
        Err(response) => *response,
    }
}

#[derive(Deserialize)]
struct StreamsQuery {
    state: Option<String>,
}

async fn streams(State(api): Shared, Path(name): Path<String>, Query(query): Query<StreamsQuery>) -> Response {
    let pipeline = match api.find(&name) {
        Ok(pipeline) => pipeline,
        Err(response) => return *response,
    };
    let wanted = match query.state.as_deref() {
        None => None,
        Some("failing") => Some(StreamState::Failing),
        Some("stalled") => Some(StreamState::Stalled),
        Some("active") => Some(StreamState::Active),
        Some("parked") => Some(StreamState::Parked),
        Some(other) => {
            let message = format!("`{other}` is no state: expected `failing`, `stalled`, `active` or `parked`");
            return failure(StatusCode::BAD_REQUEST, &message);
        }
    };
    axum::Json(answers::streams(pipeline, wanted).await).into_response()
}

async fn why(State(api): Shared, Path((name, stream)): Path<(String, String)>) -> Response {
    let pipeline = match api.find(&name) {
        Ok(pipeline) => pipeline,
        Err(response) => return *response,
    };
    match pipeline.handle.explain(&stream).await {
        Some(explanation) => axum::Json(answers::explanation(&stream, &explanation)).into_response(),
        None => failure(StatusCode::SERVICE_UNAVAILABLE, &format!("pipeline `{name}` does not answer at the moment")),
    }
}

/// Takes events, one JSON object a line (or one JSON array of them), into a pipeline with a `memory` source.
async fn push(State(api): Shared, Path(name): Path<String>, body: Bytes) -> Response {
    let pipeline = match api.find(&name) {
        Ok(pipeline) => pipeline,
        Err(response) => return *response,
    };
    let Some(inbox) = &pipeline.inbox else {
        let pushed = SourceSpec::defaults().into_iter().filter(|source| source.is_pushed());
        let pushed = listed(&pushed.map(|source| format!("`[source.{source}]`")).collect::<Vec<_>>(), "or");
        let why = format!("the source of pipeline `{name}` takes no events: only {pushed} does");
        return failure(StatusCode::CONFLICT, &why);
    };
    match inbox.push(&body).await {
        Ok(taken) => (StatusCode::ACCEPTED, axum::Json(json!({ "taken": taken }))).into_response(),
        Err(error) => {
            let status = match error.kind {
                SourceErrorKind::Refused => StatusCode::BAD_REQUEST,
                SourceErrorKind::Unavailable | SourceErrorKind::Throttled => StatusCode::SERVICE_UNAVAILABLE,
                SourceErrorKind::Denied => StatusCode::FORBIDDEN,
                SourceErrorKind::PositionLost => StatusCode::CONFLICT,
            };
            failure(status, &crate::formats::words::chain(&error))
        }
    }
}
