//! Debian's package, installed without a cluster of its own: only its programs are wanted.

use std::process::{Command, Stdio};

use super::account::is_root;

/// What runs with the rights of root. Debian reads the directory before it makes the cluster that
/// comes with a fresh installation, and a later installation is to make one again, so the file goes.
const SCRIPT: &str = r#"
set -e
conf=/etc/postgresql-common/createcluster.d
mkdir -p $conf
trap 'rm -f $conf/tidings-$$.conf' EXIT
echo 'create_main_cluster = false' >$conf/tidings-$$.conf
export DEBIAN_FRONTEND=noninteractive
# Others may be installing too; and a mirror that does not answer must not hold us up.
wait='-o DPkg::Lock::Timeout=120 -o Acquire::http::Timeout=20 -o Acquire::Retries=1'
install="apt-get $wait install -y -q --no-install-recommends postgresql"
$install || { apt-get $wait update -q && $install; }
"#;

/// `Err` says why nothing was installed, as the end of a sentence.
pub fn run() -> Result<(), String> {
    if !succeeds(Command::new("apt-get").arg("--version")) {
        return Err("there is no apt-get here".to_owned());
    }
    let mut command = if is_root() {
        Command::new("sh")
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        let mut command = Command::new("sudo");
        command.args(["-n", "sh"]);
        command
    } else {
        return Err("installing one needs root or sudo without a password".to_owned());
    };
    eprintln!(
        "No Postgres here: installing Debian's package postgresql (once; it starts nothing)."
    );
    let output = command
        .args(["-c", SCRIPT])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("apt-get could not be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    Err(format!("apt-get install postgresql failed ({})", last.trim()))
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
