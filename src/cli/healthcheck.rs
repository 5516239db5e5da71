//! `tidings healthcheck`: asks a replica whether it is ready, for containers that have no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::output;
use crate::client::Address;
use crate::config::Config;

#[derive(Args, Debug)]
pub struct Healthcheck {
    /// Which replica; unset, the one that would listen here by these settings
    #[arg(long)]
    url: Option<String>,
    /// How long it may take to answer
    #[arg(long, value_name = "SECONDS", default_value = "3")]
    timeout_s: u64,
}

impl Healthcheck {
    /// Settings are looked at only if they are needed.
    pub async fn run(
        &self,
        config: impl FnOnce() -> Result<Config, Failure>,
    ) -> Result<ExitCode, Failure> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => {
                let server = config()?.server;
                format!("http://{}", reachable(server.ops_listen.unwrap_or(server.listen)))
            }
        };
        let address =
            Address::parse(&url).map_err(|error| Failure::misused(format!("--url: {error}")))?;
        let unreachable = |error: reqwest::Error| {
            Failure::failed(format!("{address} does not answer: {}", cause(&error)))
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(self.timeout_s.max(1)))
            .build()
            .map_err(unreachable)?;
        let answered = client.get(format!("{address}/readyz")).send().await.map_err(unreachable)?;
        if answered.status().is_success() {
            output::answer("ready");
            return Ok(ExitCode::SUCCESS);
        }
        let status = answered.status();
        let body: Value = answered.json().await.unwrap_or_default();
        let of = |key: &str| body[key].as_str().map(|text| format!(", {key} {text}"));
        let parts: String = ["listener", "schema"].into_iter().filter_map(of).collect();
        let leaving = if body["draining"] == true { ", leaving" } else { "" };
        Err(Failure::failed(format!("not ready ({}{parts}{leaving})", status.as_u16())))
    }
}

/// Who listens everywhere is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
