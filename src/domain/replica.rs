//! The name of a running process among its like.

use std::fmt;
use std::sync::Arc;

use super::Topic;

/// The longest name of a replica, in bytes: that of a host.
pub const REPLICA_BYTES_MAX: usize = 64;

/// 1 to 64 of the characters that a topic is made of.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ReplicaId(Arc<str>);

impl ReplicaId {
    pub fn parse(text: &str) -> Option<ReplicaId> {
        let fits = text.len() <= REPLICA_BYTES_MAX && Topic::parse(text).is_ok();
        fits.then(|| ReplicaId(text.into()))
    }

    /// The name that is nearest to whatever the host is called.
    pub fn from_host(host: &str) -> ReplicaId {
        let allowed =
            |c: char| if Topic::parse(c.encode_utf8(&mut [0; 4])).is_ok() { c } else { '-' };
        let name: String = host.trim().chars().map(allowed).take(REPLICA_BYTES_MAX).collect();
        ReplicaId(if name.is_empty() { "replica".into() } else { name.into() })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_named_like_a_host_or_a_pod() {
        for good in ["a", "tidings-7f9c-x2", "node.example.com:8080", &"x".repeat(64)] {
            assert_eq!(ReplicaId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "é", &"x".repeat(65)] {
            assert_eq!(ReplicaId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(ReplicaId::from_host(" my host\n").as_str(), "my-host");
        assert_eq!(ReplicaId::from_host("").as_str(), "replica");
        assert_eq!(ReplicaId::from_host(&"é".repeat(99)).as_str().len(), 64);
    }
}
