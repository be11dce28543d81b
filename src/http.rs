//! The HTTP server: metrics and health, views of the pipelines, and pushed events.
//!
//! Metrics, health and version answer every client. The other endpoints show data or change something: they answer on
//! loopback, and elsewhere to a client with the token (design.md §2.3).

mod access;
mod answers;
mod control;
mod parked;
mod push;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::secret::Secret;
use crate::daemon::registry::{Registered, Registry};
use crate::daemon::reload::Reloader;
use crate::scheduler::StreamState;
use crate::telemetry::health::{self, Command, Limits};
use crate::telemetry::metrics::Metrics;

/// The state that the API answers from.
pub(crate) struct Api {
    pub registry: Arc<Registry>,
    /// `None` for a finite job, which reads its files once.
    pub reloader: Option<Arc<Reloader>>,
    pub metrics: Arc<Metrics>,
    pub token: Option<Secret<String>>,
    /// The address of the listener.
    pub address: SocketAddr,
    pub limits: Limits,
    /// The daemon drains: it is alive, but no longer ready.
    pub stopping: AtomicBool,
}

type Shared = State<Arc<Api>>;

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    api: Arc<Api>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(api)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(api: Arc<Api>) -> Router {
    let guarded = Router::new()
        .route("/pipelines", get(pipelines))
        .route("/pipelines/{name}", get(pipeline))
        .route("/pipelines/{name}/streams", get(streams))
        .route("/pipelines/{name}/streams/{stream}/why", get(why))
        .route("/pipelines/{name}/pause", control::obeying(Command::Pause))
        .route("/pipelines/{name}/resume", control::obeying(Command::Resume))
        .route("/pipelines/{name}/restart", control::obeying(Command::Restart))
        .route("/pipelines/{name}/start", control::obeying(Command::Start))
        .route("/pipelines/{name}/drain", control::obeying(Command::Stop))
        .route("/pipelines/{name}/parked", get(parked::list))
        .route("/pipelines/{name}/parked/events", get(parked::show))
        .route("/pipelines/{name}/parked/jobs", get(parked::jobs))
        .route("/pipelines/{name}/parked/retry", post(parked::retry))
        .route("/pipelines/{name}/parked/discard", post(parked::discard))
        .route("/pipelines/{name}/parked/edit", post(parked::edit))
        .route("/reload", post(control::reload))
        .route("/pipelines/{name}/events", post(push::push).layer(DefaultBodyLimit::max(push::MAX_BODY)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), access::guard));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .merge(guarded)
        .fallback(async || failure(StatusCode::NOT_FOUND, "no such path; try `/health`, `/metrics` or `/pipelines`"))
        .with_state(api)
}

/// Returns an error as JSON, like every other answer.
fn failure(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({ "error": message }))).into_response()
}

async fn metrics(State(api): Shared) -> Response {
    // A wedged driver costs a second. All pipelines are asked at once, so several cost no more (S21).
    join_all(api.registry.pipelines().iter().map(|pipeline| answers::refresh(pipeline))).await;
    ([(header::CONTENT_TYPE, crate::telemetry::metrics::CONTENT_TYPE)], api.metrics.encode()).into_response()
}

async fn judged(api: &Api) -> health::Judgement {
    let pipelines = api.registry.pipelines();
    let statuses = join_all(pipelines.iter().map(|pipeline| answers::status(pipeline))).await;
    let now = pipelines.first().map_or(crate::clock::Timestamp::ZERO, |pipeline| pipeline.handle.clock().now());
    let refused = api.reloader.as_ref().map(|reloader| reloader.refused().clone()).unwrap_or_default();
    health::judge(&statuses, &api.limits, now).with_refused(refused)
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
    let list = answers::summaries(&api.registry.pipelines()).await;
    axum::Json(json!({ "pipelines": list })).into_response()
}

impl Api {
    /// Returns the pipeline with a name, or an answer that lists the existing ones.
    fn find(&self, name: &str) -> Result<Arc<Registered>, Box<Response>> {
        self.registry.find(name).ok_or_else(|| {
            let names: Vec<_> =
                self.registry.pipelines().iter().map(|pipeline| format!("`{}`", pipeline.name)).collect();
            let message = format!("there is no pipeline `{name}`; there are {}", names.join(", "));
            Box::new(failure(StatusCode::NOT_FOUND, &message))
        })
    }
}

async fn pipeline(State(api): Shared, Path(name): Path<String>) -> Response {
    match api.find(&name) {
        Ok(pipeline) => axum::Json(answers::details(&pipeline).await).into_response(),
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
        Some("deferred") => return parked::deferred(&pipeline).await,
        Some(other) => {
            let message =
                format!("unknown state `{other}`, expected `failing`, `stalled`, `active`, `parked` or `deferred`");
            return failure(StatusCode::BAD_REQUEST, &message);
        }
    };
    axum::Json(answers::streams(&pipeline, wanted).await).into_response()
}

async fn why(State(api): Shared, Path((name, stream)): Path<(String, String)>) -> Response {
    let pipeline = match api.find(&name) {
        Ok(pipeline) => pipeline,
        Err(response) => return *response,
    };
    match answers::why(&pipeline, &stream).await {
        Some(answer) => axum::Json(answer).into_response(),
        None => {
            let standing = pipeline.handle.standing();
            let why = format!(
                "pipeline `{name}` does not run ({}: {}), and its last view does not list the stream",
                standing.state.as_str(),
                standing.reason
            );
            failure(StatusCode::SERVICE_UNAVAILABLE, &why)
        }
    }
}
