//! The HTTP client of every connector: one stack, one TLS library, without redirects or hidden retries.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

/// Returns the builder of a client. Without `tls` the client speaks plain HTTP only, and a container needs no
/// certificates.
pub(crate) fn client(tls: bool, timeout: Duration, connect_timeout: Duration) -> ClientBuilder {
    // Concurrent calls race to install the provider. Any of them may win: all install the same one.
    let _installed_already = rustls::crypto::ring::default_provider().install_default().is_err();
    let builder = Client::builder()
        .user_agent(concat!("propulsiond/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy();
    if tls { builder } else { builder.tls_certs_only([]) }
}

/// Formats an error with its causes, without its URL, which can hold secrets.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let mut causes: Vec<_> = causes.map(crate::formats::words::message).collect();
    // The text of a level can repeat the text of the next.
    causes.dedup_by(|inner, outer| outer.ends_with(inner.as_str()));
    if causes.is_empty() { "the request could not be sent".to_owned() } else { causes.join(": ") }
}
