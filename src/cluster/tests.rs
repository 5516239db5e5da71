//! The parts of a cluster that need no server; those that do are in `tests/it/cluster.rs`.

use super::*;

#[test]
fn a_url_is_pointed_at_another_database() {
    let cases = [
        ("postgres://a:b@h:1/x", "postgres://a:b@h:1/new"),
        ("postgres://a@h", "postgres://a@h/new"),
        ("postgresql://h/x?sslmode=disable", "postgresql://h/new?sslmode=disable"),
        ("postgres://h?sslmode=disable", "postgres://h/new?sslmode=disable"),
        ("host=h dbname=x", "host=h dbname=x dbname='new'"),
    ];
    for (from, to) in cases {
        assert_eq!(with_database(from, "new"), to);
    }
}

#[test]
fn of_two_databases_in_one_string_the_last_one_counts() {
    let config: tokio_postgres::Config = with_database("host=h dbname=x", "it's").parse().unwrap();
    assert_eq!(config.get_dbname(), Some("it's"));
}

#[test]
fn a_borrowed_server_is_never_stopped() {
    let cluster = Cluster::from_url("postgres://h/x");
    assert!(matches!(cluster.stop(Mode::Fast), Err(ClusterError::Borrowed)));
    assert!(matches!(cluster.pause(), Err(ClusterError::Borrowed)));
}

#[test]
fn what_was_asked_for_stands_after_the_defaults() {
    let lines = Options::test().setting("fsync", "on").lines();
    let values: Vec<_> = lines.iter().filter(|(name, _)| name == "fsync").collect();
    assert_eq!(values.last().unwrap().1, "on");
    assert_eq!(values.len(), 2);
}

#[test]
fn a_missing_postgres_is_one_sentence_that_says_what_to_do() {
    let told = ClusterError::NoPostgres("there is no apt-get here".to_owned()).to_string();
    assert!(told.contains("install one") && told.contains("DATABASE_URL"));
    assert_eq!(told.lines().count(), 1);
}
