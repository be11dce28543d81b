//! Access to the guarded endpoints.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{Api, failure};
use crate::config::secret::Secret;

/// Passes a request on, or refuses it with the reason.
pub(super) async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match refusal(&api, &request) {
        None => next.run(request).await,
        Some((status, why)) => failure(status, &why),
    }
}

fn refusal(api: &Api, request: &Request) -> Option<(StatusCode, String)> {
    match &api.token {
        Some(token) if !bears(request, token) => {
            return Some((
                StatusCode::UNAUTHORIZED,
                "send the token of `http.token` as `authorization: Bearer …`".to_owned(),
            ));
        }
        None if !api.address.ip().is_loopback() => {
            let why = "this endpoint answers on loopback only: set `http.token` to open it to other hosts";
            return Some((StatusCode::FORBIDDEN, why.to_owned()));
        }
        // DNS rebinding: a foreign name that resolves to this address arrives as the host.
        None if !is_ours(request, api) => {
            let why = "the `host` header is not this daemon's: use the address it listens on, or `localhost`";
            return Some((StatusCode::FORBIDDEN, why.to_owned()));
        }
        _ => {}
    }
    // A browser sends these types to another site only after a preflight request, which fails here.
    if request.method() == Method::POST && !is_json(request) {
        let why = "send `content-type: application/json` (or `application/x-ndjson` for lines)";
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, why.to_owned()));
    }
    None
}

fn bears(request: &Request, token: &Secret<String>) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    given
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|given| same(given.trim().as_bytes(), token.expose().as_bytes()))
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

fn is_ours(request: &Request, api: &Api) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && !port.contains(']') => (name, port.parse().ok()),
        _ => (host, Some(80)),
    };
    let ours = name.eq_ignore_ascii_case("localhost")
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    ours && port == Some(api.address.port())
}

fn is_json(request: &Request) -> bool {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("application/x-ndjson")
}
