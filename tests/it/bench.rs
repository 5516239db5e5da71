//! The bench, small: every shape against replicas on one Postgres, and what it says.

use serde_json::Value;

use crate::commands::{said, tidings};
use crate::fleet::Replica;
use crate::harness;

async fn bench(args: &[&str], urls: &[&str]) -> Vec<Value> {
    let urls = urls.join(",");
    let args = [&["bench", "--json", "--url", &urls], args].concat();
    let ran = tidings(&args, &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    told["measured"].as_array().unwrap().clone()
}

fn figure(measured: &Value, name: &str) -> f64 {
    measured["figures"][name].as_f64().unwrap_or_else(|| panic!("{name} is in {measured}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_is_measured_across_replicas_and_nothing_is_lost() {
    let database = harness::database_url().await;
    let first = Replica::start("first", &database, &[]).await;
    let second = Replica::start("second", &database, &[]).await;
    let urls = [first.url.as_str(), second.url.as_str()];
    let pid = first.process().to_string();
    let small = ["--listeners", "6", "--seconds", "0.3", "--warm-up-s", "0.1", "--publishers", "2"];
    let paced =
        [&small[..], &["--rate", "100", "--pid", &pid, "fanout", "unicast", "idle"]].concat();
    let measured = bench(&paced, &urls).await;
    for one in &measured[..2] {
        assert_eq!(figure(one, "lost"), 0.0);
        assert!(figure(one, "p50_ms") > 0.0 && figure(one, "p50_ms") <= figure(one, "max_ms"));
        assert!(figure(one, "messages_per_s") > 50.0, "{one}");
        assert!(figure(one, "cpu_server_s") >= 0.0);
    }
    let ratio = figure(&measured[0], "deliveries_per_s") / figure(&measured[0], "messages_per_s");
    assert!((4.0..8.0).contains(&ratio), "six listeners have each message: {measured:?}");
    assert!(figure(&measured[2], "connects_per_s") > 0.0);
    let rest = ["--away-s", "0.2", "--messages", "40", "--batch", "5", "--window", "8"];
    let rest = [&small[..], &rest, &["unicast", "reconnect", "recovery", "tasks"]].concat();
    let measured = bench(&rest, &urls).await;
    assert_eq!(figure(&measured[0], "lost"), 0.0);
    assert!(measured[0]["shape"].as_str().unwrap().contains("to the limit, 5 a request"));
    assert!(figure(&measured[1], "back_all_ms") >= figure(&measured[1], "back_p50_ms"));
    assert!(figure(&measured[1], "back_p50_ms") > 0.1, "{measured:?}");
    assert_eq!((figure(&measured[2], "lost"), figure(&measured[2], "doubled")), (0.0, 0.0));
    assert!(figure(&measured[2], "messages") > 10.0);
    assert!(figure(&measured[2], "first_missed_p50_ms") > 0.1, "{measured:?}");
    assert!(figure(&measured[3], "items_per_s") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_has_every_figure_and_a_server_that_is_not_there_is_named() {
    let replica = Replica::in_memory("alone", &[]).await;
    let url = replica.url.as_str();
    let ran = tidings(
        &[
            "bench",
            "fanout",
            "--seconds",
            "0.2",
            "--warm-up-s",
            "0",
            "--listeners",
            "3",
            "--url",
            url,
        ],
        &[],
    )
    .await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("fanout 3 to the limit, 300 bytes · tidings\n"), "{}", ran.out);
    for name in ["messages_per_s", "deliveries_per_s", "p50_ms", "p99_ms", "max_ms", "lost"] {
        assert!(ran.out.contains(name), "{name}: {}", ran.out);
    }
    drop(replica);
    let ran = tidings(&["bench", "--url", "http://127.0.0.1:1"], &[]).await;
    assert_eq!(ran.code, 1);
    assert!(said(&ran.err).contains("http://127.0.0.1:1"), "{}", ran.err);
}
