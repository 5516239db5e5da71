//! What Postgres refuses: the source it came from begins anew, and costs the others nothing.

use serde_json::json;
use tokio_postgres::Client;

use super::station::Station;
use super::{ask, borrowed, counter, create, settings, source, until_status};
use crate::fleet::{Replica, until};
use crate::harness;
use crate::proxy::Proxy;

const REFUSE: &str =
    "alter table tidings.instance add constraint refused check (name <> 'poison') not valid";
const TAKE_AGAIN: &str = "alter table tidings.instance drop constraint refused";

/// All growth of an instance, as it is kept.
async fn kept(client: &Client, source: &str, instance: &str) -> Option<u64> {
    let total = "select (i.state -> 'counters' -> 'tcp_rx' ->> 2)::bigint from tidings.instance i
        join tidings.source s on s.number = i.source where s.id = $1 and i.name = $2";
    let found = client.query_opt(total, &[&source, &instance]).await.unwrap()?;
    Some(found.get::<_, i64>(0).try_into().unwrap())
}

/// All growth of an instance in the roll-ups and what waits for them.
async fn rolled(client: &Client, source: &str, instance: &str) -> u64 {
    let sum = "select coalesce(sum((b.counters -> 'tcp_rx' ->> 0)::numeric), 0)::bigint from (
            select r.source, r.instance, r.counters from tidings.rollup r where r.level = 0
            union all
            select i.source, i.name, p.value -> 'counters' from tidings.instance i cross join lateral jsonb_each(i.pending) p) b
        join tidings.source s on s.number = b.source where s.id = $1 and b.instance = $2";
    let found = client.query_one(sum, &[&source, &instance]).await.unwrap();
    found.get::<_, i64>(0).try_into().unwrap()
}

async fn until_kept(client: &Client, source: &str, instance: &str, growth: u64) {
    until(&format!("{growth} of {source}/{instance} are kept"), async || {
        kept(client, source, instance).await == Some(growth)
    })
    .await;
    assert_eq!(rolled(client, source, instance).await, growth);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_refuses_costs_its_source_what_was_in_hand_and_the_others_nothing() {
    let station = Station::start().await;
    let (url, settings) = (harness::database_url().await, settings(&station));
    let client = harness::connect(&url).await;
    let mut replica = Replica::start("refused", &url, &borrowed(&settings)).await;
    for name in ["a", "bad"] {
        station.count(name, "i", 100);
        source(&replica, &station, name).await;
        until_kept(&client, name, "i", 0).await;
    }
    for name in ["push", "push-bad"] {
        create(&replica, &json!({ "name": name })).await;
        until_status(&replica, name, "connected").await;
    }
    let push = async |name: &str, instance: &str, counter: u64| {
        let event =
            json!({"type": "update", "instance": instance, "counters": {"tcp_rx": counter}});
        let body = json!({"source": name, "events": [event]});
        ask(&replica, "POST", "/v1/ingest", Some(&body)).await.0
    };
    assert_eq!((push("push", "i", 0).await, push("push-bad", "poison", 0).await), (202, 202));
    until_kept(&client, "push", "i", 0).await;
    until_kept(&client, "push-bad", "poison", 0).await;
    client.batch_execute(REFUSE).await.unwrap();
    station.count("bad", "poison", 5);
    // More than one look of its reader takes: that it lost the source must not keep it busy for ever.
    for number in 1..=150 {
        assert_eq!(push("push-bad", "poison", number).await, 202);
        station.count("a", "i", 1);
        station.count("bad", "i", 1);
        assert_eq!(push("push", "i", number).await, 202);
    }
    until_kept(&client, "a", "i", 150).await;
    until_kept(&client, "push", "i", 150).await;
    assert_eq!(kept(&client, "bad", "poison").await, None);
    let waiting = "select count(*) from tidings.source_inbox b join tidings.source s on s.number = b.source where s.id = 'push-bad'";
    let waiting: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
    assert_eq!(waiting, 150, "what was not written is still there");
    // It is refused again and again, and goes on as soon as it is not.
    let errors = async || replica.metric("tidings_telemetry_flush_errors_total").await;
    let before = errors().await;
    until("it is tried again", async || errors().await > before + 2).await;
    client.batch_execute(TAKE_AGAIN).await.unwrap();
    until_kept(&client, "bad", "i", 150).await;
    until_kept(&client, "push-bad", "poison", 150).await;
    until("the new one is kept too", async || kept(&client, "bad", "poison").await.is_some()).await;
    assert_eq!(counter(&replica, "bad", "poison").await, Some(5));
    until("nothing waits", async || {
        let left = "select count(*) from tidings.source_inbox";
        client.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let said = replica.said("what was gathered of a source cannot be written and is dropped").await;
    assert!(said.contains("bad") && said.contains("violates check constraint"), "{said}");
}

/// Until so many wait for a source that somebody has locked.
async fn until_waiting(client: &Client, count: i64) {
    until(&format!("{count} wait for the last source"), async || {
        let waiting = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_while_sources_are_written_one_by_one_loses_nothing() {
    let station = Station::start().await;
    let (url, settings) = (harness::database_url().await, settings(&station));
    let client = harness::connect(&url).await;
    let (first, second) = (harness::connect(&url).await, harness::connect(&url).await);
    let (proxy, through) = Proxy::to_database(&url).await;
    let replica = Replica::start("broken", &through, &borrowed(&settings)).await;
    // In the order in which they are written.
    let names = ["a", "bad", "c"];
    for name in names {
        station.count(name, "i", 100);
        source(&replica, &station, name).await;
        until_kept(&client, name, "i", 0).await;
    }
    let number = "select number from tidings.source where id = 'bad'";
    let number: i64 = client.query_one(number, &[]).await.unwrap().get(0);
    let lock = "begin; select from tidings.source where id = 'c' for update";
    for growth in (2..=6).step_by(2) {
        // While a flush waits for the last of them, there is something of each for the next one.
        first.batch_execute(lock).await.unwrap();
        station.count("c", "i", 1);
        until_waiting(&client, 1).await;
        for name in names {
            let told = station.count(name, "i", if name == "c" { 1 } else { 2 });
            until("it is known", async || counter(&replica, name, "i").await == Some(told)).await;
        }
        let refuse = format!(
            "alter table tidings.instance add constraint refused check (source <> {number}) not valid"
        );
        client.batch_execute(&refuse).await.unwrap();
        // That flush is written, then the source is locked again, and the next one waits.
        let mut locked = std::pin::pin!(second.batch_execute(lock));
        tokio::select! {
            locked = &mut locked => panic!("{locked:?}"),
            () = until_waiting(&client, 2) => {}
        }
        first.batch_execute("commit").await.unwrap();
        locked.await.unwrap();
        until_kept(&client, "a", "i", growth).await;
        until_waiting(&client, 1).await;
        // The first is written and the last is not, which only happens one by one.
        assert_eq!(kept(&client, "c", "i").await, Some(growth - 1));
        assert_eq!(kept(&client, "bad", "i").await, Some(growth - 2));
        assert!(proxy.cut() > 0);
        second.batch_execute("commit").await.unwrap();
        until_kept(&client, "c", "i", growth).await;
        assert_eq!(kept(&client, "a", "i").await, Some(growth));
        client.batch_execute(TAKE_AGAIN).await.unwrap();
        until_kept(&client, "bad", "i", growth).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_instances_cannot_be_read_keeps_no_other_from_being_read() {
    let station = Station::start().await;
    let (url, settings) = (harness::database_url().await, settings(&station));
    let client = harness::connect(&url).await;
    let mut replica = Replica::start("broken", &url, &borrowed(&settings)).await;
    // In the order in which they are begun.
    for name in ["a", "b"] {
        station.count(name, "i", 100);
        source(&replica, &station, name).await;
        until_kept(&client, name, "i", 0).await;
    }
    assert_eq!(replica.leave().await, Some(0));
    let spoil =
        "update tidings.instance i set state = jsonb_set(i.state, '{gauges,ping_ms}', 'null')
        from tidings.source s where s.number = i.source and s.id = 'a'";
    client.batch_execute(spoil).await.unwrap();
    replica.start_again().await;
    station.count("b", "i", 7);
    until_kept(&client, "b", "i", 7).await;
    let said = replica.said("a source cannot go on from what is kept of it").await;
    assert!(said.contains("the state of an instance"), "{said}");
    assert_eq!(station.listeners("a"), 0);
    client.batch_execute(&spoil.replace("'null'", "'1.5'")).await.unwrap();
    station.count("a", "i", 9);
    until_kept(&client, "a", "i", 9).await;
}
