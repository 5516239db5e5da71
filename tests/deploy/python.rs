//! Programs from PyPI, each in an environment of its own that later runs find again.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// `None` where it cannot be had; then that is said.
pub fn find(program: &str, version: &str) -> Option<PathBuf> {
    // Two that install at once would be in each other's way.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or(home.map(|home| home.join(".cache"))).unwrap_or_else(std::env::temp_dir);
    let dir = cache.join("tidings").join(format!("{program}-{version}"));
    let (file, complete) = (dir.join("bin").join(program), dir.join("complete"));
    if complete.is_file() {
        return Some(file);
    }
    let script = r#"rm -rf "$0" && python3 -m venv "$0" && "$0/bin/pip" install -q "$1" && touch "$0/complete""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(&dir).arg(format!("{program}=={version}"));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if shell.status().is_ok_and(|status| status.success()) {
        return Some(file);
    }
    let missing = format!(
        "{program} {version} of PyPI cannot be installed: Python 3 is needed, and a way there"
    );
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("SKIPPED: {missing}");
    None
}
