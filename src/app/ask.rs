//! What one process asks another: the daemon that runs by the same settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::config::settings::{Listen, Settings};
use crate::telemetry::health::Judgement;

/// How long an answer may take: less than whoever runs this as a probe waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// Returns what the daemon says of its health.
///
/// # Errors
/// Nobody listens where the settings say, or answers in time, or answers as a daemon does.
pub async fn health(settings: &Settings) -> anyhow::Result<Judgement> {
    let Listen::At(address) = settings.listen else { bail!("`listen` is \"off\": there is nobody to ask") };
    let address = reachable(address);
    let answer = get(&format!("http://{address}/health"))
        .await
        .with_context(|| format!("the daemon does not answer at `{address}`, where `listen` says"))?;
    serde_json::from_str(&answer)
        .with_context(|| format!("what listens at `{address}` does not answer as propulsiond does"))
}

/// Returns where to reach what listens on all addresses of this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Returns the body of an answer, whatever its status: 503 is an answer, too.
async fn get(url: &str) -> anyhow::Result<String> {
    // Of several that want one the first installs it, and any will do.
    let _installed_already = rustls::crypto::ring::default_provider().install_default().is_err();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        // No certificate is looked at, and an image need not have any.
        .tls_certs_only([])
        .build()?;
    let answer = client.get(url).send().await.map_err(said)?;
    answer.text().await.map_err(said)
}

fn said(error: reqwest::Error) -> anyhow::Error {
    anyhow::anyhow!(crate::runtime::http_client::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("127.0.0.1:9464", "127.0.0.1:9464"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
