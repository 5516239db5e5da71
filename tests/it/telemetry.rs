//! Sources, from the stream to the chart: over the real binary and a server of streams of our own.

mod fenced;
mod fleet;
mod master;
mod outage;
pub mod reading;
mod refused;
mod refusing;
mod showing;
pub mod station;

use serde_json::{Value, json};

use crate::fleet::{Replica, until};

/// Settings that make telemetry quick, for a station on this address.
pub fn settings(station: &station::Station) -> Vec<(&'static str, String)> {
    vec![
        ("TIDINGS_TELEMETRY_HOSTS", station.address.to_string()),
        ("TIDINGS_TELEMETRY_KEY", "a key for tests alone".to_owned()),
        ("TIDINGS_TELEMETRY_LEASE_MS", "1500".to_owned()),
        ("TIDINGS_TELEMETRY_FLUSH_MS", "500".to_owned()),
    ]
}

pub fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

pub async fn ask(
    replica: &Replica,
    method: &str,
    target: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let method = method.parse().unwrap();
    let mut request = reqwest::Client::new().request(method, format!("{}{target}", replica.url));
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub async fn get(replica: &Replica, target: &str) -> Value {
    let (status, answer) = ask(replica, "GET", target, None).await;
    assert_eq!(status, 200, "{target}: {answer}");
    answer
}

pub async fn create(replica: &Replica, body: &Value) {
    let (status, answer) = ask(replica, "POST", "/v1/sources", Some(body)).await;
    assert_eq!(status, 201, "{body}: {answer}");
}

pub async fn source(replica: &Replica, station: &station::Station, name: &str) {
    create(replica, &json!({"name": name, "url": station.url(name)})).await;
}

pub async fn until_status(replica: &Replica, name: &str, status: &str) {
    until(&format!("{name} is {status}"), async || {
        get(replica, &format!("/v1/sources/{name}")).await["status"] == status
    })
    .await;
}

/// The names of the instances of a source.
pub async fn names(replica: &Replica, source: &str) -> Vec<String> {
    let found = get(replica, &format!("/v1/sources/{source}/instances?limit=1000")).await;
    let instances = found["instances"].as_array().unwrap();
    instances.iter().map(|one| one["instance"].as_str().unwrap().to_owned()).collect()
}

pub async fn counter(replica: &Replica, source: &str, instance: &str) -> Option<u64> {
    let (_, one) = ask(replica, "GET", &format!("/v1/instances/{source}/{instance}"), None).await;
    one["counters"]["tcp_rx"].as_u64()
}
