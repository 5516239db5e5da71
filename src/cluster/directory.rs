//! A directory of our own, and names and ports that nobody else has.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use super::account::Account;

/// Below the range from which systems take the ports of outgoing connections (Linux 32768, others
/// 49152): a client that keeps connecting to a stopped server would otherwise, sooner or later, be
/// given the server's port as its own, and hold it when the server comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A number that two processes, or two calls, do not share.
pub fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A port of loopback that is free at this moment. Somebody may take it before it is used: try again.
pub fn free_port() -> Option<u16> {
    let width = u64::from(PORTS.end - PORTS.start);
    (0..100).find_map(|_| {
        let offset = u16::try_from(random() % width).ok()?;
        let port = PORTS.start + offset;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    })
}

/// A new directory, owned by `account` and closed to everybody else.
pub fn make(account: Option<Account>) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, chown};
    // Root's own temporary directory may be closed to the account that Postgres runs as.
    let parent = match account {
        Some(_) => PathBuf::from("/tmp"),
        None => std::env::temp_dir(),
    };
    let dir = parent.join(format!("tidings-{:016x}", random()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    if let Some(Account { uid, gid }) = account {
        chown(&dir, Some(uid), Some(gid))?;
    }
    Ok(dir)
}

#[cfg(test)]
pub fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tidings-{name}-{:016x}", random()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
