//! The roles of `sql/roles.sql`: each may do what it is for, and nothing else.

use std::path::Path;

use serde_json::json;
use tidings::cluster::{Cluster, Options};

use crate::commands::tidings;
use crate::fleet::Replica;
use crate::follower::{Follower, Way};
use crate::harness;

/// A server of its own: roles are the whole server's.
struct Installation {
    cluster: Cluster,
    name: &'static str,
}

impl Installation {
    fn new(name: &'static str) -> Installation {
        let cluster = harness::private(Options::test());
        cluster.create_database(name, None).unwrap();
        Installation { cluster, name }
    }

    fn url(&self, role: &str) -> String {
        self.cluster.url(self.name).replacen("postgres@", &format!("{role}@"), 1)
    }

    async fn superuser(&self, text: &str) {
        let client = harness::connect(&self.cluster.url(self.name)).await;
        client.batch_execute(text).await.unwrap();
    }

    async fn roles(&self) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/roles.sql");
        let text = std::fs::read_to_string(file).unwrap();
        // Whoever runs it twice has changed nothing.
        self.superuser(&text).await;
        self.superuser(&text).await;
        // An application, and somebody who looks at reports.
        self.superuser(
            "create role shop login; grant tidings_publisher to shop;
             create role reports login; grant tidings_reader to reports; create role stranger login",
        )
        .await;
    }

    async fn migrate(&self, role: &str) -> String {
        let url = self.url(role);
        let ran = tidings(&["migrate"], &[("DATABASE_URL", url.as_str())]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    }

    /// What a role is told when it tries something; `None` if it may.
    async fn refused(&self, role: &str, statement: &str) -> Option<String> {
        let client = harness::connect(&self.url(role)).await;
        // Whatever may be done is undone, so that statements do not meet.
        client.batch_execute("begin").await.unwrap();
        let error = client.batch_execute(statement).await.err()?;
        Some(error.as_db_error().unwrap().code().code().to_owned())
    }

    async fn may_not(&self, role: &str, statements: &[&str]) {
        for statement in statements {
            let refused = self.refused(role, statement).await;
            assert_eq!(refused.as_deref(), Some("42501"), "{role}: {statement}");
        }
    }

    async fn may(&self, role: &str, statements: &[&str]) {
        for statement in statements {
            assert_eq!(self.refused(role, statement).await, None, "{role}: {statement}");
        }
    }
}

const PUBLISH: &str = "select tidings.publish('a', '1')";

async fn each_may_do_what_it_is_for_and_nothing_else(installation: &Installation) {
    installation
        .may_not(
            "tidings_service",
            &[
                "create table tidings.own (n int)",
                "alter table tidings.message add own int",
                "drop table tidings.outbox",
                "drop schema tidings cascade",
                "truncate tidings.message",
                "create index on tidings.message (at)",
                "alter function tidings.partition_make(bigint) security invoker",
                "create or replace function tidings.own() returns int language sql as 'select 1'",
                "delete from tidings.migration",
                "grant tidings_owner to tidings_service",
                "set role tidings_owner",
            ],
        )
        .await;
    installation
        .may_not(
            "shop",
            &[
                "select * from tidings.message",
                "select * from tidings.outbox",
                "select * from tidings.log",
                "insert into tidings.outbox (class, priority, topic, data) values (0, 1, 'a', '1')",
                "select tidings.outbox_relay(1, 1)",
                "select tidings.partition_make(1)",
                "select tidings.partition_drop(1)",
                "select tidings.epoch_renew('a')",
                "create table tidings.own (n int)",
            ],
        )
        .await;
    installation
        .may_not(
            "reports",
            &[
                "update tidings.log set head = 0",
                "delete from tidings.message",
                "select * from tidings.idempotency",
                "select * from tidings.outbox",
                PUBLISH,
            ],
        )
        .await;
    installation.may_not("stranger", &[PUBLISH, "select * from tidings.message"]).await;
    installation.may("shop", &[PUBLISH]).await;
    installation
        .may("reports", &["select * from tidings.message, tidings.log, tidings.task"])
        .await;
}

/// No function is anybody's who was not given it; a later migration would be found here.
async fn no_function_is_everybodys(installation: &Installation) {
    let client = harness::connect(&installation.url("tidings_owner")).await;
    for (role, may) in [("stranger", ""), ("reports", ""), ("shop", "publish")] {
        let rows = client
            .query(
                "select p.proname from pg_proc p where p.pronamespace = 'tidings'::regnamespace
                 and has_function_privilege($1, p.oid, 'execute')",
                &[&role],
            )
            .await
            .unwrap();
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(names.join(" "), may, "{role}");
    }
    let rows = client
        .query(
            "select c.relname from pg_class c where c.relnamespace = 'tidings'::regnamespace
             and c.relkind in ('r', 'p') and c.relowner <> 'tidings_owner'::regrole",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.is_empty(), "{} tables are not the owner's", rows.len());
}

/// Replicas publish, relay, make partitions and drop them under the role of the service.
async fn replicas_need_no_more(installation: &Installation) {
    let url = installation.url("tidings_service");
    let settings = [("TIDINGS_PARTITION_ROWS", "100")];
    let replica = Replica::start("one", &url, &settings).await;
    let follower = Follower::start(Way::WebSocket, vec![replica.url.clone()], "a", None);
    follower.connected().await;
    for _ in 0..5 {
        let messages: Vec<_> = (0..100).map(|n| json!({"topic": "a", "data": n})).collect();
        replica.publish(&json!({ "messages": messages })).await;
    }
    let shop = harness::connect(&installation.url("shop")).await;
    shop.batch_execute(PUBLISH).await.unwrap();
    follower.has(501).await;
    let task = json!({"action": "try", "items": ["a"], "executor": {"type": "simulate"}});
    let client = reqwest::Client::new();
    let posted = client.post(format!("{}/v1/tasks", replica.url)).json(&task).send().await.unwrap();
    assert_eq!(posted.status(), 202);
    let posted: serde_json::Value = posted.json().await.unwrap();
    let task = format!("{}/v1/tasks/{}", replica.url, posted["id"].as_str().unwrap());
    crate::fleet::until("the task is finished", async || {
        let asked = client.get(&task).send().await.unwrap();
        asked.json::<serde_json::Value>().await.unwrap()["status"] == "completed"
    })
    .await;
    // What retention does once an hour has passed, at once.
    let service = harness::connect(&url).await;
    let expired = service.query_one("select tidings.partition_expire(0)", &[]).await.unwrap();
    let dropped = service
        .query_one("select tidings.partition_drop($1)", &[&expired.get::<_, Option<i64>>(0)])
        .await
        .unwrap();
    assert_eq!(dropped.get::<_, i64>(0), 100);
    assert_eq!(replica.readyz().await["status"], "ready");
    let looked = tidings(&["doctor"], &[("DATABASE_URL", url.as_str())]).await;
    assert!(looked.out.contains("tidings_service may use the schema"), "{}", looked.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_is_for_and_nothing_else() {
    let installation = Installation::new("fresh");
    installation.roles().await;
    assert!(installation.migrate("tidings_owner").await.starts_with("migrated"));
    each_may_do_what_it_is_for_and_nothing_else(&installation).await;
    no_function_is_everybodys(&installation).await;
    replicas_need_no_more(&installation).await;
    // The partitions that came meanwhile are the owner's too.
    no_function_is_everybodys(&installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_can_be_brought_to_an_installation_that_has_none() {
    let installation = Installation::new("grown");
    installation.migrate("postgres").await;
    let settings = [("TIDINGS_PARTITION_ROWS", "100")];
    let replica = Replica::start("one", &installation.url("postgres"), &settings).await;
    replica.publish(&json!({"topic": "a", "data": 1})).await;
    installation.roles().await;
    assert!(installation.migrate("tidings_owner").await.contains("nothing to do"));
    each_may_do_what_it_is_for_and_nothing_else(&installation).await;
    no_function_is_everybodys(&installation).await;
    replicas_need_no_more(&installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_superuser_migrates_belongs_to_the_owner_of_the_schema() {
    let installation = Installation::new("careless");
    installation.roles().await;
    installation.migrate("postgres").await;
    no_function_is_everybodys(&installation).await;
    let refused = "create table tidings.own (n int)";
    installation.may_not("tidings_service", &[refused]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_the_right_to_migrate_waits_for_who_has_it() {
    let installation = Installation::new("early");
    installation.roles().await;
    let mut replica = Replica::spawned("one", &installation.url("tidings_service"), &[]).await;
    replica.said("permission denied").await;
    assert_eq!(replica.readyz().await["status"], "not_ready");
    installation.migrate("tidings_owner").await;
    replica.until_ready().await;
}
