//! Under whose name Postgres runs: it refuses to run as root.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::ClusterError;

/// Who may own a data directory when we are root: Debian's own account, or the one that owns nothing.
const CANDIDATES: &[&str] = &["postgres", "_postgres", "nobody"];

/// A user and a group to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// `None` when we are not root and may stay who we are.
    pub fn to_drop_to() -> Result<Option<Account>, ClusterError> {
        if !is_root() {
            return Ok(None);
        }
        let found = CANDIDATES.iter().find_map(|name| {
            let (uid, gid) = (id("-u", Some(name))?, id("-g", Some(name))?);
            (uid != 0).then_some(Account { uid, gid })
        });
        found.map(Some).ok_or(ClusterError::NoAccount)
    }

    pub fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

pub fn is_root() -> bool {
    id("-u", None) == Some(0)
}

/// std knows no `geteuid`, and the program stands in every system that has a shell.
fn id(flag: &str, name: Option<&str>) -> Option<u32> {
    let output = Command::new("id").arg(flag).args(name).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
