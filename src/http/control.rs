//! `POST /pipelines/NAME/COMMAND` and `POST /reload`: the operator's commands.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Api, Shared, failure};
use crate::clock::Timestamp;
use crate::daemon::registry::Registered;
use crate::pipeline::Standing;
use crate::telemetry::health::{self, Command, Transition};

/// The longest wait for the end of a command.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The body of a command. An empty one takes the defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    /// Answer once the pipeline has reached the state, and not when it has taken the command.
    wait: bool,
}

/// The body of a reload.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReloadWanted {
    /// Change nothing, and answer with the plan.
    dry_run: bool,
}

/// Returns the endpoint of a command.
pub(super) fn obeying(command: Command) -> MethodRouter<Arc<Api>> {
    post(move |api: Shared, name: Path<String>, body: Bytes| obey(api, name, command, body))
}

/// Has a pipeline obey a command. Each is legal in every state.
async fn obey(State(api): Shared, Path(name): Path<String>, command: Command, body: Bytes) -> Response {
    let pipeline = match api.find(&name) {
        Ok(pipeline) => pipeline,
        Err(response) => return *response,
    };
    let wanted: Wanted = match parsed(&body) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    let (was, told_at) = (pipeline.handle.standing().state, pipeline.handle.clock().now());
    let Some(transition) = pipeline.keeper.obey(command).await else {
        return failure(StatusCode::CONFLICT, &format!("the file of pipeline `{name}` was removed"));
    };
    tracing::info!(pipeline = %name, %command, %was, "command from the operator");
    let reached = if wanted.wait { settled(&pipeline, command, transition, told_at).await } else { true };
    let standing = pipeline.handle.standing();
    let answer = json!({
        "pipeline": name,
        "command": command.to_string(),
        "was": was,
        "state": standing.state,
        "reason": standing.reason,
        "reached": wanted.wait.then_some(reached),
    });
    let status = if reached { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT };
    (status, axum::Json(answer)).into_response()
}

/// Waits for the end of a command: the state that it leads to, or another one in which the pipeline stays. Returns
/// `false` if that takes too long.
async fn settled(pipeline: &Registered, command: Command, transition: Transition, told_at: Timestamp) -> bool {
    use health::State::{Draining, Paused, Restarting, Running, Starting};
    let is_end = |standing: &Standing| {
        let rests = match command {
            Command::Pause => !matches!(standing.state, Starting | Running | Restarting | Draining),
            Command::Stop => !matches!(standing.state, Starting | Running | Paused | Restarting | Draining),
            _ => !matches!(standing.state, Starting | Restarting | Draining),
        };
        // A restart begins in a state that is also its end.
        rests && (transition == Transition::Stays || standing.since >= told_at)
    };
    tokio::time::timeout(MAX_WAIT, pipeline.handle.stands(is_end)).await.is_ok()
}

/// Reloads the pipeline files, and answers once every change is applied.
pub(super) async fn reload(State(api): Shared, body: Bytes) -> Response {
    let ReloadWanted { dry_run } = match parsed(&body) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    let Some(reloader) = &api.reloader else {
        return failure(StatusCode::CONFLICT, "this daemon runs a finite job, which reads its files once");
    };
    let report = reloader.reload(dry_run).await;
    let status = if report.has_failures() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    (status, axum::Json(report)).into_response()
}

pub(super) fn parsed<T: Default + DeserializeOwned>(body: &Bytes) -> Result<T, Box<Response>> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Box::new(failure(StatusCode::BAD_REQUEST, &format!("the body is wrong: {error}"))))
}
