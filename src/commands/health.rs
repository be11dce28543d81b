//! The health of the daemon that runs with the same settings, asked over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;

use crate::telemetry::health::Judgement;

/// The limit for the request. It is shorter than the default time-outs of probes that run this command.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the answer of the daemon that listens at an address.
///
/// # Errors
/// No daemon listens there, or it does not answer in time, or the answer is not a daemon's.
pub(crate) async fn ask(listen: SocketAddr) -> anyhow::Result<Judgement> {
    let address = reachable(listen);
    let answer = get(&format!("http://{address}/health"))
        .await
        .with_context(|| format!("the daemon does not answer at `{address}`, the address of `listen`"))?;
    serde_json::from_str(&answer).with_context(|| format!("the server at `{address}` is not propulsiond"))
}

/// Returns the address at which a listener on all addresses of this machine can be reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Returns the body of an answer with any status: 503 is an answer, too.
async fn get(url: &str) -> anyhow::Result<String> {
    // The first of several calls installs the provider; each would install the same one.
    let _installed_already = rustls::crypto::ring::default_provider().install_default().is_err();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(REQUEST_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // The request is plain HTTP, and a container image need not have certificates.
        .tls_certs_only([])
        .build()?;
    let answer = client.get(url).send().await.map_err(described)?;
    answer.text().await.map_err(described)
}

fn described(error: reqwest::Error) -> anyhow::Error {
    anyhow::anyhow!(crate::runtime::http_client::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_listens_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("127.0.0.1:9464", "127.0.0.1:9464"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
