//! The client of the daemon that runs with the same settings. It asks over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::settings::{DaemonSettings, Listen};
use crate::runtime::http_client;

/// The limit for a request. It is shorter than the default time-outs of probes that run `health`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// The limit for a command. The daemon waits up to five minutes for its end.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(310);

/// A client of the daemon's API.
pub(crate) struct Client<'a> {
    address: SocketAddr,
    token: Option<&'a str>,
    http: reqwest::Client,
}

impl<'a> Client<'a> {
    /// Makes the client for the address and the token of the settings.
    ///
    /// # Errors
    /// The daemon does not listen.
    pub(crate) fn new(settings: &'a DaemonSettings) -> anyhow::Result<Self> {
        let Listen::At(listen) = settings.listen else {
            anyhow::bail!("`listen` is \"off\": the daemon cannot answer");
        };
        let http = http_client::client(false, REQUEST_TIMEOUT, REQUEST_TIMEOUT).build()?;
        let token = settings.http.token.as_ref().map(|token| token.expose());
        Ok(Self { address: reachable(listen), token, http })
    }

    /// Returns the answer at a path, whatever its status: 503 is an answer, too.
    ///
    /// # Errors
    /// No daemon listens at the address, or it does not answer in time, or refuses to answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(self.http.get(format!("http://{}{path}", self.address))).await
    }

    /// Returns the answer at a path, with the fields of `query` as its parameters.
    ///
    /// # Errors
    /// As [`Self::get`]'s.
    pub(crate) async fn get_with<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> anyhow::Result<T> {
        let mut url = reqwest::Url::parse(&format!("http://{}{path}", self.address))?;
        let fields = serde_json::to_value(query)?;
        for (name, value) in fields.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            url.query_pairs_mut().append_pair(name, &text);
        }
        self.send(self.http.get(url)).await
    }

    /// Sends a JSON body to a path, and returns the answer. It may take as long as the daemon drains.
    ///
    /// # Errors
    /// As [`Self::get`]'s.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let request = self.http.post(format!("http://{}{path}", self.address)).timeout(COMMAND_TIMEOUT);
        self.send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> anyhow::Result<T> {
        let Self { address, token, .. } = self;
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
        };
        let answer = answer.await.map_err(|error| anyhow::anyhow!(http_client::chain(&error)));
        let (status, body) =
            answer.with_context(|| format!("the daemon does not answer at `{address}`, the address of `listen`"))?;
        if status.is_client_error()
            && let Ok(Refusal { error: why }) = serde_json::from_str(&body)
        {
            anyhow::bail!("the daemon at `{address}` refuses: {why}");
        }
        serde_json::from_str(&body).with_context(|| format!("the server at `{address}` is not propulsiond"))
    }
}

/// The daemon's answer in place of the wanted one.
#[derive(serde::Deserialize)]
struct Refusal {
    error: String,
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
