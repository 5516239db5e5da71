//! `tidings notice`.

use super::*;
use crate::commands::tidings;

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_sent_listed_and_shown_from_a_shell() {
    let fleet = fleet("", 1, &[]).await;
    let env = [("TIDINGS_URL", fleet[0].url.as_str()), ("TIDINGS_TOKEN", API_KEY)];
    let sent = tidings(
        &[
            "notice",
            "send",
            "Main tenance",
            "Tonight",
            "--user",
            "1,2",
            "--priority",
            "high",
            "--confirm",
        ],
        &env,
    )
    .await;
    assert_eq!(sent.code, 0, "{}", sent.err);
    let id = sent.out.trim();
    assert_eq!(counts(&fleet[0].url, "1").await, (1, 1));
    let listed = tidings(&["notice", "list"], &env).await.out;
    assert!(listed.contains(&format!(" {id} 2 users high Main tenance")), "{listed}");
    let shown = tidings(&["notice", "show", id], &env).await.out;
    assert!(shown.lines().any(|line| line.trim() == "pending 2"), "{shown}");
    let json = tidings(&["notice", "show", id, "--json"], &env).await.out;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["total"], 2);
    for (args, code) in [
        (&["notice", "send", "T"][..], 2),
        (&["notice", "send", "T", "--all", "--data", "{"], 2),
        (&["notice", "show", "N"], 2),
        (&["notice", "show", "none"], 1),
        (&["notice", "send", "T", "--all", "--priority", "most"], 1),
    ] {
        let ran = tidings(args, &env).await;
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
    }
}
