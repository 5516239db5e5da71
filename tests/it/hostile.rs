//! Rubbish of every kind: it gets the answer that the protocol names, and the replica goes on.

mod crowd;
mod cursors;
mod documents;
mod limits;
mod notices;
mod raw;
mod tasks;
mod telemetry;
mod wire;

use serde_json::json;

use crate::client;
use crate::fleet::Replica;

/// A replica in dev mode, in memory unless a database is named.
async fn replica(database_url: &str, settings: &[(&str, &str)]) -> Replica {
    // Sessions that are still open at the end are not waited for.
    let settings: Vec<_> = settings.iter().copied().chain([("TIDINGS_DRAIN_S", "1")]).collect();
    Replica::start("replica-1", database_url, &settings).await
}

/// Whatever happened before, it takes and delivers messages, nothing has panicked, and it leaves as it should.
async fn goes_on(mut replica: Replica) {
    let mut socket = client::connect(&replica.url, "/v1/ws?topics=after", &[]).await.unwrap();
    assert_eq!(socket.frame().await["type"], "welcome");
    replica.publish(&json!({"topic": "after", "data": "all"})).await;
    assert_eq!(socket.frame().await["data"], "all");
    let metrics = reqwest::get(format!("{}/metrics", replica.url)).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let panics = metrics
        .lines()
        .find(|line| line.starts_with("tidings_supervise_panics_total") && !line.ends_with(" 0"));
    assert_eq!(panics, None);
    drop(socket);
    let (code, said) = replica.leave_saying().await;
    assert_eq!(code, Some(0));
    let panic = said.iter().find(|line| line.contains("panicked"));
    assert_eq!(panic, None);
}
