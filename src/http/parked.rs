//! `/pipelines/NAME/parked`: lists, retries, discards and edits of parked streams.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::control::parsed;
use super::{Api, Shared, failure};
use crate::checkpoint::{ParkedAction, ParkedState};
use crate::daemon::parked::{EditWanted, ListWanted, MAX_PAGE, ParkedDesk, RequestWanted, Selected, ShowWanted};
use crate::daemon::registry::Registered;

/// The parameters of a URL. Wrong ones are answered in JSON, like every other mistake.
type Parameters<T> = Result<Query<T>, QueryRejection>;

/// Finds a pipeline and its parked store.
fn desk(api: &Api, name: &str) -> Result<(Arc<Registered>, ParkedDesk), Box<Response>> {
    let pipeline = api.find(name)?;
    match pipeline.parked_desk() {
        Ok(Some(desk)) => Ok((pipeline, desk)),
        Ok(None) => {
            let why = format!("the checkpoint store of pipeline `{name}` cannot hold parked events");
            Err(Box::new(failure(StatusCode::CONFLICT, &why)))
        }
        Err(error) => Err(Box::new(failure(StatusCode::SERVICE_UNAVAILABLE, &format!("{error:#}")))),
    }
}

fn answer<T: Serialize>(result: anyhow::Result<T>) -> Response {
    match result {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(error) if error.is::<crate::checkpoint::CheckpointError>() => {
            failure(StatusCode::SERVICE_UNAVAILABLE, &format!("{error:#}"))
        }
        Err(error) => failure(StatusCode::BAD_REQUEST, &format!("{error:#}")),
    }
}

pub(super) async fn list(State(api): Shared, Path(name): Path<String>, wanted: Parameters<ListWanted>) -> Response {
    let Query(wanted) = match wanted {
        Ok(wanted) => wanted,
        Err(wrong) => return failure(StatusCode::BAD_REQUEST, &wrong.body_text()),
    };
    match desk(&api, &name) {
        Ok((_, desk)) => answer(desk.list(&wanted).await),
        Err(response) => *response,
    }
}

pub(super) async fn show(State(api): Shared, Path(name): Path<String>, wanted: Parameters<ShowWanted>) -> Response {
    let Query(wanted) = match wanted {
        Ok(wanted) => wanted,
        Err(wrong) => return failure(StatusCode::BAD_REQUEST, &wrong.body_text()),
    };
    match desk(&api, &name) {
        Ok((_, desk)) => answer(desk.show(&wanted).await),
        Err(response) => *response,
    }
}

pub(super) async fn jobs(State(api): Shared, Path(name): Path<String>) -> Response {
    match desk(&api, &name) {
        Ok((_, desk)) => answer(desk.jobs().await),
        Err(response) => *response,
    }
}

pub(super) async fn retry(State(api): Shared, Path(name): Path<String>, body: Bytes) -> Response {
    request(&api, &name, &body, |_| ParkedAction::Retry).await
}

pub(super) async fn discard(State(api): Shared, Path(name): Path<String>, body: Bytes) -> Response {
    let action = |wanted: &RequestWanted| match wanted.whole_stream {
        true => ParkedAction::DiscardAll,
        false => ParkedAction::DiscardFirst,
    };
    request(&api, &name, &body, action).await
}

async fn request(api: &Api, name: &str, body: &Bytes, action: impl Fn(&RequestWanted) -> ParkedAction) -> Response {
    let (pipeline, desk) = match desk(api, name) {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let mut wanted: RequestWanted = match parsed(body) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    wanted.by.get_or_insert_with(|| "http".to_owned());
    let requested = desk.request(action(&wanted), &wanted).await;
    // A pipeline that does not run finds the request at its next start.
    pipeline.look_at_parked().await;
    answer(requested)
}

pub(super) async fn edit(State(api): Shared, Path(name): Path<String>, body: Bytes) -> Response {
    let desk = match desk(&api, &name) {
        Ok((_, desk)) => desk,
        Err(response) => return *response,
    };
    let mut wanted: EditWanted = match parsed(&body) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    wanted.by.get_or_insert_with(|| "http".to_owned());
    answer(desk.edit(&wanted).await.map(|event| json!({ "event": event })))
}

/// Returns the streams that a handler deferred for long, the earliest due first.
pub(super) async fn deferred(pipeline: &Registered) -> Response {
    let selected = Selected { state: Some(ParkedState::Deferred.as_str().to_owned()), ..Selected::default() };
    let wanted = ListWanted { limit: Some(MAX_PAGE), ..ListWanted::of(selected) };
    match pipeline.parked_desk() {
        Ok(Some(desk)) => answer(desk.list(&wanted).await),
        Ok(None) => axum::Json(json!({ "streams": [] })).into_response(),
        Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, &format!("{error:#}")),
    }
}
