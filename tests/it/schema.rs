//! The schema and the statements: each is prepared, each file is used, migrations may race.

use std::collections::BTreeSet;

use tidings::store::postgres::migrate::{SchemaState, migrate, state};
use tidings::store::postgres::query;

use crate::harness;

#[tokio::test]
async fn every_statement_can_be_prepared_and_every_file_is_used() {
    let client = harness::database().await.connect().await.unwrap();
    let mut used = BTreeSet::new();
    for query in query::ALL {
        used.insert(format!("{}.sql", query.name));
        let prepared = client.prepare_typed(query.text, query.types).await;
        let statement = prepared.unwrap_or_else(|error| panic!("{}: {error:?}", query.name));
        assert_eq!(statement.params(), query.types, "{}", query.name);
        assert!(query.text.starts_with(&format!("-- {}: ", query.name)), "{}", query.name);
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/query");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, used);
}

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    let client = harness::database().await.connect().await.unwrap();
    let rows = client
        .query(
            "select c.relname || coalesce('.' || a.attname, '')
             from pg_class c
             left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relnamespace = 'tidings'::regnamespace and c.relkind in ('r', 'p')
               and col_description(c.oid, coalesce(a.attnum, 0)) is null",
            &[],
        )
        .await
        .unwrap();
    let bare: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(bare.is_empty(), "without a comment: {bare:?}");
}

#[tokio::test]
async fn six_replicas_may_migrate_at_once() {
    let connector = harness::empty_database().await;
    let runs = (0..6).map(|_| migrate(&connector));
    let results = futures_util::future::join_all(runs).await;
    let migrated: usize = results.into_iter().map(|result| result.unwrap().len()).sum();
    assert!(migrated >= 1);
    let client = connector.connect().await.unwrap();
    assert_eq!(state(&client).await.unwrap(), SchemaState::Right);
    let heads = client.query("select 1 from tidings.log", &[]).await.unwrap();
    assert_eq!(heads.len(), 1);
}
