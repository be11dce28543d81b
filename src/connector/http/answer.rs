//! What became of a request.

use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::target::Target;
use super::{Auth, Settings, Statuses};
use crate::clock;
use crate::config::secret::Secret;
use crate::handler::{HandlerError, HandlerErrorKind};
use crate::runtime::http_client::chain;

/// How much of an answer is read.
const MOST_READ: usize = 64 * 1024;
/// How many characters of it a message shows.
const MOST_SHOWN: usize = 500;
/// The longest that an answer can ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Why a request did not do its part.
#[derive(Debug)]
pub(super) struct Verdict {
    kind: HandlerErrorKind,
    why: String,
    retry_after: Option<Duration>,
}

impl Verdict {
    fn new(kind: HandlerErrorKind, why: String) -> Self {
        Self { kind, why, retry_after: None }
    }

    pub(super) fn kind(&self) -> HandlerErrorKind {
        self.kind
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Makes it an error that names the request.
    pub(super) fn into_error(self, request: &str) -> HandlerError {
        let error = HandlerError::new(self.kind, format!("{request}: {}", self.why));
        match self.retry_after {
            Some(delay) => error.retry_after(delay),
            None => error,
        }
    }
}

/// Judges a request that got no answer.
pub(super) fn failed(error: &reqwest::Error) -> Verdict {
    let kind = if error.is_connect() {
        HandlerErrorKind::Unavailable
    } else if error.is_timeout() {
        HandlerErrorKind::TimedOut
    } else {
        HandlerErrorKind::Transient
    };
    Verdict::new(kind, chain(error))
}

/// Judges answers.
#[derive(Debug)]
pub(super) struct Judge {
    success: Statuses,
    permanent: Statuses,
    /// What an answer may echo, and no message may show.
    secrets: Vec<Secret<String>>,
}

impl Judge {
    pub(super) fn new(settings: &Settings, target: &Target) -> Self {
        let headers = settings.headers.values().map(|value| value.expose());
        let auth = settings.auth.as_ref().map(|auth| match auth {
            Auth::Bearer(token) => token.expose(),
            Auth::Basic(basic) => basic.password.expose(),
        });
        // Shorter ones would make holes in everything.
        let secrets = headers.chain(auth).chain(target.query()).filter(|secret| secret.len() >= 4);
        Self {
            success: settings.success.clone(),
            permanent: settings.permanent.clone(),
            secrets: secrets.map(|secret| Secret::new(secret.to_owned())).collect(),
        }
    }

    /// Reads an answer, as far as it is of use.
    pub(super) async fn answer(&self, mut answer: Response) -> Result<(), Verdict> {
        let status = answer.status();
        let kind = self.kind(status);
        let mut body = Vec::new();
        let read = read(&mut answer, &mut body).await;
        match kind {
            // A server that breaks off may not have done it all.
            None => read.map_err(|error| {
                let mut verdict = failed(&error);
                verdict.why = format!("the answer, {status}, broke off: {}", verdict.why);
                verdict
            }),
            Some(kind) => {
                let mut why = format!("answered {status}");
                if status.is_redirection() && answer.headers().contains_key(LOCATION) {
                    why.push_str(", and redirects are not followed");
                }
                let text = self.shown(&body);
                if !text.is_empty() {
                    why = format!("{why}: {text}");
                }
                Err(Verdict { kind, why, retry_after: retry_after(answer.headers(), clock::wall()) })
            }
        }
    }

    /// Returns what kind of failure a status is, if it is one.
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
            // Credentials, gateways, maintenance: nothing about the event.
            401 | 407 | 502..=504 => HandlerErrorKind::Unavailable,
            300..=399 => HandlerErrorKind::Permanent,
            _ if self.permanent.include(status) => HandlerErrorKind::Permanent,
            _ => HandlerErrorKind::Transient,
        })
    }

    /// Returns what a message may show of an answer: its beginning, on one line, without our secrets.
    fn shown(&self, body: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(body).into_owned();
        for secret in &self.secrets {
            text = text.replace(secret.expose(), "<secret>");
        }
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut shown: String = printable.take(MOST_SHOWN + 1).collect();
        if shown.chars().count() > MOST_SHOWN {
            shown.pop();
            shown.push('…');
        }
        shown.trim().to_owned()
    }
}

/// Reads an answer to its end, so that its connection can be used again, or to what is enough of it.
async fn read(answer: &mut Response, body: &mut Vec<u8>) -> Result<(), reqwest::Error> {
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(MOST_READ - body.len())]);
        if body.len() == MOST_READ {
            break;
        }
    }
    Ok(())
}

/// Returns for how long an answer asks to wait: it says seconds, or a date.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        let until = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        Duration::try_from(until - now).unwrap_or(Duration::ZERO)
    };
    Some(delay.min(LONGEST_WAIT))
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
    fn r42_answers_are_told_apart() {
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
    fn r45_an_answer_that_throttles_is_its_own_kind() {
        check_kinds("", &[(429, "rateLimited")]);
        check_kinds(
            "permanent = [\"4xx\", \"5xx\"]",
            &[(429, "rateLimited"), (500, "permanent"), (503, "unavailable")],
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_an_hour_at_most() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        let check = |text: &str, expected: Option<u64>| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        };
        check("120", Some(120));
        check("0", Some(0));
        check("99999999999999999999999", Some(3600));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sun, 06 Nov 1994 08:49:27 GMT", Some(0));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600));
        for bad in ["", "soon", "-1", "1.5"] {
            check(bad, None);
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn r63_an_answer_that_echoes_a_secret_is_shown_without() {
        let judge = judge("headers = { a = \"header-secret\", b = \"x\" }\nauth = { bearer = \"token-secret\" }");
        let shown = judge.shown(b"got\theader-secret,\r\ntoken-secret and k=query-secret");
        assert_eq!(shown, "got <secret>,  <secret> and <secret>");
        assert_eq!(judge.shown(&[b'a'; 10_000]).chars().count(), MOST_SHOWN + 1);
        assert_eq!(judge.shown(b"\xff\x00"), "\u{fffd}");
    }
}
