//! Programs that tests run beside our own: found, or installed from Debian's packages.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// A directory and what runs in it; both end with this.
pub struct Running {
    pub dir: PathBuf,
    child: Child,
}

impl Running {
    pub fn start(dir: PathBuf, command: &mut Command) -> Running {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        Running { dir, child: quiet.stderr(Stdio::null()).spawn().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Some have children of their own, which end if they are told to, and stay if it is killed.
        let id = self.child.id();
        let told = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status();
        if !told.is_ok_and(|told| told.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn directory(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("{name}-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&dir).unwrap();
    dir
}

/// They cannot be asked to find one themselves. Not of those that the kernel gives to connections: a
/// client of another test may have it by the time that it is bound.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| rand::random_range(20_000..32_000)).find(is_free).unwrap()
}

pub fn is_root() -> bool {
    let told = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&told.stdout).trim() == "0"
}

/// `None` where it is not and cannot be installed; then the test says so and is skipped.
pub fn find(program: &str, package: &str) -> Option<PathBuf> {
    // Once a process, and one at a time: two that install at once would be in each other's way.
    static FOUND: Mutex<Option<HashMap<String, Option<PathBuf>>>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap();
    let known = found.get_or_insert_default().entry(program.to_owned());
    known.or_insert_with(|| installed(program).or_else(|| install(program, package))).clone()
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/opt/homebrew/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| Path::is_file(file))
}

fn install(program: &str, package: &str) -> Option<PathBuf> {
    // Only the program is wanted: at this run level Debian starts no service with it.
    let install = format!(
        "RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
         install -y -q --no-install-recommends {package}"
    );
    let script = format!("{install} || {{ apt-get update -q && {install}; }}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let tried = is_root() && shell.status().is_ok_and(|status| status.success());
    let found = if tried { installed(program) } else { None };
    if found.is_none() {
        let missing = format!(
            "there is no {program} here, and it cannot be installed; install {package} to run \
             the tests that need it"
        );
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        eprintln!("SKIPPED: {missing}");
    }
    found
}
