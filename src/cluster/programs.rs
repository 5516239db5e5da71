//! Finds the programs of a Postgres server, wherever the system keeps them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{ClusterError, docker, install};

/// What a server needs; a directory that lacks one of them holds a client at most.
const NEEDED: &[&str] = &["initdb", "postgres", "pg_ctl"];

/// Where versions stand side by side: the directory, what a version's begins with, and what follows it.
const VERSIONED: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// What can run a private Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programs {
    /// The directory that holds `initdb`, `postgres` and `pg_ctl`.
    Native(PathBuf),
    /// A Docker engine that answers.
    Docker,
}

impl Programs {
    /// What is there already; else Debian's package, if we may install it; else Docker.
    pub fn find() -> Result<Programs, ClusterError> {
        // Once a process: what could not be installed a moment ago cannot be now.
        static FOUND: OnceLock<Result<Programs, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| choose(installed, install::run, docker::answers));
        found.clone().map_err(ClusterError::NoPostgres)
    }
}

fn choose(
    installed: impl Fn() -> Option<PathBuf>,
    install: impl FnOnce() -> Result<(), String>,
    docker_answers: impl FnOnce() -> bool,
) -> Result<Programs, String> {
    if let Some(found) = installed() {
        return Ok(Programs::Native(found));
    }
    let refused = match install() {
        Ok(()) => match installed() {
            Some(found) => return Ok(Programs::Native(found)),
            None => "apt-get installed postgresql, but its programs are not there".to_owned(),
        },
        Err(reason) => reason,
    };
    if docker_answers() { Ok(Programs::Docker) } else { Err(refused) }
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    search(&path, pg_config().as_deref(), Path::new("/"))
}

/// `root` stands before the versioned directories, so that a test can bring its own.
fn search(path: &OsStr, pg_config: Option<&Path>, root: &Path) -> Option<PathBuf> {
    let named = std::env::split_paths(path).filter_map(|dir| server_dir(&dir));
    let told = pg_config.and_then(server_dir);
    let mut named = named.chain(told);
    named.next().or_else(|| {
        VERSIONED.iter().find_map(|(parent, prefix, inside)| {
            let parent = root.join(parent.trim_start_matches('/'));
            newest(&parent, prefix, inside)
        })
    })
}

/// The directory itself, with links followed: a link to `postgres` finds its files by its real place.
fn server_dir(dir: &Path) -> Option<PathBuf> {
    if !NEEDED.iter().all(|name| dir.join(name).is_file()) {
        return None;
    }
    let real = dir.join("postgres").canonicalize().ok()?.parent()?.to_path_buf();
    let complete = NEEDED.iter().all(|name| real.join(name).is_file());
    Some(if complete { real } else { dir.to_path_buf() })
}

fn newest(parent: &Path, prefix: &str, inside: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(parent).ok()?;
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(prefix)?.parse().ok()?, entry.path().join(inside)))
        })
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().find_map(|(_, dir)| server_dir(&dir))
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn server(root: &Path, dir: &str) -> PathBuf {
        let dir = root.join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        for name in NEEDED {
            std::fs::write(dir.join(name), "").unwrap();
        }
        dir.canonicalize().unwrap()
    }

    #[test]
    fn the_path_comes_first_then_pg_config_then_the_newest_version() {
        let root = super::super::directory::scratch("programs");
        let nine = server(&root, "usr/lib/postgresql/9/bin");
        let fifteen = server(&root, "usr/lib/postgresql/15/bin");
        std::fs::create_dir_all(root.join("usr/lib/postgresql/16/bin")).unwrap();
        assert_eq!(search(OsStr::new(""), None, &root), Some(fifteen));
        assert_eq!(search(OsStr::new(""), Some(&nine), &root), Some(nine.clone()));
        let own = server(&root, "own");
        let path = std::env::join_paths([root.clone(), own.clone()]).unwrap();
        assert_eq!(search(&path, Some(&nine), &root), Some(own));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_is_there_comes_first_then_a_package_then_docker() {
        let found = PathBuf::from("/found");
        let unwanted = || panic!("asked though there is a server");
        let chosen = choose(|| Some(found.clone()), unwanted, || panic!("no engine is needed"));
        assert_eq!(chosen.unwrap(), Programs::Native(found.clone()));

        let packages = Cell::new(0);
        let afterwards = || (packages.get() > 0).then(|| found.clone());
        let install = || {
            packages.set(packages.get() + 1);
            Ok(())
        };
        let chosen = choose(afterwards, install, || panic!("no engine is needed"));
        assert_eq!(chosen.unwrap(), Programs::Native(found.clone()));
        assert_eq!(packages.get(), 1);

        let refuse = || Err("no rights".to_owned());
        assert_eq!(choose(|| None, refuse, || true).unwrap(), Programs::Docker);
        let sentence = choose(|| None, refuse, || false).unwrap_err();
        assert!(sentence.contains("no rights"), "{sentence}");
        let sentence = choose(|| None, || Ok(()), || false).unwrap_err();
        assert!(sentence.contains("its programs are not there"), "{sentence}");
    }

    #[test]
    fn homebrew_keeps_versions_behind_an_at_sign() {
        let root = super::super::directory::scratch("homebrew");
        let brewed = server(&root, "opt/homebrew/opt/postgresql@17/bin");
        assert_eq!(search(OsStr::new(""), None, &root), Some(brewed));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_client_alone_is_no_server() {
        let root = super::super::directory::scratch("client");
        let bin = root.join("usr/lib/postgresql/15/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("pg_ctl"), "").unwrap();
        assert_eq!(search(OsStr::new(""), None, &root), None);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
