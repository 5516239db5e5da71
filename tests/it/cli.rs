//! The commands as somebody types them: the real binary against real replicas.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::commands::{Running, said, tidings};
use crate::fleet::Replica;
use crate::harness;

const KEY: &str = "a-key-for-these-tests-alone";

/// A replica that wants a token.
async fn guarded(database_url: &str, more: &[(&str, &str)]) -> Replica {
    let own = [("TIDINGS_DEV", "false"), ("TIDINGS_API_KEYS", KEY)];
    Replica::start("guarded", database_url, &[&own, more].concat()).await
}

async fn topics_seqs(replica: &Replica, topic: &str) -> Vec<u64> {
    let url = format!("{}/v1/messages?topic={topic}&since=2020-01-01T00:00:00Z", replica.url);
    let page: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_with_nothing_set_lets_in_whom_it_told_the_key_and_nobody_else() {
    let mut serve = Running::start(&["serve", "--listen", "127.0.0.1:0"], &[]);
    let mut before = Vec::new();
    let mut word = async |name: &str| loop {
        let line = serve.stderr().await;
        if let Some(rest) = line.trim().strip_prefix(name) {
            return rest.trim().to_owned();
        }
        before.push(line);
    };
    let (url, key) = (word("address").await, word("API key").await);
    let (listen, publish) = (word("tidings tail").await, word("curl").await);
    assert!(listen.contains(&key) && listen.contains(&url), "{listen}");
    assert!(publish.contains(&key) && publish.contains(&url), "{publish}");
    assert!(before.iter().all(|line| !line.starts_with('{') || !line.contains(&key)));
    let refused = tidings(&["publish", "a", "1", "--url", &url], &[]).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("401"), "{}", refused.err);
    let published = tidings(&["publish", "a", "1", "--url", &url, "--token", &key], &[]).await;
    assert_eq!(published.code, 0, "{}", published.err);
    serve.signal("-TERM");
    let (code, rest) = serve.ended().await;
    assert_eq!(code, Some(0));
    assert!(!rest.contains(&key), "the key stands in one place alone: {rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_makes_up_no_key_where_others_could_use_it() {
    let database = [("DATABASE_URL", "postgres://127.0.0.1:1/none")];
    for (args, env) in [
        (vec!["serve", "--listen", "0.0.0.0:0"], &[][..]),
        (vec!["serve", "--listen", "127.0.0.1:0", "--ops-listen", "0.0.0.0:0"], &[]),
        (vec!["serve", "--listen", "127.0.0.1:0"], &database),
    ] {
        let refused = tidings(&args, env).await;
        assert_eq!(refused.code, 1, "{args:?}");
        assert!(refused.err.contains("nobody could be let in"), "{}", refused.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_says_where_it_stands_and_knows_it_again() {
    let replica = guarded("", &[]).await;
    let env = [("TIDINGS_URL", replica.url.as_str()), ("TIDINGS_TOKEN", KEY)];
    let args =
        ["publish", "order:7", r#"{"step":"packed"}"#, "--idempotency-key", "k", "--kind", "x"];
    let first = tidings(&args, &env).await;
    assert_eq!(first.code, 0, "{}", first.err);
    let fields: Vec<&str> = first.out.trim().split('\t').collect();
    assert!(fields[0] == "1" && fields[1].ends_with("-1") && fields.len() == 2, "{fields:?}");
    let again = tidings(&args, &env).await;
    assert_eq!(again.out.trim(), format!("{}\tduplicate", first.out.trim()));
    let signal = tidings(&["publish", "a", "1", "--class", "signal", "--json"], &env).await;
    let answer: Value = serde_json::from_str(&signal.out).unwrap();
    assert_eq!(answer, json!({"topic":"a","seq":null,"cursor":null,"duplicate":false}));

    let lines: String = (1..=2500).map(|number| format!("{number}\n\n")).collect();
    let args = ["publish", "many", "-", "--idempotency-key", "run"];
    let many = Running::start(&args, &env).with_input(&lines).await;
    assert_eq!(many.code, 0, "{}", many.err);
    let seqs: Vec<u64> =
        many.out.lines().map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect();
    assert_eq!(seqs, (2..2502).collect::<Vec<u64>>(), "in order, each once");
    let again = Running::start(&args, &env).with_input(&lines).await;
    assert!(again.out.lines().all(|line| line.ends_with("duplicate")));
    let broken = Running::start(&args, &env).with_input("1\n2\n{\n").await;
    assert_eq!(broken.code, 2);
    assert!(broken.err.contains("line 3 is no JSON"), "{}", broken.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_returns_2_and_one_sentence() {
    for (args, sentence) in [
        (vec!["publish", "a b", "1"], "the topic"),
        (vec!["publish", "a", "{"], "no JSON"),
        (vec!["publish", "a", "hello"], "needs quotes"),
        (vec!["publish", "a", "1", "--class", "thing"], "--class is one of event, state, signal"),
        (vec!["publish", "a", "1", "--priority", "9"], "--priority is one of"),
        (vec!["publish", "a", "1", "--url", "localhost:80"], "http://host:port"),
        (vec!["publish", "a", "1", "--token", "a\nb"], "token"),
        (vec!["tail", "a b"], "the topic"),
        (vec!["tail", "a", "--after", "7"], "--after: not a cursor"),
        (vec!["tail", "a", "--url", "ftp://a"], "http://host:port"),
        (vec!["token", "--sub", "1"], "set TIDINGS_JWT_SECRET"),
        (vec!["token", "--sub", "1", "--ttl-s", "0"], "--ttl-s is 1 to"),
        (vec!["migrate"], "set DATABASE_URL"),
        (vec!["doctor"], "set DATABASE_URL"),
        (vec!["healthcheck", "--url", "x"], "http://host:port"),
        (vec!["migrate", "--lanes", "99"], "lanes"),
    ] {
        let ran = tidings(&args, &[]).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {}", ran.err);
        assert!(ran.err.starts_with("tidings: ") && ran.err.contains(sentence), "{}", ran.err);
    }
    for args in [vec!["tail"], vec!["publish"], vec!["dance"], vec!["tail", "a", "--loud"]] {
        assert_eq!(tidings(&args, &[]).await.code, 2, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_tail_say_why_nobody_takes_them() {
    let nobody = ["--url", "http://127.0.0.1:1"];
    let args = [&["publish", "a", "1", "--timeout-s", "1"][..], &nobody].concat();
    let ran = tidings(&args, &[]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("gave up after 1 s"), "{}", ran.err);
    let replica = guarded("", &[]).await;
    let url = [("TIDINGS_URL", replica.url.as_str())];
    for args in [vec!["tail", "a"], vec!["tail", "a", "--token", "wrong"]] {
        let ran = tidings(&args, &url).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
        assert!(ran.err.contains("4401") && !ran.err.contains("wrong-"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_when_to_come_back_is_left_alone_until_then() {
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (url, asked) = crate::commands::always_answers(busy).await;
    let ran = tidings(&["publish", "a", "1", "--url", &url, "--timeout-s", "20"], &[]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("429"), "{}", ran.err);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the minute is longer than the 20 s that it has");
    let gone = "HTTP/1.1 422 Unprocessable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (url, asked) = crate::commands::always_answers(gone).await;
    assert_eq!(tidings(&["publish", "a", "1", "--url", &url], &[]).await.code, 1);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "saying it again would not help");
}

/// The worst moment: it is committed, and nobody was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_whose_answer_is_lost_is_there_once() {
    let url = harness::database_url().await;
    let replica = Replica::start("one", &url, &[]).await;
    let lossy = crate::commands::loses_answers(replica.url.strip_prefix("http://").unwrap()).await;
    let urls = format!("http://{lossy},{}", replica.url);
    let ran = tidings(&["publish", "a", "1", "--url", &urls], &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.trim().ends_with("duplicate"), "it had been committed: {}", ran.out);
    assert_eq!(topics_seqs(&replica, "a").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_waits_for_a_replica_that_comes_back() {
    let url = harness::database_url().await;
    let mut replica = Replica::start("one", &url, &[]).await;
    replica.kill().await;
    let args = ["publish", "a", "-", "--url", &replica.url];
    let publish = Running::start(&args, &[]);
    let (ran, ()) = tokio::join!(publish.with_input("1\n2\n3\n"), replica.start_again());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(topics_seqs(&replica, "a").await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_loses_and_doubles_nothing_while_its_replica_is_killed_and_comes_back() {
    let url = harness::database_url().await;
    let mut replica = Replica::start("one", &url, &[]).await;
    let args = ["tail", "a", "b:*", "--json", "--url", &replica.url];
    let mut tail = Running::start(&args, &[]);
    tail.says("connected to one").await;
    for round in 0..3 {
        for number in 0..20 {
            let topic = if number % 2 == 0 { "a" } else { "b:1" };
            // Line breaks between tokens are kept by the server, and a line is a line.
            let body = format!("{{\"topic\":\"{topic}\",\"data\":[\n{round},\n{number}]}}");
            let sent =
                reqwest::Client::new().post(format!("{}/v1/messages", replica.url)).body(body);
            assert_eq!(sent.send().await.unwrap().status(), 201);
            replica.publish(&json!({"topic": "broadcast", "data": "not asked for"})).await;
            if number == 10 {
                replica.kill().await;
                replica.start_again().await;
            }
        }
    }
    let mut seqs = Vec::new();
    for _ in 0..60 {
        let frame: Value = serde_json::from_str(&tail.stdout().await).unwrap();
        assert_eq!(frame["type"], "message");
        seqs.push(frame["seq"].as_u64().unwrap());
    }
    assert_eq!(seqs, (0..60).map(|number| number * 2 + 1).collect::<Vec<u64>>());
    tail.signal("-TERM");
    assert_eq!(tail.ended().await.0, Some(0));
}

/// A frozen replica closes nothing: only the missing heartbeat tells.
#[tokio::test(flavor = "multi_thread")]
async fn tail_notices_a_connection_that_is_half_open_and_goes_elsewhere() {
    let url = harness::database_url().await;
    let heartbeat = [("TIDINGS_HEARTBEAT_S", "1")];
    let frozen = Replica::start("frozen", &url, &heartbeat).await;
    let other = Replica::start("other", &url, &heartbeat).await;
    let urls = format!("{},{}", frozen.url, other.url);
    let mut tail = Running::start(&["tail", "a", "--url", &urls], &[]);
    tail.says("connected to frozen").await;
    frozen.signal("-STOP");
    other.publish(&json!({"topic": "a", "data": "missed"})).await;
    tail.says("nothing was heard for too long").await;
    tail.says("connected to other").await;
    assert!(tail.stdout().await.ends_with(" 1 a - \"missed\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_that_is_sent_away_goes_elsewhere_and_misses_nothing() {
    let url = harness::database_url().await;
    let mut leaving = Replica::start("leaving", &url, &[("TIDINGS_DRAIN_S", "2")]).await;
    let other = Replica::start("other", &url, &[]).await;
    let urls = format!("{},{}", leaving.url, other.url);
    let mut tail = Running::start(&["tail", "a", "--url", &urls], &[]);
    tail.says("connected to leaving").await;
    assert_eq!(leaving.leave().await, Some(0));
    other.publish(&json!({"topic": "a", "data": "meanwhile"})).await;
    tail.says("the replica leaves (1012)").await;
    tail.says("connected to other").await;
    assert!(tail.stdout().await.ends_with(" 1 a - \"meanwhile\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_begins_after_a_cursor_and_ends_when_nobody_reads_it() {
    let replica = guarded("", &[]).await;
    let env = [("TIDINGS_URL", replica.url.as_str()), ("TIDINGS_TOKEN", KEY)];
    let first = tidings(&["publish", "a", "1"], &env).await;
    let cursor = first.out.trim().split('\t').nth(1).unwrap();
    assert_eq!(tidings(&["publish", "a", "\"two words\"", "--kind", "k"], &env).await.code, 0);
    let ran = tidings(&["tail", "a", "--after", cursor, "--count", "1"], &env).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.ends_with(" 2 a k \"two words\"\n"), "{}", ran.out);

    let mut tail = Running::start(&["tail", "a"], &env);
    tail.says("connected").await;
    tail.close_stdout();
    assert_eq!(tidings(&["publish", "a", "3"], &env).await.code, 0);
    assert_eq!(tail.ended().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_says_that_a_log_in_memory_began_anew_and_goes_on() {
    let mut replica = Replica::start("memory", "", &[]).await;
    let mut tail = Running::start(&["tail", "a", "--url", &replica.url], &[]);
    tail.says("connected").await;
    replica.publish(&json!({"topic": "a", "data": 1})).await;
    assert!(tail.stdout().await.ends_with(" 1 a - 1"));
    replica.kill().await;
    replica.start_again().await;
    tail.says("reset (epoch)").await;
    replica.publish(&json!({"topic": "a", "data": 2})).await;
    assert!(tail.stdout().await.ends_with(" 1 a - 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_allows_what_it_was_signed_for() {
    let secret = ("TIDINGS_JWT_SECRET", "a-secret-of-more-than-thirty-two-bytes");
    let names = [("TIDINGS_JWT_ISSUER", "us"), ("TIDINGS_JWT_AUDIENCE", "them"), secret];
    let replica = guarded("", &names).await;
    let args = ["token", "--sub", "42", "--roles", "a,b", "--topics", "order:*", "--ttl-s", "60"];
    let token = tidings(&args, &names).await;
    assert_eq!(token.code, 0, "{}", token.err);
    let env = [("TIDINGS_URL", replica.url.as_str()), ("TIDINGS_TOKEN", token.out.trim())];
    assert_eq!(tidings(&["publish", "order:7", "1"], &env).await.code, 0);
    let refused = tidings(&["publish", "other", "1"], &env).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("403"), "{}", refused.err);
    let refused = tidings(&["tail", "other"], &env).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("4403"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_asks_the_replica_that_the_settings_name() {
    let replica = Replica::start("one", "", &[]).await;
    let listen = replica.url.strip_prefix("http://").unwrap();
    for (args, env) in [
        (vec!["healthcheck", "--url", &replica.url], vec![]),
        (vec!["healthcheck"], vec![("TIDINGS_LISTEN", listen)]),
        (vec!["healthcheck", "--listen", listen], vec![("TIDINGS_URL", "http://127.0.0.1:1")]),
    ] {
        let ran = tidings(&args, &env).await;
        assert_eq!((ran.code, ran.out.as_str()), (0, "ready\n"), "{args:?}: {}", ran.err);
    }
    let ran = tidings(&["healthcheck", "--url", "http://127.0.0.1:1"], &[]).await;
    assert_eq!(ran.code, 1);
    let late = Replica::spawned("late", "postgres://127.0.0.1:1/none?sslmode=disable", &[]).await;
    let ran = tidings(&["healthcheck", "--url", &late.url], &[]).await;
    assert_eq!(ran.code, 1);
    assert!(said(&ran.err).starts_with("not ready (503, listener "), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_shows_what_is_in_force_and_no_secret() {
    let directory = std::env::temp_dir().join(format!("tidings-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).unwrap();
    let write = |name: &str, text: &str| {
        let file = directory.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let secret = write("secret", "a-secret-of-more-than-thirty-two-bytes");
    let file = write("tidings.toml", "history_limit_max = 7\nstall_s = 8\nheartbeat_s = 6\n");
    let args = ["check-config", "--jwt-secret-file", &secret, "--heartbeat-s", "10"];
    let env = [
        ("TIDINGS_CONFIG", file.as_str()),
        ("DATABASE_URL", "postgres://u:hush@h/x"),
        ("TIDINGS_STALL_S", "9"),
        ("TIDINGS_HEARTBEAT_S", "11"),
    ];
    let ran = tidings(&args, &env).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        r#"history_limit_max = "7"  # history_limit_max in the settings file"#,
        r#"stall_s = "9"  # TIDINGS_STALL_S"#,
        r#"heartbeat_s = "10"  # --heartbeat-s"#,
        r#"jwt_secret = "***"  # --jwt-secret-file"#,
        r#"data_bytes_max = "256 KiB"  # default"#,
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line} is missing in\n{}", ran.out);
    }
    assert!(!ran.out.contains("hush") && !ran.out.contains("a-secret-of"), "{}", ran.out);

    let file = write("wrong.toml", "history_limit = 7\n");
    for args in [["check-config", "--config", &file], ["serve", "--config", &file]] {
        let ran = tidings(&args, &[]).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""));
        assert_eq!(said(&ran.err), "the settings are wrong:\n  history_limit is no setting\n");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
