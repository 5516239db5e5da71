//! `tidings demo --check`: what is published on each replica is found on every other.

use serde_json::{Value, json};

use super::replica::{Replica, http};
use super::{DemoError, say};

/// How long one replica is asked to wait for what another was given.
const WAIT_S: u32 = 30;

pub async fn run(replicas: &[Replica]) -> Result<(), DemoError> {
    for from in replicas {
        let said = json!({"topic": "demo:check", "data": from.name});
        let client = http();
        let sent = client.post(format!("{}/v1/messages", from.url())).json(&said).send();
        let answer = whole(sent.await).await?;
        let seq = answer["messages"][0]["seq"].as_u64();
        let cursor = answer["messages"][0]["cursor"].as_str().unwrap_or_default();
        let (Some(seq), Some((epoch, _))) = (seq, cursor.rsplit_once('-')) else {
            return Err(DemoError::Check(format!("{} answered {answer}", from.name)));
        };
        for to in replicas.iter().filter(|to| to.name != from.name) {
            let before = format!("{epoch}-{}", seq - 1);
            let query = format!("topic=demo:check&after={before}&limit=1&wait_s={WAIT_S}");
            let page = whole(client.get(format!("{}/v1/messages?{query}", to.url())).send().await);
            let found = page.await?;
            if found["messages"][0]["seq"].as_u64() != Some(seq) {
                let (from, to) = (&from.name, &to.name);
                return Err(DemoError::Check(format!("{to} does not have seq {seq} of {from}")));
            }
            say(&format!("{} -> {}: seq {seq}", from.name, to.name));
        }
    }
    say("Checked: what is published on each replica is received on every other.");
    Ok(())
}

async fn whole(sent: reqwest::Result<reqwest::Response>) -> Result<Value, DemoError> {
    let failed = |error: reqwest::Error| DemoError::Check(error.to_string());
    let answer = sent.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    answer.json().await.map_err(failed)
}
