//! The HTTP client of a sink.

use reqwest::Client;

use super::target::Target;
use super::{Hidden, Settings};
use crate::connector::BadSetting;
use crate::runtime::http_client;

/// The most headers of an answer over HTTP/1. The library's own limit is 100, and gateways add many.
const MAX_RESPONSE_HEADERS: usize = 1_000;
/// The most bytes of an answer's headers over HTTP/2, which counts bytes instead.
const MAX_RESPONSE_HEADER_BYTES: u32 = 256 * 1_024;

/// Makes the client. It connects with the first request.
pub(super) fn client(settings: &Settings, target: &Target) -> anyhow::Result<Client> {
    let tls = target.is_tls() || settings.proxy.is_some();
    let mut builder = http_client::client(tls, settings.timeout, settings.connect_timeout)
        .http1_max_headers(MAX_RESPONSE_HEADERS)
        .http2_max_header_list_size(MAX_RESPONSE_HEADER_BYTES);
    if let Some(settings) = &settings.proxy {
        builder = builder.proxy(proxy(settings)?);
    }
    builder.build().map_err(|error| anyhow::anyhow!("make the HTTP client: {}", http_client::chain(&error)))
}

/// Parses the setting `proxy`. The error does not show it, as it may hold a password.
pub(super) fn proxy(proxy: &Hidden) -> Result<reqwest::Proxy, BadSetting> {
    reqwest::Proxy::all(proxy.expose()).map_err(|_| BadSetting::new(&["proxy"], "`proxy` is not a url"))
}
