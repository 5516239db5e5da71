//! Databases for tests.

use std::time::Duration;

use tidings::store::postgres::connect::Connector;
use tidings::store::postgres::database::PoolSettings;
use tidings::store::postgres::migrate::migrate;
use tidings::store::postgres::{PostgresSettings, PostgresStore};

/// A connector to a fresh database with the schema in it.
pub async fn database() -> Connector {
    let connector = empty_database().await;
    migrate(&connector).await.unwrap();
    connector
}

/// A connector to a fresh database with nothing in it.
pub async fn empty_database() -> Connector {
    let base = std::env::var("TEST_DATABASE_URL").unwrap();
    let name = format!("t{}", uuid::Uuid::now_v7().simple());
    let admin = connector(&base);
    admin.connect().await.unwrap().batch_execute(&format!("create database {name}")).await.unwrap();
    let mut config: tokio_postgres::Config = base.parse().unwrap();
    config.dbname(&name);
    Connector::new(config, tls(), Duration::from_secs(5))
}

fn connector(url: &str) -> Connector {
    Connector::new(url.parse().unwrap(), tls(), Duration::from_secs(5))
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
    let mut settings = PostgresSettings {
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
    };
    change(&mut settings);
    PostgresStore::new(connector, settings)
}
