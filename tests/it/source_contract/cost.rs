//! What it costs Postgres: blocks, whatever the planner thinks that it knows.

use tokio_postgres::SimpleQueryMessage;

use super::*;

/// How many blocks one sweep reads or finds.
async fn blocks(client: &Client) -> i64 {
    let explain =
        "explain (analyze, buffers, format json) select * from tidings.source_sweep(5000)";
    let explained = client.simple_query(explain).await.unwrap();
    let text = explained.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let explained: serde_json::Value = serde_json::from_str(text.unwrap()).unwrap();
    let plan = &explained[0]["Plan"];
    plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
}

/// 200,000 minutes, and of everything else a good deal, none of it too old; hours and days are older than minutes may be.
const YOUNG: &str = "
    insert into tidings.rollup (level, source, at, instance, counters, gauges)
    select 0, 1, now() - n % 8000 * interval '1 minute', 'i' || n / 8000, '{\"rx\":[1,1,1,1]}', '{}' from generate_series(0, 199999) n;
    insert into tidings.rollup (level, source, at, instance, counters, gauges)
    select 1, 1, now() - n % 700 * interval '1 hour', 'i' || n / 700, '{\"rx\":[1,1,1,1]}', '{}' from generate_series(0, 29999) n;
    insert into tidings.rollup (level, source, at, instance, counters, gauges)
    select 2, 1, now() - n % 390 * interval '1 day', 'i' || n / 390, '{\"rx\":[1,1,1,1]}', '{}' from generate_series(0, 9999) n;
    insert into tidings.source_events (source, first_at, last_at, count, events)
    select 1, now(), now() - n * interval '1 second', 1, repeat('x', 200) from generate_series(0, 49999) n;
    insert into tidings.source_log (source, at, text)
    select 1, now() - n * interval '1 second', repeat('x', 100) from generate_series(0, 99999) n;
    insert into tidings.instance (source, name, status, state, pending, at, created_at)
    select 1, 'i' || n, case when n % 2 = 0 then 'up' else 'deleted' end, '{}', '{}', now() - n * interval '1 second', now()
    from generate_series(0, 49999) n;";

#[tokio::test]
async fn a_sweep_reads_what_is_old_and_not_what_is_young() {
    let subject = postgres().await;
    let Hand::Database(client) = &subject.hand else { unreachable!() };
    // Nobody counts rows but we.
    let alone = ["rollup", "source_events", "source_log", "instance"]
        .map(|table| format!("alter table tidings.{table} set (autovacuum_enabled = off);"));
    client.batch_execute(&alone.concat()).await.unwrap();
    client.batch_execute(YOUNG).await.unwrap();
    for known in ["nothing", "all"] {
        if known == "all" {
            client.batch_execute("vacuum analyze").await.unwrap();
        }
        // Plans are kept for what comes first: the first look pays for the catalog.
        blocks(client).await;
        let none_old = blocks(client).await;
        assert!(
            none_old < 50,
            "of statistics is known {known}: {none_old} blocks, and none is old"
        );
        // A few of each kind, and a source that is gone.
        client
            .batch_execute(
                "update tidings.rollup set at = at - interval '500 days' where source = 1 and instance = 'i0' and at > now() - interval '20 minutes';
                 update tidings.source_events set last_at = last_at - interval '8 days' where last_at > now() - interval '20 seconds';
                 update tidings.source_log set at = at - interval '8 days' where at > now() - interval '20 seconds';
                 update tidings.instance set at = at - interval '8 days' where at > now() - interval '20 seconds';
                 insert into tidings.rollup select 0, 99, now() - n * interval '1 second', 'i', '{}', '{}' from generate_series(1, 100) n;
                 insert into tidings.source_gone values (99);",
            )
            .await
            .unwrap();
        let some_old = blocks(client).await;
        println!("of statistics is known {known}: none old {none_old} blocks, some old {some_old}");
        assert!(some_old < 1_000, "of statistics is known {known}: {some_old} blocks for 200 rows");
        let left = "select count(*) from tidings.rollup where at < now() - interval '400 days' or source = 99";
        assert_eq!(number(client, left).await, 0);
        blocks(client).await;
        assert_eq!(number(client, "select count(*) from tidings.source_gone").await, 0);
    }
}
