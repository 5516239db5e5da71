//! Presence in Postgres: in tables that are not logged, under the lease of each replica.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::notice::{user, whole};
use super::query::{self, Params};
use super::row::{self, get};
use super::task::{count, millis};
use super::{PostgresStore, StoreError};
use crate::domain::{Pattern, Timestamp, Topic, UserId};
use crate::store::presence::{
    Changes, Move, Own, PresenceStore, PresentReplica, PresentSession, PresentUser, Renewed,
};

#[async_trait]
impl PresenceStore for PostgresStore {
    async fn renew(&self, own: &Own, lease: Duration) -> Result<Renewed, StoreError> {
        let params: Params = &[&&*own.id, &&*own.name, &env!("CARGO_PKG_VERSION"), &millis(lease)];
        let found = self.database.row(&query::PRESENCE_RENEW, params).await?;
        Ok(Renewed { known: whole(&found, 0)?, lapsed: get(&found, 1)? })
    }

    async fn write(&self, own: &Own, changes: &Changes) -> Result<Vec<Move>, StoreError> {
        let there = &changes.there;
        let ids: Vec<&str> = there.iter().map(|session| &*session.id).collect();
        let users: Vec<&str> = there.iter().map(|session| session.user.as_str()).collect();
        let topics: Vec<String> = there.iter().map(topics).collect();
        let sinces: Vec<i64> = there.iter().map(|session| session.since.0).collect();
        let gone: Vec<&str> = changes.gone.iter().map(|id| &**id).collect();
        let (watched_users, watched_topics) = columns(&changes.watched);
        let params: Params =
            &[&&*own.id, &ids, &users, &topics, &sinces, &gone, &watched_users, &watched_topics];
        self.database.rows(&query::PRESENCE_WRITE, params).await?.iter().map(moved).collect()
    }

    async fn reap(
        &self,
        leaving: Option<&Own>,
        watched: &[Pattern],
    ) -> Result<Vec<Move>, StoreError> {
        let params: Params = &[&leaving.map(|own| &*own.id)];
        let mut left: Vec<(UserId, Topic)> = Vec::new();
        for found in self.database.rows(&query::PRESENCE_REAP, params).await? {
            let user = user(&found, 0)?;
            let topics = get::<Vec<&str>>(&found, 1)?;
            let topics = topics.into_iter().filter_map(|topic| Topic::parse(topic).ok());
            let topics = topics.filter(|topic| watched.iter().any(|one| one.matches(topic)));
            left.extend(topics.map(|topic| (user.clone(), topic)));
        }
        left.sort_unstable();
        left.dedup();
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let (users, topics) = columns(&left);
        let params: Params = &[&users, &topics];
        for found in self.database.rows(&query::PRESENCE_PAIRS, params).await? {
            let still = (user(&found, 0)?, row::topic(&found, 1)?);
            left.retain(|pair| *pair != still);
        }
        Ok(left.into_iter().map(|(user, topic)| Move { user, topic, joined: false }).collect())
    }

    async fn users(
        &self,
        topic: Option<&Topic>,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<PresentUser>, StoreError> {
        let params: Params =
            &[&topic.map(Topic::as_str), &after.map(UserId::as_str), &count(limit)];
        self.database.rows(&query::PRESENCE_USERS, params).await?.iter().map(present).collect()
    }

    async fn replicas(&self) -> Result<Vec<PresentReplica>, StoreError> {
        let rows = self.database.rows(&query::PRESENCE_REPLICAS, &[]).await?;
        let one = |found: &Row| {
            Ok(PresentReplica {
                name: get::<&str>(found, 0)?.into(),
                version: get::<&str>(found, 1)?.into(),
                since: Timestamp(get(found, 2)?),
                sessions: whole(found, 3)?,
            })
        };
        rows.iter().map(one).collect()
    }
}

/// The patterns of a session in one text: none has a space in it.
fn topics(session: &PresentSession) -> String {
    let patterns: Vec<String> = session.patterns.iter().map(ToString::to_string).collect();
    patterns.join(" ")
}

fn columns(pairs: &[(UserId, Topic)]) -> (Vec<&str>, Vec<&str>) {
    pairs.iter().map(|(user, topic)| (user.as_str(), topic.as_str())).unzip()
}

fn moved(found: &Row) -> Result<Move, StoreError> {
    Ok(Move { user: user(found, 0)?, topic: row::topic(found, 1)?, joined: get(found, 2)? })
}

fn present(found: &Row) -> Result<PresentUser, StoreError> {
    let replicas = get::<Vec<&str>>(found, 3)?;
    Ok(PresentUser {
        user: user(found, 0)?,
        sessions: whole(found, 1)?,
        since: Timestamp(get(found, 2)?),
        replicas: replicas.into_iter().map(Arc::from).collect(),
    })
}
