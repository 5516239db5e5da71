//! What all replicas of a run share: one log and one wire, in memory or in Postgres.

use std::sync::Arc;

use futures_util::FutureExt;
use tidings::bus::Bus;
use tidings::clock::Clock;
use tidings::domain::{Message, Seq};
use tidings::store::{LogStore, LogWriter, Upkeep};

use crate::client::LogFacts;
use crate::disk::Disk;
use crate::faults::{Faults, FaultyStore};
use crate::postgres::Database;

#[derive(Clone)]
pub enum Backend {
    Memory(Disk),
    Postgres(Arc<Database>),
}

impl Backend {
    pub fn in_memory(clock: &Clock, seed: u64) -> Backend {
        Backend::Memory(Disk::new(clock.clone(), seed))
    }

    /// The store and the bus of one replica.
    pub fn replica(&self, at: usize, faults: &Faults) -> (FaultyStore, Arc<dyn Bus>) {
        let faults = faults.clone();
        match self {
            Backend::Memory(disk) => {
                let own = disk.clone();
                let name = name(at);
                let store = FaultyStore {
                    store: Arc::new(disk.clone()),
                    upkeep: Arc::new(disk.clone()),
                    writer: Some(Box::new(move || own.writer_of(&name))),
                    faults,
                };
                (store, Arc::new(disk.wire().member(at)))
            }
            Backend::Postgres(database) => {
                let (store, bus) = database.replica(&name(at));
                let upkeep: Arc<dyn Upkeep> = Arc::new(store.clone());
                (FaultyStore { store: Arc::new(store), upkeep, writer: None, faults }, bus)
            }
        }
    }

    /// Makes the writer slots of a replica look unused, and returns who will take one of them.
    pub async fn thief(&self, at: usize) -> Box<dyn LogWriter> {
        match self {
            Backend::Memory(disk) => {
                disk.slots_idle(&name(at));
                disk.writer_of("thief")
            }
            Backend::Postgres(database) => {
                let held_by = format!("{}/%", name(at));
                database
                    .run(
                        "update tidings.writer set used_at = '-infinity' where replica like $1",
                        &[&held_by],
                    )
                    .await;
                database
                    .replica("thief")
                    .0
                    .writer()
                    .await
                    .expect("a writer is made without a server")
            }
        }
    }

    pub async fn history(&self) -> Vec<Message> {
        match self {
            Backend::Memory(disk) => disk.history(),
            Backend::Postgres(database) => database.history().await,
        }
    }

    pub fn facts(&self) -> LogFacts {
        match self {
            Backend::Memory(disk) => {
                let head = disk.head().now_or_never().and_then(Result::ok);
                let oldest = head.expect("memory is always there").oldest;
                LogFacts { oldest, durable: Some(disk.durable()) }
            }
            Backend::Postgres(_) => LogFacts { oldest: Seq::ZERO.next(), durable: None },
        }
    }

    /// What was asked of the store that must never be asked.
    pub fn faults(&self) -> Vec<String> {
        match self {
            Backend::Memory(disk) => disk.faults(),
            Backend::Postgres(_) => Vec::new(),
        }
    }

    pub async fn renew_epoch(&self) {
        let store: Arc<dyn LogStore> = match self {
            Backend::Memory(disk) => Arc::new(disk.clone()),
            Backend::Postgres(database) => Arc::new(database.replica("renewer").0),
        };
        if let Ok(head) = store.head().await {
            let _ = store.epoch_renew(&head.epoch).await;
        }
    }

    pub async fn crash(&self) {
        match self {
            Backend::Memory(disk) => disk.crash(),
            Backend::Postgres(database) => {
                let all = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid()";
                database.run(all, &[]).await;
            }
        }
    }

    pub async fn expire(&self) {
        if let Backend::Memory(disk) = self {
            let _ = disk.partition_expire().await;
        }
    }
}

fn name(at: usize) -> String {
    format!("r{at}")
}
