//! What the console asks of a server that nobody else does: its own files, the roll call, the settings.

use reqwest::header::{CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH};
use serde_json::Value;

use crate::fleet::{Replica, until};
use crate::harness;

async fn replicas(replica: &Replica) -> Vec<Value> {
    let answer = reqwest::get(format!("{}/v1/replicas", replica.url)).await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["replicas"].as_array().unwrap().clone()
}

fn names(replicas: &[Value]) -> Vec<&str> {
    replicas.iter().map(|one| one["replica"].as_str().unwrap()).collect()
}

fn heard_ms(replicas: &[Value], name: &str) -> u64 {
    replicas.iter().find(|one| one["replica"] == name).unwrap()["heard_ms"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_call_finds_every_replica_and_says_who_has_gone_silent() {
    let url = harness::database_url().await;
    let (one, two) = tokio::join!(
        Replica::start("replica-1", &url, &[]),
        Replica::start("replica-2", &url, &[])
    );
    let mut two = two;
    until("each is found by the other", async || {
        names(&replicas(&one).await) == ["replica-1", "replica-2"]
            && names(&replicas(&two).await) == ["replica-1", "replica-2"]
    })
    .await;
    until("it says how it is", async || {
        let all = replicas(&one).await;
        all[1]["listener"] == "live" && all[1]["log"]["applied"].is_u64()
    })
    .await;
    two.kill().await;
    until("it is told to be silent", async || heard_ms(&replicas(&one).await, "replica-2") > 1_500)
        .await;
    assert!(heard_ms(&replicas(&one).await, "replica-1") < 1_000, "it is here");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_hears_what_replicas_say_to_one_another() {
    let replica = Replica::in_memory("replica-1", &[]).await;
    let url = format!("{}/v1/sse?topics=*,tidings:*", replica.url);
    let mut stream = reqwest::get(url).await.unwrap();
    replicas(&replica).await;
    let told = reqwest::Client::new()
        .post(format!("{}/v1/messages", replica.url))
        .json(&serde_json::json!({"topic": "order:7", "data": 1, "class": "signal"}));
    assert_eq!(told.send().await.unwrap().status(), 201);
    let mut heard = String::new();
    while !heard.contains("order:7") {
        heard.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
    }
    assert!(!heard.contains("\"topic\":\"tidings:"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_tell_what_is_in_force_and_no_secret() {
    let secret = "a secret of thirty-two bytes, at least";
    let key = "the-key-that-nobody-is-shown";
    let settings = [
        ("TIDINGS_DEV", "false"),
        ("TIDINGS_JWT_SECRET", secret),
        ("TIDINGS_API_KEYS", key),
        ("TIDINGS_DRAIN_S", "7"),
    ];
    let replica = Replica::in_memory("replica-1", &settings).await;
    let client = reqwest::Client::new();
    let answer = client.get(format!("{}/v1/settings", replica.url)).bearer_auth(key).send().await;
    let text = answer.unwrap().text().await.unwrap();
    assert!(!text.contains(secret) && !text.contains(key), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let find = |key: &str| {
        let all = answer["settings"].as_array().unwrap();
        all.iter().find(|one| one["key"] == key).unwrap().clone()
    };
    let drain = find("drain_s");
    assert_eq!((&drain["value"], &drain["default"]), (&"7".into(), &"20".into()));
    assert_eq!(drain["source"], "TIDINGS_DRAIN_S");
    assert_eq!(find("jwt_secret")["secret"], true);
    assert_eq!(find("jwt_secret")["value"], Value::Null);
    assert_eq!(find("heartbeat_s")["source"], "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_runs_nothing_but_its_own_files_and_is_sent_once() {
    let settings = [("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", "a-key-of-some-length")];
    let replica = Replica::in_memory("replica-1", &settings).await;
    let client = reqwest::Client::new();
    for path in ["/", "/console/main.js", "/console/vendor/tidings.js"] {
        let url = format!("{}{path}", replica.url);
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        for word in ["unsafe", "http:", "https:", "*"] {
            assert!(!policy.contains(word), "{policy}");
        }
        let tag = answer.headers()[ETAG].clone();
        let again = client.get(&url).header(IF_NONE_MATCH, tag).send().await.unwrap();
        assert_eq!(again.status(), 304, "{path}");
        assert!(again.bytes().await.unwrap().is_empty());
    }
    for path in ["/console/../Cargo.toml", "/console/%2e%2e/Cargo.toml", "/console/none.js"] {
        let answer = client.get(format!("{}{path}", replica.url)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_dev_mode_is_told_so() {
    let replica = Replica::in_memory("replica-1", &[]).await;
    let page = reqwest::get(format!("{}/", replica.url)).await.unwrap().text().await.unwrap();
    assert!(page.contains("data-mode=\"dev\""), "{page}");
}
