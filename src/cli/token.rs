//! `tidings token`: signs a JWT with the configured secret, for trying out and small installations.

use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::output::{answer, say};
use crate::auth::{TokenRequest, sign};
use crate::clock::Clock;
use crate::config::{Config, Keys};

/// Ten years: longer is a mistake.
const TTL_S_MAX: u64 = 315_360_000;

#[derive(Args, Debug)]
pub struct Token {
    /// The user's id
    #[arg(long, value_name = "USER")]
    sub: String,
    /// A role, repeatable or separated by commas; `admin` may do everything
    #[arg(long, visible_alias = "roles", value_name = "ROLE", value_delimiter = ',')]
    role: Vec<String>,
    /// A topic, or prefix ending in `*`, that may be subscribed to; repeatable
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    subscribe: Vec<String>,
    /// A topic, or prefix ending in `*`, that may be published on; repeatable
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    publish: Vec<String>,
    /// Both at once
    #[arg(long, visible_alias = "topic", value_name = "PATTERN", value_delimiter = ',')]
    topics: Vec<String>,
    /// How long it is good for
    #[arg(long, value_name = "SECONDS", default_value = "3600")]
    ttl_s: u64,
}

impl Token {
    pub fn run(&self, config: &Config) -> Result<ExitCode, Failure> {
        if !(1..=TTL_S_MAX).contains(&self.ttl_s) {
            return Err(Failure::misused(format!("--ttl-s is 1 to {TTL_S_MAX}")));
        }
        let secret = match &config.auth.keys {
            Some(Keys::Secret(secret)) => secret,
            Some(_) => {
                return Err(Failure::misused(
                    "this installation checks tokens with public keys: only who holds the private one can sign",
                ));
            }
            None => {
                return Err(Failure::misused(
                    "there is no secret to sign with: set TIDINGS_JWT_SECRET, or --jwt-secret-file",
                ));
            }
        };
        for warning in &config.warnings {
            say(warning);
        }
        let with_both = |own: &[String]| own.iter().chain(&self.topics).cloned().collect();
        let now_s = Clock::system().now().0.div_euclid(1000);
        let request = TokenRequest {
            user: self.sub.clone(),
            roles: self.role.clone(),
            subscribe: with_both(&self.subscribe),
            publish: with_both(&self.publish),
            expires_at_s: now_s.saturating_add_unsigned(self.ttl_s),
            issuer: config.auth.issuer.clone(),
            audience: config.auth.audience.clone(),
        };
        answer(sign(&request, secret.expose()).map_err(Failure::misused)?);
        Ok(ExitCode::SUCCESS)
    }
}
