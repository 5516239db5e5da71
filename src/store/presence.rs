//! The contract of what keeps presence: which users have sessions, where, and on which topics.
//!
//! A session's row counts as long as its replica renews its lease, which is one statement for all
//! of them. What is kept may be lost with a crash of the database; its replicas write it anew.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::domain::{Pattern, Timestamp, Topic, UserId};

#[derive(Debug, Clone, PartialEq)]
pub struct PresentSession {
    pub id: Arc<str>,
    pub user: UserId,
    pub patterns: Vec<Pattern>,
    pub since: Timestamp,
}

/// What changed of a replica's sessions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// New, or with other topics.
    pub there: Vec<PresentSession>,
    pub gone: Vec<Arc<str>>,
    /// Who may have joined or left what is watched by that.
    pub watched: Vec<(UserId, Topic)>,
}

/// Somebody joined a watched topic with a first session, or left it with the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub user: UserId,
    pub topic: Topic,
    pub joined: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PresentUser {
    pub user: UserId,
    pub sessions: u64,
    pub since: Timestamp,
    /// Their names, each once.
    pub replicas: Vec<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PresentReplica {
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub since: Timestamp,
    /// Of users.
    pub sessions: u64,
}

/// A replica, by its name and a word that no other process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub id: Arc<str>,
    pub name: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// How many sessions of this replica are kept.
    pub known: u64,
    /// Whether there are replicas whose lease ran out.
    pub lapsed: bool,
}

#[async_trait]
pub trait PresenceStore: Send + Sync {
    async fn renew(&self, own: &Own, lease: Duration) -> Result<Renewed, StoreError>;

    async fn write(&self, own: &Own, changes: &Changes) -> Result<Vec<Move>, StoreError>;

    /// Removes replicas whose lease ran out, and `leaving`. Returns who was on which of the topics
    /// that `watched` matches and is there no more.
    async fn reap(
        &self,
        leaving: Option<&Own>,
        watched: &[Pattern],
    ) -> Result<Vec<Move>, StoreError>;

    /// Users with sessions, everywhere or on one topic, by their names; a page begins after one.
    async fn users(
        &self,
        topic: Option<&Topic>,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<PresentUser>, StoreError>;

    async fn replicas(&self) -> Result<Vec<PresentReplica>, StoreError>;
}
