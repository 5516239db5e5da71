//! Why a command did not do what it was asked, and what it returns then.

use std::error::Error;
use std::process::ExitCode;

use crate::client::ClientError;
use crate::config::ConfigError;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Asked wrongly.
    #[error("{0}")]
    Misused(Cause),
    /// Asked rightly, and not done.
    #[error("{0}")]
    Failed(Cause),
}

/// A sentence, or an error that is one.
type Cause = Box<dyn Error + Send + Sync>;

impl Failure {
    pub fn misused(cause: impl Into<Cause>) -> Failure {
        Failure::Misused(cause.into())
    }

    pub fn failed(cause: impl Into<Cause>) -> Failure {
        Failure::Failed(cause.into())
    }

    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Misused(_) => 2,
            Failure::Failed(_) => 1,
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::misused(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Token | ClientError::NoAddress => Failure::misused(error),
            error => Failure::failed(error),
        }
    }
}
