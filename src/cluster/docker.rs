//! Whether a Docker engine can lend us a Postgres.

use std::process::{Command, Stdio};

/// The newest major version that was tried.
pub const IMAGE: &str = "postgres:17";

/// The client may be there without an engine, so the engine is asked.
pub fn answers() -> bool {
    let asked = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}
