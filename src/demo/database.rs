//! The Postgres of a demo: the one that `DATABASE_URL` names, else one of its own.

use super::{DemoError, say};
use crate::cluster::{Cluster, ClusterError, Options};

/// What a private server's database is called.
const NAME: &str = "tidings";

pub struct Database {
    pub url: String,
    /// None when somebody else looks after it.
    own: Option<Cluster>,
}

impl Database {
    pub async fn find() -> Result<Database, DemoError> {
        if let Some(url) = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
            say("Postgres: the one that DATABASE_URL names; the schema `tidings` stays in it.");
            return Ok(Database { url, own: None });
        }
        say("Postgres: a private one is started, and removed at the end.");
        let started = tokio::task::spawn_blocking(|| {
            let cluster = Cluster::start(&Options::demo())?;
            cluster.create_database(NAME, None)?;
            Ok::<Cluster, ClusterError>(cluster)
        });
        let cluster = started.await.map_err(|_| DemoError::Thread)??;
        Ok(Database { url: cluster.url(NAME), own: Some(cluster) })
    }

    pub fn is_borrowed(&self) -> bool {
        self.own.is_none()
    }

    /// Returns when it is gone, unless it was borrowed.
    pub async fn remove(self) -> Result<(), DemoError> {
        let removed = tokio::task::spawn_blocking(move || drop(self.own));
        removed.await.map_err(|_| DemoError::Thread)
    }
}
