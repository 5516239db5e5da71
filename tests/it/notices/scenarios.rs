//! What people do with notices, across replicas.

use super::tab::Tab;
use super::*;
use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_finds_everything_oldest_first_and_once() {
    let fleet = fleet(&harness::database_url().await, 2, &[]).await;
    let (one, two) = (&fleet[0].url, &fleet[1].url);
    let mut here = Tab::open(one, "2").await;
    // What is sent before that may come as something missed.
    let opened = "tidings_store_seconds_count{query=\"inbox_open\"}";
    until("its inbox is open", async || fleet[0].metric(opened).await > 0).await;
    let all = send(one, json!("all"), json!({"priority": "low"})).await;
    let ops = send(two, json!({"roles": ["ops"]}), json!({})).await;
    let named = send(two, json!({"users": ["2", "3", "4"]}), json!({"priority": "urgent"})).await;
    let ids = [all.as_str(), &ops, &named];
    here.until("all three", |tab| tab.notices.len() == 3).await;
    assert!(here.notices.iter().all(|(_, replay)| !replay));
    here.until_counts(3, 3).await;
    // Away until now, on the other replica.
    let mut away = Tab::open(two, "4").await;
    away.until_notices(&ids).await;
    assert!(away.notices.iter().all(|(_, replay)| *replay));
    away.until_counts(3, 3).await;
    let mut without = Tab::open(two, "3").await;
    without.until_notices(&[&all, &named]).await;
    for (id, sent) in [(&all, 3), (&ops, 2), (&named, 3)] {
        until_tally(one, id, "sent", sent).await;
    }
    // What is not acknowledged comes again with the next session; what is, does not.
    away.say("received", &[&all]).await;
    away.say("read", &[&ops]).await;
    let mut again = Tab::open(one, "4").await;
    again.until_notices(&[&named]).await;
    again.until_counts(2, 3).await;
    let tally = tally(two, &named).await;
    assert_eq!((&tally["total"], &tally["recipients"]), (&json!(3), &json!(3)));
    for tab in [&mut here, &mut away, &mut without, &mut again] {
        tab.settle().await;
        assert!(tab.notices.len() <= 3, "{:?}", tab.notices);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tabs_of_a_user_have_it_once_and_count_alike() {
    let fleet = fleet(&harness::database_url().await, 2, &[]).await;
    let mut tabs = Vec::new();
    for replica in [&fleet[0], &fleet[0], &fleet[1]] {
        tabs.push(Tab::open(&replica.url, "1").await);
    }
    let mut ids = Vec::new();
    for target in [json!("all"), json!({"users": ["1"]}), json!("all")] {
        ids.push(send(&fleet[0].url, target, json!({})).await);
    }
    for tab in &mut tabs {
        tab.until_notices(&[&ids[0], &ids[1], &ids[2]]).await;
        tab.until_counts(3, 3).await;
    }
    tabs[2].say("read", &[&ids[0], &ids[1]]).await;
    for tab in &mut tabs {
        tab.until_counts(1, 3).await;
    }
    tabs[0].say("confirmed", &[&ids[1]]).await;
    for tab in &mut tabs {
        tab.until_counts(1, 2).await;
    }
    let all = json!({"all": true});
    let (status, left) =
        ask(&fleet[1].url, Method::POST, "/v1/inbox/confirmed", &token("1"), Some(&all)).await;
    assert_eq!((status, left), (200, json!({"unread": 0, "unconfirmed": 0})));
    for tab in &mut tabs {
        tab.until_counts(0, 0).await;
        tab.settle().await;
        assert_eq!(tab.notices.len(), 3, "once each: {:?}", tab.notices);
    }
    assert_eq!(tally(&fleet[0].url, &ids[0]).await["confirmed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_left_out_hears_nothing() {
    let fleet = fleet(&harness::database_url().await, 2, &[]).await;
    let mut out = Tab::open(&fleet[1].url, "2").await;
    let mut other = Tab::open(&fleet[1].url, "4").await;
    for target in [json!("all"), json!({"roles": ["ops"]}), json!({"users": ["2", "4"]})] {
        send(&fleet[0].url, target, json!({"except": ["2"]})).await;
    }
    let last = send(&fleet[0].url, json!("all"), json!({})).await;
    other.until("all four", |tab| tab.notices.len() == 4).await;
    out.until_notices(&[&last]).await;
    assert_eq!(counts(&fleet[0].url, "2").await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recalled_notice_goes_from_every_tab() {
    let fleet = fleet(&harness::database_url().await, 2, &[]).await;
    let mut tab = Tab::open(&fleet[1].url, "1").await;
    let kept = send(&fleet[0].url, json!("all"), json!({})).await;
    let gone = send(&fleet[0].url, json!({"users": ["1"]}), json!({})).await;
    tab.until_counts(2, 2).await;
    let path = format!("/v1/notices/{gone}");
    assert_eq!(ask(&fleet[0].url, Method::DELETE, &path, API_KEY, None).await.0, 200);
    tab.until("it is recalled", |tab| tab.recalled == [gone.clone()]).await;
    tab.until_counts(1, 1).await;
    let inbox = get(&fleet[1].url, "/v1/inbox?state=unread", &token("1")).await;
    assert_eq!(inbox["notices"].as_array().unwrap().len(), 1);
    assert_eq!(inbox["notices"][0]["id"], *kept);
    let path = format!("/v1/notices/{gone}/resend");
    assert_eq!(ask(&fleet[0].url, Method::POST, &path, API_KEY, None).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resent_notice_comes_to_every_tab_of_those_who_have_not_received_it() {
    let fleet = fleet(&harness::database_url().await, 2, &[]).await;
    let mut tabs = Vec::new();
    for replica in &fleet {
        tabs.push(Tab::open(&replica.url, "1").await);
    }
    let mut received = Tab::open(&fleet[0].url, "2").await;
    let id = send(&fleet[0].url, json!("all"), json!({})).await;
    received.until_notices(&[&id]).await;
    received.say("received", &[&id]).await;
    for tab in &mut tabs {
        tab.until_notices(&[&id]).await;
    }
    until_tally(&fleet[0].url, &id, "sent", 1).await;
    let path = format!("/v1/notices/{id}/resend");
    let (status, answer) = ask(&fleet[1].url, Method::POST, &path, API_KEY, None).await;
    assert_eq!((status, &answer["due"], &answer["notice"]["id"]), (202, &json!(1), &json!(id)));
    for tab in &mut tabs {
        tab.until_notices(&[&id, &id]).await;
        assert_eq!(tab.notices[1], (id.clone(), true));
    }
    received.settle().await;
    assert_eq!(received.notices.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_was_away_finds_that_a_task_has_ended() {
    let fleet = fleet(&harness::database_url().await, 2, &[]).await;
    let mut here = Tab::open(&fleet[1].url, "4").await;
    let mut ids = Vec::new();
    for owner in ["3", "4"] {
        let task = json!({"action": "cordon", "items": ["a"], "owner": owner, "notice": true,
            "executor": {"type": "simulate", "delay_ms": 1}});
        let (status, task) =
            ask(&fleet[0].url, Method::POST, "/v1/tasks", API_KEY, Some(&task)).await;
        assert_eq!(status, 202, "{task}");
        ids.push(task["id"].as_str().unwrap().to_owned());
    }
    let path = format!("/v1/tasks/{}", ids[0]);
    let ended = async || get(&fleet[0].url, &path, API_KEY).await["status"] == "completed";
    until("it has ended", ended).await;
    let notices: Vec<String> = ids.iter().map(|id| format!("task-{id}-1")).collect();
    let mut back = Tab::open(&fleet[1].url, "3").await;
    back.until_notices(&[&notices[0]]).await;
    assert!(back.notices[0].1, "as something missed");
    back.until_counts(1, 0).await;
    here.until_notices(&[&notices[1]]).await;
    here.until_counts(1, 0).await;
    let inbox = get(&fleet[0].url, "/v1/inbox", &token("3")).await;
    assert_eq!(inbox["notices"][0]["title"], "cordon: completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_out_is_counted_no_more() {
    let fleet = fleet(&harness::database_url().await, 1, &[]).await;
    let mut tab = Tab::open(&fleet[0].url, "1").await;
    let id = send(&fleet[0].url, json!("all"), json!({"expires_in_s": 2})).await;
    tab.until_counts(1, 1).await;
    tab.until_counts(0, 0).await;
    assert_eq!(tally(&fleet[0].url, &id).await["expired"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statistics_say_what_became_of_notices_and_how_fast() {
    let fleet = fleet("", 1, &[]).await;
    let url = &fleet[0].url;
    let missed = send(url, json!({"users": ["1"]}), json!({})).await;
    let mut tab = Tab::open(url, "1").await;
    tab.until_notices(&[&missed]).await;
    let live = send(url, json!("all"), json!({})).await;
    tab.until_notices(&[&missed, &live]).await;
    tab.say("read", &[&live]).await;
    let stats = async || get(url, "/v1/stats", API_KEY).await;
    let marks = json!({"sent": 2, "received": 0, "read": 1, "confirmed": 0});
    until("receipts are counted", async || stats().await["notices"]["marks"] == marks).await;
    until("there are rates", async || stats().await["rates"]["answered_per_s"].is_number()).await;
    let stats = stats().await;
    let notices = &stats["notices"];
    assert_eq!(notices["handed"], json!({"live": 1, "replay": 1, "again": 0}));
    assert_eq!((&notices["sent"], &notices["readers"]), (&json!(2), &json!(1)));
    let rates = &stats["rates"];
    assert!(rates["answered_per_s"].as_f64().unwrap() > 0.0, "{rates}");
    assert_eq!(rates["failed_per_s"], 0.0, "{rates}");
    let bounds = ["delivery_p50_ms", "delivery_p99_ms"].map(|name| rates[name].as_f64().unwrap());
    assert!(0.0 < bounds[0] && bounds[0] <= bounds[1] && bounds[1] < 5_000.0, "{rates}");
    assert_eq!((&stats["sessions"], &stats["presence"]["sessions"]), (&json!(1), &json!(1)));
    assert!(stats["uptime_s"].is_u64() && stats.get("last_error").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_marks_or_reads_for_somebody_else() {
    let fleet = fleet("", 1, &[]).await;
    let url = &fleet[0].url;
    let id = send(url, json!({"users": ["1"]}), json!({})).await;
    let mut other = Tab::open(url, "3").await;
    other.say("confirmed", &[&id]).await;
    let body = json!({"ids": [id]});
    let (status, left) = ask(url, Method::POST, "/v1/inbox/read", &token("3"), Some(&body)).await;
    assert_eq!((status, left), (200, json!({"unread": 0, "unconfirmed": 0})));
    assert_eq!(get(url, "/v1/inbox", &token("3")).await["notices"], json!([]));
    assert_eq!(tally(url, &id).await["pending"], 1);
    assert_eq!(counts(url, "1").await, (1, 1));
    let (status, _) = ask(url, Method::GET, "/v1/inbox", API_KEY, None).await;
    assert_eq!(status, 403, "a server has no inbox");
}
