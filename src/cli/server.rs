//! Which installation a command talks to, and as whom.

use clap::Args;

use super::failure::Failure;
use crate::client::{Address, Client};

#[derive(Args, Debug)]
pub struct Server {
    /// Where Tidings answers; several, separated by commas, are tried in turn
    #[arg(
        long,
        env = "TIDINGS_URL",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8080"
    )]
    url: Vec<String>,
    /// An API key or a JWT
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Server {
    pub fn client(&self) -> Result<Client, Failure> {
        let address = |text: &String| {
            Address::parse(text).map_err(|error| Failure::misused(format!("--url {text}: {error}")))
        };
        let addresses: Result<Vec<Address>, Failure> = self.url.iter().map(address).collect();
        let token = self.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        Ok(Client::new(addresses?, token)?)
    }
}
