//! The HTTP client of all that makes requests: one stack, one TLS library, nothing followed or repeated behind our back.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

/// Returns what makes a client. `tls`: it may have to speak TLS; without, a container needs no certificates.
pub fn client(tls: bool, timeout: Duration, connect_timeout: Duration) -> ClientBuilder {
    // Of several that start at once one installs it, and any will do.
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

/// Returns what an error says, with its causes but without its url, which may hold secrets.
pub fn chain(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let mut causes: Vec<_> = causes.map(crate::formats::words::message).collect();
    // Each level may repeat the next.
    causes.dedup_by(|inner, outer| outer.ends_with(inner.as_str()));
    if causes.is_empty() { "it could not be sent".to_owned() } else { causes.join(": ") }
}
