//! Databases for tests.
//!
//! One server for the whole run: the one that `TEST_DATABASE_URL` or `DATABASE_URL` names, else a
//! private one that ends with this process. Each test has a database of its own in it, copied from
//! one that holds the schema.

use std::sync::OnceLock;
use std::time::Duration;

use tidings::cluster::{Cluster, Options};
use tidings::metrics::Metrics;
use tidings::store::postgres::connect::Connector;
use tidings::store::postgres::database::PoolSettings;
use tidings::store::postgres::migrate::migrate;
use tidings::store::postgres::{PostgresSettings, PostgresStore};
use tokio::sync::OnceCell;

use crate::fleet::until;

/// What the names of our databases begin with, on a server that is not ours alone.
const PREFIX: &str = "tidings_test_";

/// On a borrowed server, what an earlier run left behind is removed after this time.
const LEFT_BEHIND_AFTER_S: u64 = 3600;

/// The server of this run.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let named = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
        match named("TEST_DATABASE_URL").or_else(|| named("DATABASE_URL")) {
            Some(url) => Cluster::from_url(&url),
            None => private(Options::test()),
        }
    })
}

/// A server that a test may stop, pause and crash.
pub fn private(options: Options) -> Cluster {
    let options = options.setting("track_commit_timestamp", "on");
    Cluster::start(&Options { connections_max: 300, ..options }).unwrap()
}

/// A connector to a fresh database with the schema in it.
pub async fn database() -> Connector {
    connector(&database_url().await)
}

/// The URL of a fresh database with the schema in it.
pub async fn database_url() -> String {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let template = TEMPLATE
        .get_or_init(|| async {
            remove_left_behind().await;
            let name = fresh_name();
            cluster().create_database(&name, None).unwrap();
            let url = cluster().url(&name);
            migrate(&connector(&url)).await.unwrap();
            // A database is copied when nobody is in it, and a session takes a moment to end.
            let admin = connect(&cluster().url("postgres")).await;
            let inside = "select count(*) from pg_stat_activity where datname = $1";
            until("the schema's session has ended", async || {
                admin.query_one(inside, &[&name]).await.unwrap().get::<_, i64>(0) == 0
            })
            .await;
            name
        })
        .await;
    let name = fresh_name();
    cluster().create_database(&name, Some(template)).unwrap();
    cluster().url(&name)
}

/// A connector to a fresh database with nothing in it.
pub async fn empty_database() -> Connector {
    connector(&empty_database_url())
}

pub fn empty_database_url() -> String {
    let name = fresh_name();
    cluster().create_database(&name, None).unwrap();
    cluster().url(&name)
}

/// A connection of one's own.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    connector(url).connect().await.unwrap()
}

pub fn connector(url: &str) -> Connector {
    Connector::new(url.parse().unwrap(), tls(), Duration::from_secs(5))
}

fn fresh_name() -> String {
    format!("{PREFIX}{}", uuid::Uuid::now_v7().simple())
}

async fn remove_left_behind() {
    let client = connect(&cluster().url("postgres")).await;
    let rows = client.query("select datname from pg_database", &[]).await.unwrap();
    let now = uuid::Uuid::now_v7().get_timestamp().unwrap().to_unix().0;
    for row in rows {
        let name: &str = row.get(0);
        let Some(id) = name.strip_prefix(PREFIX) else { continue };
        let made = uuid::Uuid::parse_str(id).ok().and_then(|id| id.get_timestamp());
        if made.is_some_and(|made| made.to_unix().0 + LEFT_BEHIND_AFTER_S < now) {
            cluster().drop_database(name).unwrap();
        }
    }
}

fn tls() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

pub fn store(connector: Connector) -> PostgresStore {
    store_with(connector, |_| {})
}

pub fn store_with(
    connector: Connector,
    change: impl FnOnce(&mut PostgresSettings),
) -> PostgresStore {
    let mut settings = settings();
    change(&mut settings);
    PostgresStore::new(connector, settings, Metrics::new().store)
}

pub fn settings() -> PostgresSettings {
    PostgresSettings {
        replica: "test".to_owned(),
        pool: PoolSettings {
            connections_max: 4,
            wait: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            prepare: true,
        },
        retention_s: 3600,
        partition_rows: 1_000,
        data_bytes_max: 262_144,
        idempotency_s: 86_400,
    }
}
