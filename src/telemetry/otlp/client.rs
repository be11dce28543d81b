//! The HTTP client of the encoder.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::Options;
use crate::runtime::http_client;

/// The length of the part of a response body that is read.
const MOST_READ: usize = 64 * 1024;

/// The outcome of a request. The encoder itself reports success or failure only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Answered(u16),
    Failed(String),
}

#[derive(Clone)]
pub(super) struct Client {
    client: reqwest::Client,
    sent: Arc<Mutex<Option<Sent>>>,
}

impl Client {
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let tls = !options.endpoint.starts_with("http://");
        let client = http_client::client(tls, options.timeout, options.timeout)
            .default_headers(headers(options)?)
            .build()
            .map_err(|error| {
                anyhow::anyhow!("cannot create the HTTP client of the exporter: {}", http_client::chain(&error))
            })?;
        Ok(Self { client, sent: Arc::default() })
    }

    /// Takes the outcome of the last request; `None` if there was none.
    pub(super) fn sent(&self) -> Option<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut answer = self.client.execute(reqwest::Request::try_from(request)?).await?;
        let status = answer.status();
        let mut body = Vec::new();
        while body.len() < MOST_READ
            && let Some(chunk) = answer.chunk().await?
        {
            body.extend_from_slice(&chunk);
        }
        let response = Response::builder().status(status).body(body.into())?;
        Ok(response)
    }
}

fn headers(options: &Options) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &options.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .with_context(|| format!("`otlp.headers`: `{name}` is not a header name"))?;
        let mut value = HeaderValue::from_str(value.expose())
            .with_context(|| format!("`otlp.headers`: the value of `{name}` is not valid in a header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Hides the headers, which can hold secrets.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let result = self.send(request).await;
        let sent = match &result {
            Ok(response) => Sent::Answered(response.status().as_u16()),
            Err(error) => Sent::Failed(match error.downcast_ref::<reqwest::Error>() {
                Some(error) => http_client::chain(error),
                None => error.to_string(),
            }),
        };
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
        result
    }
}
