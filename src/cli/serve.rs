//! `tidings serve`: runs a replica until it is told to leave.
//!
//! With nothing set at all it must work at once and let nobody in who was not invited: in memory
//! and on loopback a key is made up, and shown in a text for people. It stands in that text alone.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use super::failure::Failure;
use crate::config::{Config, Secret};
#[cfg(feature = "otel")]
use crate::spans;
use crate::{app, logging};

pub async fn run(mut config: Config, hangs_on_stdin: bool) -> Result<ExitCode, Failure> {
    logging::start(&config.logging).map_err(Failure::failed)?;
    #[cfg(feature = "otel")]
    let export = spans::start(config.replica.as_str()).map_err(Failure::failed)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let key = is_trial(&config).then(made_up_key);
    config.auth.api_keys.extend(key.clone());
    // Whoever hangs on a pipe is started again by whoever holds it.
    config.demo = hangs_on_stdin && config.dev;
    let welcome = |address| {
        if let Some(key) = &key {
            // To people, not to the log, which is kept and handed on.
            let _ = std::io::stderr().write_all(welcome_text(address, key.expose()).as_bytes());
        }
    };
    let code = app::serve(&config, hangs_on_stdin, welcome).await.map_err(Failure::failed);
    #[cfg(feature = "otel")]
    if let Some(export) = export {
        export.finish().await;
    }
    code.map(ExitCode::from)
}

/// Nobody could be let in, nothing is kept, and nobody else can reach it.
fn is_trial(config: &Config) -> bool {
    let open = |address: SocketAddr| !address.ip().is_loopback();
    let reachable = open(config.server.listen) || config.server.ops_listen.is_some_and(open);
    let nobody = config.auth.is_empty() && !config.dev;
    nobody && config.postgres.database.is_none() && !reachable
}

/// 256 bits of the system's randomness.
fn made_up_key() -> Secret {
    let bytes: [u8; 32] = rand::random();
    Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn welcome_text(address: SocketAddr, key: &str) -> String {
    let url = format!("http://{address}");
    let place =
        if url == "http://127.0.0.1:8080" { String::new() } else { format!(" --url {url}") };
    format!(
        "
Tidings runs in memory: one replica, on this machine only, and nothing is kept when it ends.

  address   {url}
  API key   {key}
            (made up for this run; set TIDINGS_API_KEYS or TIDINGS_JWT_SECRET for your own)

Listen in one terminal, publish in another:

  tidings tail 'order:*'{place} --token {key}
  curl {url}/v1/messages -H 'Authorization: Bearer {key}' -d '{{\"topic\":\"order:7\",\"data\":{{\"step\":\"packed\"}}}}'

"
    )
}
