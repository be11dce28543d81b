//! `POST /pipelines/NAME/events`: events for a pipeline whose source takes pushed events.

use std::io::Read;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::read::MultiGzDecoder;
use serde_json::json;

use super::{Shared, failure};
use crate::connector::SourceSpec;
use crate::connector::prose::listed;
use crate::source::SourceErrorKind;

/// The largest body, compressed or not.
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;

/// Takes events: a JSON object on each line, or one JSON array of objects.
pub(super) async fn push(
    State(api): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let pipeline = match api.find(&name) {
        Ok(pipeline) => pipeline,
        Err(response) => return *response,
    };
    let defined = pipeline.defined();
    let Some(inbox) = &defined.inbox else {
        let pushed = SourceSpec::defaults().into_iter().filter(|source| source.is_pushed());
        let pushed = listed(&pushed.map(|source| format!("`[source.{source}]`")).collect::<Vec<_>>(), "or");
        let why = format!("the source of pipeline `{name}` takes no events: only {pushed} does");
        return failure(StatusCode::CONFLICT, &why);
    };
    let body = match body.map_err(Refusal::of_body).and_then(|body| decoded(&headers, body)) {
        Ok(body) => body,
        Err(Refusal(status, why)) => return failure(status, &why),
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

/// The status and the reason of a refused body.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn of_body(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            status => Self(status, rejection.body_text()),
        }
    }

    fn too_large() -> Self {
        let why = format!("the body is larger than {} MiB: send several smaller ones", MAX_BODY >> 20);
        Self(StatusCode::PAYLOAD_TOO_LARGE, why)
    }
}

/// Returns the body without its `content-encoding`.
fn decoded(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Refusal> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim());
    match encoding {
        None => Ok(body),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") || encoding.is_empty() => Ok(body),
        Some(encoding) if encoding.eq_ignore_ascii_case("gzip") || encoding.eq_ignore_ascii_case("x-gzip") => {
            inflated(&body)
        }
        Some(encoding) => Err(Refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the content encoding `{encoding}` is not supported: send `gzip`, or none"),
        )),
    }
}

fn inflated(body: &[u8]) -> Result<Bytes, Refusal> {
    let mut inflated = Vec::new();
    // A small body can inflate to any size: one byte above the limit is enough to refuse it.
    let mut limited = MultiGzDecoder::new(body).take(MAX_BODY as u64 + 1);
    limited
        .read_to_end(&mut inflated)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the body is not valid gzip: {error}")))?;
    if inflated.len() > MAX_BODY { Err(Refusal::too_large()) } else { Ok(inflated.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(data: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap().into()
    }

    fn check(encoding: &'static str, body: Bytes) -> Result<Bytes, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        decoded(&headers, body)
    }

    #[test]
    fn x6_a_gzip_body_is_inflated_up_to_the_limit() {
        assert_eq!(check("gzip", gzip(b"[1]")).unwrap(), "[1]");
        assert_eq!(check("GZIP", [gzip(b"[1]"), gzip(b"[2]")].concat().into()).unwrap(), "[1][2]");
        assert_eq!(check("gzip", gzip(&vec![b' '; MAX_BODY])).unwrap().len(), MAX_BODY);
        assert_eq!(check("gzip", gzip(&vec![b' '; MAX_BODY + 1])), Err(Refusal::too_large()));
    }

    #[test]
    fn x6_other_encodings_and_truncated_bodies_are_refused() {
        assert_eq!(decoded(&HeaderMap::new(), Bytes::from_static(b"[1]")).unwrap(), "[1]");
        assert_eq!(check("identity", Bytes::from_static(b"[1]")).unwrap(), "[1]");
        assert_eq!(check("br", Bytes::new()).unwrap_err().0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let whole = gzip(b"[1, 2, 3]");
        assert_eq!(check("gzip", whole.slice(..whole.len() - 4)).unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
