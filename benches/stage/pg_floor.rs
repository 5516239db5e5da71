//! The least that durable messages through Postgres cost: the bare group commit.
//!
//! One connection appends whatever has queued, with the statements of the server's own writer, and one
//! listens; there is no server between them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::poll_fn;
use tidings::bench::{BenchError, Contender, Letter, WayIn, WayOut};
use tidings::domain::{Draft, Seq, Topic};
use tidings::metrics::Metrics;
use tidings::notification::{self, Announcement, Notification};
use tidings::store::postgres::connect::Connector;
use tidings::store::postgres::database::PoolSettings;
use tidings::store::postgres::{PostgresSettings, PostgresStore};
use tidings::store::{LogStore, LogWriter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, NoTls};

/// As much as the server takes into one batch.
const BATCH_MAX: usize = 1_000;

/// Publishers wait when so many letters are queued.
const QUEUED_MAX: usize = 8_192;

pub struct PgFloor {
    url: String,
    queue: mpsc::Sender<Draft>,
    _appending: JoinSet<()>,
}

impl PgFloor {
    pub async fn start(url: &str) -> Result<PgFloor, crate::Failure> {
        let writer = store(url)?.writer().await?;
        let (queue, queued) = mpsc::channel(QUEUED_MAX);
        let mut appending = JoinSet::new();
        appending.spawn(append(writer, queued));
        Ok(PgFloor { url: url.to_owned(), queue, _appending: appending })
    }
}

async fn append(mut writer: Box<dyn LogWriter>, mut queued: mpsc::Receiver<Draft>) {
    let mut drafts = Vec::with_capacity(BATCH_MAX);
    while queued.recv_many(&mut drafts, BATCH_MAX).await > 0 {
        if let Err(error) = writer.write(&drafts, Box::new(())).await {
            crate::servers::say(&format!("pg-floor: {error}"));
            break;
        }
        drafts.clear();
    }
    writer.release().await;
}

#[async_trait]
impl Contender for PgFloor {
    async fn way_in(&self, _place: usize) -> Result<Box<dyn WayIn>, BenchError> {
        Ok(Box::new(Queues(self.queue.clone())))
    }

    /// The first one hears for all.
    async fn way_out(&self, place: usize, _topic: &str) -> Result<Box<dyn WayOut>, BenchError> {
        if place > 0 {
            return Ok(Box::new(HearsNothing));
        }
        let (client, mut connection) =
            tokio_postgres::connect(&self.url, NoTls).await.map_err(failed)?;
        let listen = format!("listen {}", notification::CHANNEL);
        tokio::select! {
            listening = client.batch_execute(&listen) => listening.map_err(failed)?,
            message = async {
                loop {
                    if !matches!(poll_fn(|cx| connection.poll_message(cx)).await, Some(Ok(_))) {
                        return;
                    }
                }
            } => {
                let () = message;
                return Err(BenchError::Failed("pg-floor: LISTEN was not answered".to_owned()));
            }
        }
        let (reader, reading) = tokio_postgres::connect(&self.url, NoTls).await.map_err(failed)?;
        let mut driving = JoinSet::new();
        driving.spawn(async move { drop(reading.await) });
        Ok(Box::new(Hears { _client: client, connection, reader, _driving: driving }))
    }
}

struct Queues(mpsc::Sender<Draft>);

#[async_trait]
impl WayIn for Queues {
    async fn publish(&mut self, letters: &[Letter]) -> Result<(), BenchError> {
        for letter in letters {
            let draft =
                Draft::new(Topic::parse(&letter.topic).map_err(failed)?, letter.data.as_str());
            self.0.send(draft).await.map_err(failed)?;
        }
        Ok(())
    }
}

struct HearsNothing;

#[async_trait]
impl WayOut for HearsNothing {
    async fn hear(self: Box<Self>, _: &(dyn for<'a> Fn(&'a str) + Sync)) -> BenchError {
        std::future::pending().await
    }
}

type Connection =
    tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>;

struct Hears {
    _client: tokio_postgres::Client,
    connection: Connection,
    /// For what does not fit into notifications, as a replica reads it.
    reader: tokio_postgres::Client,
    _driving: JoinSet<()>,
}

async fn announced(
    announced: Announcement,
    reader: &tokio_postgres::Client,
    heard: &(dyn for<'a> Fn(&'a str) + Sync),
) -> Result<(), BenchError> {
    if let Some(messages) = announced.messages {
        messages.iter().for_each(|message| heard(&message.data));
        return Ok(());
    }
    let (first, last): (Seq, Seq) = (announced.first, announced.last);
    let range = "select data from tidings.message where seq between $1 and $2 order by seq";
    let rows = reader.query(range, &[&first.to_db(), &last.to_db()]).await;
    rows.map_err(failed)?.iter().for_each(|row| heard(row.get(0)));
    Ok(())
}

#[async_trait]
impl WayOut for Hears {
    async fn hear(mut self: Box<Self>, heard: &(dyn for<'a> Fn(&'a str) + Sync)) -> BenchError {
        loop {
            match poll_fn(|cx| self.connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(text))) => {
                    let Ok(Notification::Announced(announced)) =
                        notification::parse(text.payload())
                    else {
                        continue;
                    };
                    if let Err(error) = self::announced(announced, &self.reader, heard).await {
                        return error;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return failed(error),
                None => return BenchError::Failed("pg-floor: Postgres went away".to_owned()),
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Failed(format!("pg-floor: {error}"))
}

/// As a replica has it.
pub fn store(url: &str) -> Result<Arc<dyn LogStore>, crate::Failure> {
    let settings = PostgresSettings {
        replica: "pg-floor".to_owned(),
        pool: PoolSettings {
            connections_max: 2,
            wait: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            prepare: true,
        },
        retention_s: 86_400,
        partition_rows: 1_000_000,
        data_bytes_max: 262_144,
        idempotency_s: 86_400,
    };
    Ok(Arc::new(PostgresStore::new(connector(url)?, settings, Metrics::new().store)))
}

pub fn connector(url: &str) -> Result<Connector, crate::Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(Connector::new(url.parse()?, tls, Duration::from_secs(5)))
}
