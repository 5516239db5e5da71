//! Presence in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use crate::domain::{Pattern, Timestamp, Topic, UserId};
use crate::store::StoreError;
use crate::store::presence::{
    Changes, Move, Own, PresenceStore, PresentReplica, PresentSession, PresentUser, Renewed,
};

type Pairs = BTreeSet<(UserId, Topic)>;

#[derive(Default)]
pub struct Present {
    replicas: BTreeMap<Arc<str>, Lease>,
    sessions: HashMap<Arc<str>, (Arc<str>, PresentSession)>,
}

struct Lease {
    name: Arc<str>,
    since: Timestamp,
    until: Timestamp,
}

impl Present {
    /// The sessions of replicas whose lease holds.
    fn live(&self, now: Timestamp) -> impl Iterator<Item = (&Lease, &PresentSession)> {
        self.sessions.values().filter_map(move |(replica, session)| {
            let lease = self.replicas.get(replica).filter(|lease| lease.until > now)?;
            Some((lease, session))
        })
    }

    /// Whoever has a session.
    pub fn online(&self, now: Timestamp) -> HashSet<&UserId> {
        self.live(now).map(|(_, session)| &session.user).collect()
    }

    /// Which of these users are on which of these topics, in one pass over the sessions.
    fn pairs(&self, wanted: &BTreeSet<(UserId, Topic)>, now: Timestamp) -> Pairs {
        let mut found = Pairs::new();
        if wanted.is_empty() {
            return found;
        }
        for (_, session) in self.live(now) {
            for pattern in &session.patterns {
                if let Pattern::Exact(topic) = pattern {
                    found.extend(wanted.get(&(session.user.clone(), topic.clone())).cloned());
                }
            }
        }
        found
    }
}

#[async_trait]
impl PresenceStore for MemoryStore {
    async fn renew(&self, own: &Own, lease: Duration) -> Result<Renewed, StoreError> {
        let now = self.clock.now();
        let mut present = self.presence.lock();
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let until = Timestamp(now.0.saturating_add(lease_ms));
        let fresh = || Lease { name: own.name.clone(), since: now, until };
        present.replicas.entry(own.id.clone()).or_insert_with(fresh).until = until;
        let known = present.sessions.values().filter(|(replica, _)| *replica == own.id);
        let lapsed = present.replicas.values().any(|lease| lease.until <= now);
        Ok(Renewed { known: known.count() as u64, lapsed })
    }

    async fn write(&self, own: &Own, changes: &Changes) -> Result<Vec<Move>, StoreError> {
        let now = self.clock.now();
        let mut present = self.presence.lock();
        let watched: Pairs = changes.watched.iter().cloned().collect();
        let before = present.pairs(&watched, now);
        for id in &changes.gone {
            present.sessions.remove(id);
        }
        for session in &changes.there {
            present.sessions.insert(session.id.clone(), (own.id.clone(), session.clone()));
        }
        let after = present.pairs(&watched, now);
        let moved = before.symmetric_difference(&after).map(|pair| {
            let (joined, (user, topic)) = (after.contains(pair), pair.clone());
            Move { user, topic, joined }
        });
        Ok(moved.collect())
    }

    async fn reap(
        &self,
        leaving: Option<&Own>,
        watched: &[Pattern],
    ) -> Result<Vec<Move>, StoreError> {
        let now = self.clock.now();
        let mut present = self.presence.lock();
        let Present { replicas, sessions } = &mut *present;
        replicas.retain(|id, lease| lease.until > now && leaving.is_none_or(|own| own.id != *id));
        let mut left = BTreeSet::new();
        sessions.retain(|_, (replica, session)| {
            let stays = replicas.contains_key(replica);
            let exact = session.patterns.iter().filter_map(|pattern| match pattern {
                Pattern::Exact(topic) if watched.iter().any(|one| one.matches(topic)) => {
                    Some(topic)
                }
                _ => None,
            });
            if !stays {
                left.extend(exact.map(|topic| (session.user.clone(), topic.clone())));
            }
            stays
        });
        let still = present.pairs(&left, now);
        let gone = left.into_iter().filter(|pair| !still.contains(pair));
        Ok(gone.map(|(user, topic)| Move { user, topic, joined: false }).collect())
    }

    async fn users(
        &self,
        topic: Option<&Topic>,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<PresentUser>, StoreError> {
        let now = self.clock.now();
        let present = self.presence.lock();
        let mut users: BTreeMap<UserId, (u64, Timestamp, BTreeSet<Arc<str>>)> = BTreeMap::new();
        for (lease, session) in present.live(now) {
            let there = topic.is_none_or(|topic| session.patterns.iter().any(|p| p.matches(topic)));
            if there && after.is_none_or(|after| session.user > *after) {
                let fresh = || (0, session.since, BTreeSet::new());
                let found = users.entry(session.user.clone()).or_insert_with(fresh);
                found.0 += 1;
                found.1 = found.1.min(session.since);
                found.2.insert(lease.name.clone());
            }
        }
        let one = |(user, (sessions, since, replicas)): (_, (_, _, BTreeSet<_>))| PresentUser {
            user,
            sessions,
            since,
            replicas: replicas.into_iter().collect(),
        };
        Ok(users.into_iter().map(one).take(limit).collect())
    }

    async fn replicas(&self) -> Result<Vec<PresentReplica>, StoreError> {
        let now = self.clock.now();
        let present = self.presence.lock();
        let live = present.replicas.iter().filter(|(_, lease)| lease.until > now);
        let one = |(id, lease): (&Arc<str>, &Lease)| PresentReplica {
            name: lease.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            since: lease.since,
            sessions: present.sessions.values().filter(|(own, _)| own == id).count() as u64,
        };
        let mut found: Vec<PresentReplica> = live.map(one).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }
}
