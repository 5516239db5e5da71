//! What an installation is made of, without an engine and without a cluster: the image, compose.yaml,
//! the manifests of Kubernetes, alerts and dashboards. What schemas do not say is asked here.

#[path = "../it/programs.rs"]
#[expect(dead_code, reason = "of what other tests run, these need to find a program only")]
mod programs;

mod compose;
mod image;
mod kubernetes;
mod manifests;
mod monitoring;
mod python;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether a replica could be started with these settings; says why not.
pub fn settings_are_right(settings: &[(String, String)]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.arg("check-config").env_clear();
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{settings:?}: {}", String::from_utf8_lossy(&ran.stderr));
    let known = tidings::config::settings_markdown();
    for (name, _) in settings {
        // Nobody refuses a variable that is none of ours; one that looks so is a mistake.
        assert!(known.contains(&format!("`{name}`")), "{name} is no setting");
    }
}

pub fn subcommand_exists(name: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    let ran = command.args([name, "--help"]).output().unwrap();
    assert!(ran.status.success(), "there is no `tidings {name}`");
}

/// Runs a checker and says what it said if it is not content.
pub fn passes(command: &mut Command) -> String {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&ran.stderr));
    said
}
