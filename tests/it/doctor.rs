//! `migrate` and `doctor`, on databases in every state.

use serde_json::Value;
use tidings::cluster::{Mode, Options};

use crate::commands::{Ran, swallows_listen, tidings};
use crate::harness;
use crate::pooler::Pooler;

async fn doctor(env: &[(&str, &str)]) -> Ran {
    tidings(&["doctor"], env).await
}

/// The line of one check.
fn line<'a>(ran: &'a Ran, check: &str) -> &'a str {
    let of = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(check));
    ran.out.lines().find(of).unwrap_or_else(|| panic!("{check}: {}{}", ran.out, ran.err))
}

#[tokio::test(flavor = "multi_thread")]
async fn several_may_migrate_at_once_and_one_does_it() {
    let url = harness::empty_database_url();
    let env = [("DATABASE_URL", url.as_str())];
    let migrate = || tidings(&["migrate"], &env);
    let (a, b, c) = tokio::join!(migrate(), migrate(), migrate());
    for ran in [&a, &b, &c] {
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let mut said = [a.out, b.out, c.out];
    said.sort();
    assert!(said[0].starts_with("migrated: 0001_log"), "{said:?}");
    let nothing = "the schema is right: nothing to do\n";
    assert_eq!(said[1..], [nothing, nothing]);
    assert_eq!(migrate().await.out, nothing);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_sound_database_sound() {
    let url = harness::database_url().await;
    let env = [("DATABASE_URL", url.as_str())];
    let ran = doctor(&env).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let all = [
        "database",
        "version",
        "primary",
        "schema",
        "rights",
        "connections",
        "clock",
        "notify queue",
        "listen",
        "round trip",
    ];
    for check in all {
        assert!(line(&ran, check).starts_with("ok "), "{}", ran.out);
    }
    let ran = tidings(&["doctor", "--json"], &env).await;
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["findings"].as_array().unwrap().len(), all.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_missing_and_what_to_do() {
    let url = harness::empty_database_url();
    let ran = doctor(&[("DATABASE_URL", url.as_str())]).await;
    assert_eq!(ran.code, 0, "a replica would bring the schema up");
    assert!(line(&ran, "schema").starts_with("warn"), "{}", ran.out);
    assert!(line(&ran, "schema").contains("tidings migrate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_sees_what_a_server_is_not_fit_for() {
    // Without fsync, and smaller than the pool that it is asked for.
    let cluster = harness::private(Options::test());
    let url = cluster.url("postgres");
    let env = [("DATABASE_URL", url.as_str()), ("TIDINGS_POOL_CONNECTIONS_MAX", "1000")];
    let ran = doctor(&env).await;
    assert_eq!(ran.code, 0, "{}", ran.out);
    for (check, advice) in
        [("durability", "turn fsync on"), ("connections", "raise max_connections")]
    {
        let line = line(&ran, check);
        assert!(line.starts_with("warn") && line.contains(advice), "{line}");
    }
    let client = harness::connect(&url).await;
    let poor = "create role poor login; revoke create on database postgres from public;
                alter role poor set default_transaction_read_only = on";
    client.batch_execute(poor).await.unwrap();
    let (_, rest) = url.split_once('@').unwrap();
    let poor = format!("postgres://poor@{rest}");
    let ran = doctor(&[("DATABASE_URL", poor.as_str())]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    for check in ["rights", "primary"] {
        assert!(line(&ran, check).starts_with("FAIL"), "{}", ran.out);
    }
    cluster.stop(Mode::Fast).unwrap();
    let ran = doctor(&env).await;
    assert_eq!(ran.code, 1);
    assert!(line(&ran, "database").starts_with("FAIL"), "{}", ran.out);
    let ran = tidings(&["migrate"], &env).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.starts_with("tidings: "), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_that_listen_is_swallowed_and_that_a_way_past_it_helps() {
    let url = harness::database_url().await;
    let swallowing = swallows_listen(&url).await;
    let ran = doctor(&[("DATABASE_URL", swallowing.as_str())]).await;
    assert_eq!(ran.code, 1, "{}", ran.out);
    let found = line(&ran, "listen");
    assert!(found.starts_with("FAIL") && found.contains("LISTEN_DATABASE_URL"), "{found}");
    let past = [("DATABASE_URL", swallowing.as_str()), ("LISTEN_DATABASE_URL", url.as_str())];
    let ran = doctor(&past).await;
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(line(&ran, "listen").starts_with("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_a_real_pooler() {
    let url = harness::database_url().await;
    let Some(pooler) = Pooler::start(&url) else { return };
    let pooled = pooler.url(&url).await;
    let ran = doctor(&[("DATABASE_URL", pooled.as_str())]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(line(&ran, "listen").contains("LISTEN_DATABASE_URL"), "{}", ran.out);
    let past = [("DATABASE_URL", pooled.as_str()), ("LISTEN_DATABASE_URL", url.as_str())];
    assert_eq!(doctor(&past).await.code, 0);
}
