//! The class of an answer, and the text that messages show of it.

use std::borrow::Cow;
use std::io::{self, Read};
use std::time::Duration;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use time::OffsetDateTime;

use super::target::Target;
use super::{Auth, Settings, Statuses};
use crate::clock;
use crate::config::secret::Secret;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::http_client::chain;

/// The most bytes of an answer that the sink reads, and that it unpacks.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The most characters of an answer in a message.
const MAX_SHOWN_CHARS: usize = 500;
/// The longest delay that an answer can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// The length below which a secret is not masked, because masking it would mask common words.
const MIN_SECRET_CHARS: usize = 4;

/// The failure of a request.
#[derive(Debug)]
pub(super) struct ResponseError {
    kind: HandlerErrorKind,
    why: String,
    retry_after: Option<Duration>,
}

impl ResponseError {
    fn new(kind: HandlerErrorKind, why: String) -> Self {
        Self { kind, why, retry_after: None }
    }

    pub(super) fn kind(&self) -> HandlerErrorKind {
        self.kind
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Converts it to a sink's error that names the request.
    pub(super) fn into_handler_error(self, request: &str) -> HandlerError {
        let error = HandlerError::new(self.kind, format!("{request}: {}", self.why));
        match self.retry_after {
            Some(delay) => error.retry_after(delay),
            None => error,
        }
    }
}

/// Classifies a request without an answer.
pub(super) fn failed(error: &reqwest::Error) -> ResponseError {
    let kind = if error.is_connect() {
        HandlerErrorKind::Unavailable
    } else if error.is_timeout() {
        HandlerErrorKind::TimedOut
    } else {
        HandlerErrorKind::Transient
    };
    ResponseError::new(kind, chain(error))
}

/// Classifies answers by the settings of the sink.
#[derive(Debug)]
pub(super) struct Judge {
    success: Statuses,
    permanent: Statuses,
    /// Secrets of the requests, which an answer can echo.
    secrets: Vec<Secret<String>>,
}

impl Judge {
    pub(super) fn new(settings: &Settings, target: &Target) -> Self {
        let headers = settings.headers.values().map(|value| value.expose());
        let auth = settings.auth.as_ref().map(|auth| match auth {
            Auth::Bearer(token) => token.expose(),
            Auth::Basic(basic) => basic.password.expose(),
        });
        let secrets = headers.chain(auth).chain(target.query()).filter(|secret| secret.len() >= MIN_SECRET_CHARS);
        Self {
            success: settings.success.clone(),
            permanent: settings.permanent.clone(),
            secrets: secrets.map(|secret| Secret::new(secret.to_owned())).collect(),
        }
    }

    /// Reads and classifies an answer.
    pub(super) async fn answer(&self, mut answer: Response) -> Result<(), ResponseError> {
        let status = answer.status();
        let kind = self.kind(status);
        let mut body = Vec::new();
        let read = read(&mut answer, &mut body).await;
        match kind {
            // A server that breaks off its answer may not have completed the request.
            None => read.map_err(|error| {
                let mut failure = failed(&error);
                failure.why = format!("the answer, {status}, broke off: {}", failure.why);
                failure
            }),
            Some(kind) => {
                let mut why = format!("answered {status}");
                if status.is_redirection() && answer.headers().contains_key(LOCATION) {
                    why.push_str(", and redirects are not followed");
                }
                let text = self.shown(&unpacked(answer.headers(), &body));
                if !text.is_empty() {
                    why = format!("{why}: {text}");
                }
                Err(ResponseError { kind, why, retry_after: retry_after(answer.headers(), clock::wall()) })
            }
        }
    }

    /// Returns the error class of a status; `None` for a success.
    fn kind(&self, status: StatusCode) -> Option<HandlerErrorKind> {
        if self.success.name(status) {
            return None;
        }
        if self.permanent.name(status) {
            return Some(HandlerErrorKind::Permanent);
        }
        if self.success.include(status) {
            return None;
        }
        Some(match status.as_u16() {
            429 => HandlerErrorKind::Throttled,
            408 => HandlerErrorKind::TimedOut,
            425 => HandlerErrorKind::Transient,
            // Credentials, gateways and maintenance concern every event alike.
            401 | 407 | 502..=504 => HandlerErrorKind::Unavailable,
            300..=399 => HandlerErrorKind::Permanent,
            _ if self.permanent.include(status) => HandlerErrorKind::Permanent,
            _ => HandlerErrorKind::Transient,
        })
    }

    /// Returns the beginning of an answer on one line, with secrets masked.
    fn shown(&self, body: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(body).into_owned();
        for secret in &self.secrets {
            text = text.replace(secret.expose(), "<secret>");
        }
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut shown: String = printable.take(MAX_SHOWN_CHARS + 1).collect();
        if shown.chars().count() > MAX_SHOWN_CHARS {
            shown.pop();
            shown.push('…');
        }
        shown.trim().to_owned()
    }
}

/// Reads an answer to its end, so that its connection can be reused, or up to the limit.
async fn read(answer: &mut Response, body: &mut Vec<u8>) -> Result<(), reqwest::Error> {
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]);
        if body.len() == MAX_BODY_BYTES {
            break;
        }
    }
    Ok(())
}

/// Returns the readable form of an answer's body. Servers compress error pages without being asked to.
fn unpacked<'a>(headers: &HeaderMap, body: &'a [u8]) -> Cow<'a, [u8]> {
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = encoding.trim().to_ascii_lowercase();
    match &*encoding {
        "" | "identity" => Cow::Borrowed(body),
        "gzip" | "x-gzip" => Cow::Owned(inflated(MultiGzDecoder::new(body))),
        "deflate" => {
            // Some servers send the bare format without the wrapper that the name stands for.
            let wrapped = inflated(ZlibDecoder::new(body));
            Cow::Owned(if wrapped.is_empty() { inflated(DeflateDecoder::new(body)) } else { wrapped })
        }
        other => Cow::Owned(format!("({} bytes, encoded as `{other}`)", body.len()).into_bytes()),
    }
}

/// Unpacks up to the limit. Of a truncated or corrupt body, returns the part before the error.
fn inflated(packed: impl Read) -> Vec<u8> {
    let mut text = Vec::new();
    // The message shows what was unpacked before the error; the error itself would not help its reader.
    let _read: io::Result<usize> = packed.take(MAX_BODY_BYTES as u64).read_to_end(&mut text);
    text
}

/// Returns the delay that an answer asks for, in seconds or up to a date in one of HTTP's three forms (RFC 9110 §5.6.7).
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = OffsetDateTime::from(httpdate::parse_http_date(text).ok()?);
        // A date in the past has a negative difference, which asks for no delay.
        Duration::try_from(date - now).unwrap_or(Duration::ZERO)
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(settings: &str) -> Judge {
        let settings: Settings = toml::from_str(&format!("url = \"http://h?k=query-secret\"\n{settings}")).unwrap();
        Judge::new(&settings, &Target::new(&settings).unwrap())
    }

    fn check_kinds(settings: &str, expected: &[(u16, &str)]) {
        let judge = judge(settings);
        for &(code, kind) in expected {
            let judged = judge.kind(StatusCode::from_u16(code).unwrap());
            assert_eq!(judged.map_or("success", HandlerErrorKind::as_str), kind, "{code}");
        }
    }

    #[test]
    fn r42_each_status_has_its_class() {
        check_kinds(
            "",
            &[
                (200, "success"),
                (204, "success"),
                (302, "permanent"),
                (400, "permanent"),
                (401, "unavailable"),
                (403, "permanent"),
                (404, "permanent"),
                (407, "unavailable"),
                (408, "timeout"),
                (422, "permanent"),
                (425, "exception"),
                (500, "exception"),
                (501, "exception"),
                (502, "unavailable"),
                (503, "unavailable"),
                (504, "unavailable"),
            ],
        );
        check_kinds(
            "permanent = [400, 401, 501]\nsuccess = [200, 409]",
            &[
                (200, "success"),
                (201, "exception"),
                (400, "permanent"),
                (401, "permanent"),
                (404, "exception"),
                (409, "success"),
                (501, "permanent"),
            ],
        );
    }

    #[test]
    fn r45_a_throttling_answer_has_its_own_class() {
        check_kinds("", &[(429, "rateLimited")]);
        check_kinds(
            "permanent = [\"4xx\", \"5xx\"]",
            &[(429, "rateLimited"), (500, "permanent"), (503, "unavailable")],
        );
    }

    #[test]
    fn x6_retry_after_is_seconds_or_one_of_three_dates_and_an_hour_at_most() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        let check = |text: &str, expected: Option<u64>| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        };
        check("120", Some(120));
        check("0", Some(0));
        check("99999999999999999999999", Some(3600));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sunday, 06-Nov-94 08:49:47 GMT", Some(10));
        check("Sun Nov  6 08:49:47 1994", Some(10));
        check("Sun, 06 Nov 1994 08:49:27 GMT", Some(0));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600));
        for bad in ["", "soon", "-1", "1.5", "Sun Nov 31 08:49:47 1994", "Sunday, 06-Nov-94"] {
            check(bad, None);
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn x6_a_compressed_answer_is_shown_as_text() {
        use flate2::Compression;
        use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
        use std::io::Write;

        let text = b"{\"error\":\"the parcel is unknown\"}";
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        zlib.write_all(text).unwrap();
        bare.write_all(text).unwrap();
        let (gzip, zlib, bare) = (gzip.finish().unwrap(), zlib.finish().unwrap(), bare.finish().unwrap());
        let headers = |encoding: &str| HeaderMap::from_iter([(CONTENT_ENCODING, encoding.parse().unwrap())]);
        assert_eq!(&*unpacked(&headers("GZip"), &gzip), text);
        assert_eq!(&*unpacked(&headers("deflate"), &zlib), text);
        assert_eq!(&*unpacked(&headers("deflate"), &bare), text);
        assert_eq!(&*unpacked(&HeaderMap::new(), text), text);
        assert_eq!(&*unpacked(&headers("br"), b"123"), b"(3 bytes, encoded as `br`)");
        let part = unpacked(&headers("gzip"), &gzip[..gzip.len() - 12]).into_owned();
        assert!(text.starts_with(&part), "{}", String::from_utf8_lossy(&part));
    }

    #[test]
    fn x6_a_body_that_unpacks_to_far_more_is_cut() {
        use flate2::{Compression, write::GzEncoder};
        use std::io::Write;

        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&vec![b'x'; 10 * MAX_BODY_BYTES]).unwrap();
        assert_eq!(inflated(MultiGzDecoder::new(&*gzip.finish().unwrap())).len(), MAX_BODY_BYTES);
    }

    #[test]
    fn r63_a_secret_in_an_answer_is_masked() {
        let judge = judge("headers = { a = \"header-secret\", b = \"x\" }\nauth = { bearer = \"token-secret\" }");
        let shown = judge.shown(b"got\theader-secret,\r\ntoken-secret and k=query-secret");
        assert_eq!(shown, "got <secret>,  <secret> and <secret>");
        assert_eq!(judge.shown(&[b'a'; 10_000]).chars().count(), MAX_SHOWN_CHARS + 1);
        assert_eq!(judge.shown(b"\xff\x00"), "\u{fffd}");
    }
}
