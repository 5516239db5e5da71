//! The settings of the part `replica`.

use serde_json::json;

use super::client::{Socket, get, post, post_as};
use super::{in_memory, in_postgres, number, refused};

#[tokio::test]
pub(super) async fn a_replica_says_its_name() {
    let (url, database) = super::database().await;
    let replica = in_postgres("first", &url, &[("replica", "blue/7")]).await;
    assert_eq!(replica.readyz().await["replica"], "blue/7");
    let mut socket = Socket::open(&replica, "").await;
    assert_eq!(socket.frame("welcome").await["replica"], "blue/7");
    let own = "select count(*) from pg_stat_activity where application_name = 'tidings/blue/7'";
    assert!(number(&database, own).await > 0, "the database knows its connections by it");
}

#[tokio::test]
pub(super) async fn only_in_dev_mode_nobody_needs_a_token() {
    let body = json!({"topic": "a", "data": 1});
    let dev = in_memory(&[("dev", "true")]).await;
    assert_eq!(post(&dev, &body).await.status, 201);
    assert_eq!(get(&dev, "/v1/stats?user=ann").await.status, 200, "everybody is admin");
    let key = "a key of a server";
    let strict = in_memory(&[("dev", "false"), ("api_keys", key)]).await;
    post(&strict, &body).await.is_problem(401);
    get(&strict, "/v1/stats?user=ann").await.is_problem(400);
    assert_eq!(post_as(&strict, Some(key), &body).await.status, 201);
    // Where anybody else might come, somebody must have been named who may.
    let (code, said) = refused(&[("dev", "false"), ("listen", "0.0.0.0:0")]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody could be let in"), "{said}");
}

#[tokio::test]
pub(super) async fn dev_mode_listens_on_loopback_only() {
    for key in ["listen", "ops_listen"] {
        let (code, said) = refused(&[("dev", "true"), (key, "0.0.0.0:0")]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("loopback only"), "{said}");
    }
}
