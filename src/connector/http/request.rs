//! Requests, made of events or of emitted effects.

use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::target::Target;
use super::{Auth, Per, Settings, is_reserved, permanent};
use crate::config::document::closest;
use crate::connector::{BadSetting, Context};
use crate::effect::Value;
use crate::event::{Event, Kind};
use crate::formats::encode;
use crate::handler::HandlerError;
use crate::sink::{Cause, Decided};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request before it is sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The method, host and path that messages may show.
    pub(super) shown: String,
}

/// Makes requests by the settings of the sink.
#[derive(Debug)]
pub(super) struct Maker {
    target: Target,
    per: Per,
    method: Method,
    headers: HeaderMap,
    max_body: u64,
    group: Arc<str>,
}

/// Splits a run of events into the pieces that one request each carries.
pub(super) fn pieces(per: Per, events: &[Event]) -> Box<dyn Iterator<Item = &[Event]> + Send + '_> {
    match per {
        Per::Event => Box::new(events.chunks(1).filter(|event| event[0].kind() == Kind::Event)),
        Per::Span => Box::new(encode::runs(events)),
    }
}

impl Maker {
    pub(super) fn new(settings: &Settings, context: &Context, target: Target) -> anyhow::Result<Self> {
        let method = method(settings)?;
        let (per, max_body, group) = (settings.per, settings.max_body, Arc::clone(&context.group));
        Ok(Self { target, per, method, headers: headers(settings)?, max_body, group })
    }

    pub(super) fn per(&self) -> Per {
        self.per
    }

    /// Makes the request for one of the [`pieces`].
    pub(super) fn piece(&self, piece: &[Event]) -> Result<Outgoing, HandlerError> {
        let (first, stream) = (piece[0].index(), piece[0].stream());
        let (mut body, key) = (Vec::new(), self.key(stream));
        let key = match self.per {
            Per::Event => {
                encode::event_line(&piece[0], &mut body);
                format!("{key}{first}")
            }
            Per::Span => {
                encode::span(piece, &mut body);
                format!("{key}{first}-{}", piece[piece.len() - 1].next_index())
            }
        };
        let (url, shown) = self.target.of_stream(stream)?;
        let mut headers = self.headers.clone();
        headers.insert(IDEMPOTENCY_KEY, key_value(&key));
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        self.checked(Outgoing {
            shown: format!("{} {shown}", self.method),
            method: self.method.clone(),
            url,
            headers,
            body,
        })
    }

    /// Makes the request for effect `number` of a decision.
    pub(super) fn emitted(&self, decided: &Decided, number: usize, value: &Value) -> Result<Outgoing, HandlerError> {
        let stream = decided.work.stream();
        let key = match decided.cause(number) {
            None => format!("{}-{}#{number}", decided.work.first(), decided.next),
            // Unfolds have the index of the next event. Their ordinal tells them from it, and from other unfolds.
            Some(Cause { event, number }) if event.is_unfold() => format!("{}u{}#{number}", event.index(), event.at()),
            Some(Cause { event, number }) => format!("{}#{number}", event.index()),
        };
        let made = self.make(stream, &format!("{}{key}", self.key(stream)), value);
        made.and_then(|outgoing| self.checked(outgoing))
            .map_err(|error| invalid_effect(stream, number, &error).at_known_index(decided.index_of(number)))
    }

    fn make(&self, stream: &str, key: &str, value: &Value) -> Result<Outgoing, HandlerError> {
        let Wanted { method, path, body, headers: own } = Wanted::read(value)?;
        let (url, shown) = path.map_or_else(|| self.target.of_stream(stream), |path| self.target.below(path))?;
        let method = method.unwrap_or_else(|| self.method.clone());
        let (body, content_type) = body_of(body);
        let mut headers = self.headers.clone();
        headers.insert(IDEMPOTENCY_KEY, key_value(key));
        if let Some(content_type) = content_type {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        }
        for (name, value) in own {
            headers.insert(name, value);
        }
        Ok(Outgoing { shown: format!("{method} {shown}"), method, url, headers, body })
    }

    fn checked(&self, outgoing: Outgoing) -> Result<Outgoing, HandlerError> {
        let bytes = outgoing.body.len() as u64;
        if bytes > self.max_body {
            let Outgoing { shown, .. } = outgoing;
            return Err(permanent(format!(
                "{shown}: the body of {bytes} bytes is larger than `max_body`, {} bytes",
                self.max_body
            )));
        }
        Ok(outgoing)
    }

    fn key(&self, stream: &str) -> String {
        format!("{}/{stream}:", self.group)
    }
}

/// The parts of an emitted request.
struct Wanted<'a> {
    method: Option<Method>,
    path: Option<&'a str>,
    body: &'a Value,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> Wanted<'a> {
    fn read(value: &'a Value) -> Result<Self, HandlerError> {
        let Value::Map(entries) = value else {
            let kind = value.kind();
            return Err(permanent(format!("it is {kind}, not a map with `body`, `path`, `method`, `headers`")));
        };
        value.check_numbers().map_err(permanent)?;
        let mut wanted = Self { method: None, path: None, body: &Value::Null, headers: Vec::new() };
        for (name, value) in entries {
            match (&**name, value) {
                ("body", value) => wanted.body = value,
                (_, Value::Null) => {}
                ("path", Value::Text(text)) => wanted.path = Some(text),
                ("method", Value::Text(text)) => {
                    wanted.method = Some(parse_method(text).map_err(|_| {
                        permanent(format!("its `method` is `{text}`, not a word in capital letters such as \"POST\""))
                    })?);
                }
                ("headers", Value::Map(entries)) => {
                    let headers = entries.iter().map(|(name, value)| header(name, &text_of(value)));
                    wanted.headers = headers.collect::<Result<_, _>>().map_err(|error| permanent(error.to_string()))?;
                }
                ("path" | "method" | "headers", value) => {
                    return Err(permanent(format!("its `{name}` is {}", value.kind())));
                }
                _ => {
                    let why = format!("unknown key `{name}`, expected `body`, `path`, `method` or `headers`");
                    return Err(permanent(why));
                }
            }
        }
        Ok(wanted)
    }
}

/// Checks the form of emitted requests. Without the url, it cannot check that their paths stay below it.
pub(super) fn check_effects(stream: &str, effects: &[Value]) -> Result<(), HandlerError> {
    effects.iter().enumerate().try_for_each(|(number, value)| {
        Wanted::read(value).map(drop).map_err(|error| invalid_effect(stream, number, &error))
    })
}

fn invalid_effect(stream: &str, number: usize, error: &HandlerError) -> HandlerError {
    permanent(format!("effect {number} of stream `{stream}` is not a valid request: {}", error.message()))
}

/// Returns a body's bytes and content type.
fn body_of(value: &Value) -> (Vec<u8>, Option<&'static str>) {
    match value {
        Value::Null => (Vec::new(), None),
        Value::Text(text) => (text.as_bytes().to_vec(), Some("text/plain; charset=utf-8")),
        Value::Bytes(bytes) => (bytes.to_vec(), Some("application/octet-stream")),
        value => {
            let mut body = Vec::new();
            encode::value(value, &mut body);
            (body, Some("application/json"))
        }
    }
}

/// Returns the text of a header's value: a string as it is, any other value as JSON.
fn text_of(value: &Value) -> String {
    if let Value::Text(text) = value {
        return text.to_string();
    }
    let mut text = Vec::new();
    encode::value(value, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The methods that a misspelled one may stand for.
const METHODS: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "GET"];

/// A text that is no method: methods are words in capital letters.
struct BadMethod;

/// Parses a method. Methods are case-sensitive, and a server may know others than the common ones.
fn parse_method(text: &str) -> Result<Method, BadMethod> {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    is_word.then(|| Method::from_bytes(text.as_bytes()).ok()).flatten().ok_or(BadMethod)
}

/// Returns the configured method.
pub(super) fn method(settings: &Settings) -> Result<Method, BadSetting> {
    parse_method(&settings.method).map_err(|BadMethod| {
        let bad = BadSetting::new(&["method"], "`method` must be a word in capital letters, such as \"POST\"");
        match closest(&settings.method, &METHODS) {
            Some(name) => bad.help(format!("did you mean \"{name}\"?")),
            None => bad,
        }
    })
}

fn headers(settings: &Settings) -> Result<HeaderMap, BadSetting> {
    let mut headers = HeaderMap::new();
    for header in fixed_headers(settings) {
        let (name, value) = header?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Returns the headers of every request, and those of the settings that are invalid.
pub(super) fn fixed_headers(settings: &Settings) -> Vec<Result<(HeaderName, HeaderValue), BadSetting>> {
    let of = |name: &str, value: &str, path: &[&str]| header(name, value).map_err(|why| BadSetting::new(path, why));
    let named = settings.headers.iter();
    let mut headers: Vec<_> = named.map(|(name, value)| of(name, value.expose(), &["headers", name])).collect();
    let credentials = match &settings.auth {
        None => return headers,
        Some(Auth::Bearer(token)) => format!("Bearer {}", token.expose()),
        Some(Auth::Basic(basic)) => {
            let mut encoded = Vec::new();
            encode::base64(format!("{}:{}", &*basic.user, basic.password.expose()).as_bytes(), &mut encoded);
            format!("Basic {}", String::from_utf8_lossy(&encoded))
        }
    };
    headers.push(match settings.headers.keys().find(|name| name.eq_ignore_ascii_case(AUTHORIZATION.as_str())) {
        Some(name) => {
            let bad = BadSetting::new(&["headers", name], "both `auth` and `headers` set `Authorization`");
            Err(bad.help("remove one of the two"))
        }
        None => header("authorization", &credentials).map_err(|_| {
            BadSetting::new(&["auth"], "`auth` has characters that a header cannot hold, such as a line end")
        }),
    });
    headers
}

/// Parses a header. The error never shows its value.
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(format!("`{name}` is not a valid header name"));
    };
    if is_reserved(&name) {
        return Err(format!("the header `{name}` cannot be set by a pipeline"));
    }
    let Ok(mut value) = HeaderValue::from_str(value) else {
        return Err(format!("the value of `{name}` has characters that a header cannot hold, such as a line end"));
    };
    value.set_sensitive(name != CONTENT_TYPE);
    debug_assert!(name != AUTHORIZATION || value.is_sensitive());
    Ok((name, value))
}

/// The characters that a header cannot hold, and `%`, so that different keys stay different.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

fn key_value(key: &str) -> HeaderValue {
    let encoded = utf8_percent_encode(key, ESCAPED).to_string();
    HeaderValue::from_str(&encoded).expect("the escaped key has visible ASCII characters and spaces only")
}

#[cfg(test)]
mod tests;
