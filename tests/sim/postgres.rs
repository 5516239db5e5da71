//! A database of its own for every run over Postgres, on one private server for all of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidings::bus::Bus;
use tidings::bus::postgres::PostgresBus;
use tidings::cluster::{Cluster, Options};
use tidings::domain::{Class, Draft, Message, Priority, Seq, Timestamp, Topic};
use tidings::metrics::Metrics;
use tidings::store::postgres::connect::Connector;
use tidings::store::postgres::database::PoolSettings;
use tidings::store::postgres::migrate::migrate;
use tidings::store::postgres::{PostgresSettings, PostgresStore};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

pub struct Database {
    connector: Connector,
    /// The one that looks and does what an operator does.
    url: String,
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Cluster::start(&Options { connections_max: 300, ..Options::test() }).unwrap()
    })
}

impl Database {
    pub async fn fresh() -> Database {
        let name = format!("sim_{}", uuid::Uuid::now_v7().simple());
        cluster().create_database(&name, None).unwrap();
        let url = cluster().url(&name);
        let connector = connector(&url);
        migrate(&connector).await.unwrap();
        Database { connector, url }
    }

    pub fn replica(&self, name: &str) -> (PostgresStore, Arc<dyn Bus>) {
        let settings = PostgresSettings {
            replica: name.to_owned(),
            pool: PoolSettings {
                connections_max: 3,
                wait: Duration::from_secs(5),
                statement_timeout: Duration::from_secs(5),
                prepare: true,
            },
            retention_s: 3600,
            partition_rows: 100,
            data_bytes_max: 262_144,
            idempotency_s: 86_400,
        };
        let metrics = Metrics::new();
        let store = PostgresStore::new(self.connector.clone(), settings, metrics.store.clone());
        let origin = format!("{name}/{}", uuid::Uuid::now_v7().simple());
        let bus = PostgresBus::new(
            self.connector.clone(),
            store.database().clone(),
            &origin,
            Duration::from_secs(1),
            metrics.bus.clone(),
        );
        (store, Arc::new(bus))
    }

    async fn client(&self) -> Client {
        connector(&self.url).connect().await.unwrap()
    }

    pub async fn run(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) {
        self.client().await.query(statement, params).await.unwrap();
    }

    /// What an application does in a transaction of its own. Whether it is known to be committed.
    pub async fn publish(&self, topic: &str, data: &[String]) -> bool {
        let publish = "select tidings.publish($1, d::json) from unnest($2::text[]) d";
        let Ok(client) = connector(&self.url).connect().await else { return false };
        client.query(publish, &[&topic, &data]).await.is_ok()
    }

    /// The whole log, as SQL shows it.
    pub async fn history(&self) -> Vec<Message> {
        let all = "select seq, topic, class, priority, key, data from tidings.message order by seq";
        let rows = self.client().await.query(all, &[]).await.unwrap();
        let message = |row: &tokio_postgres::Row| {
            let text: &str = row.get(1);
            let draft = Draft {
                class: Class::from_db(row.get(2)).unwrap(),
                priority: Priority::from_db(row.get(3)).unwrap(),
                key: row.get::<_, Option<&str>>(4).map(Into::into),
                ..Draft::new(Topic::parse(text).unwrap(), row.get::<_, &str>(5))
            };
            Message::from_draft(&draft, Some(Seq::from_db(row.get(0))), Timestamp(0))
        };
        rows.iter().map(message).collect()
    }
}

fn connector(url: &str) -> Connector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Connector::new(url.parse().unwrap(), tls, Duration::from_secs(5))
}
