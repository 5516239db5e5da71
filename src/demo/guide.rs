//! What the demo says when it is ready: addresses, and lines to copy into another terminal.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::database::Database;
use super::replica::{Replica, http};
use super::say;

pub async fn show(replicas: &[Replica], database: &Database, front: &str, edge: &str) {
    let cursor = cursor(&replicas[0]).await;
    say(&text(replicas, database, [front, edge], cursor.as_deref(), has_psql()));
}

fn text(
    replicas: &[Replica],
    database: &Database,
    [front, edge]: [&str; 2],
    cursor: Option<&str>,
    has_psql: bool,
) -> String {
    let urls: Vec<String> = replicas.iter().map(Replica::url).collect();
    let (one, two, three) = (&urls[0], &urls[1], &urls[2]);
    let mut lines = vec![String::new(), "Three replicas over one Postgres:".to_owned()];
    for (replica, url) in replicas.iter().zip(&urls) {
        let pid = replica.pid().unwrap_or_default();
        lines.push(format!("  {}  {url}  (process {pid})", replica.name));
    }
    if !database.is_borrowed() {
        // The address of a borrowed one holds somebody's password.
        lines.push(format!("  postgres   {}", database.url));
    }
    lines.push(format!("  all        {front}  (the next one that is ready)"));
    lines.push(String::new());
    lines.push("Open the console, and a second one as somebody else:".to_owned());
    lines.push(format!("  {front}/?user=ada"));
    lines.push(format!("  {front}/?user=grace"));
    lines.push(
        "Look at a task there and kill the replica that you are on: the bar goes on.".to_owned(),
    );
    lines.push(String::new());
    lines.push("Try it, in other terminals:".to_owned());
    let mut step = |what: &str, line: String| lines.push(format!("\n  # {what}\n  {line}"));
    step("Subscribe on replica-2.", format!("curl -N '{two}/v1/sse?topics=order:*'"));
    step(
        "Publish on replica-1: replica-2 has it.",
        format!(r#"curl {one}/v1/messages -d '{{"topic":"order:7","data":{{"step":"packed"}}}}'"#),
    );
    if has_psql {
        let target = match database.is_borrowed() {
            true => "\"$DATABASE_URL\"".to_owned(),
            false => format!("'{}'", database.url),
        };
        step(
            "Publish from SQL, in a transaction of your own.",
            format!(
                r#"psql {target} -c "select tidings.publish('order:7', '{{\"step\":\"paid\"}}')""#
            ),
        );
    }
    let place = if front.ends_with(":8080") { String::new() } else { format!(" --url {front}") };
    step(
        "Kill replica-2, here or by its button in the console: its clients go elsewhere, its tasks go on, and it comes back by itself.",
        format!("tidings demo kill 2{place}"),
    );
    if let Some(cursor) = cursor {
        step(
            "Resume on any replica: everything since the demo began, then what is new.",
            format!("curl -N -H 'Last-Event-ID: {cursor}' '{three}/v1/sse?topics=order:*'"),
        );
    }
    step(
        "A stream of telemetry, as a source tells it: one replica reads it for all, see Sources in the console.",
        format!("curl -N {edge}"),
    );
    step("What a replica says of itself.", format!("curl {one}/readyz; curl {one}/v1/stats"));
    lines.push(String::new());
    lines.push("Ready. Ctrl-C ends everything and leaves nothing behind.".to_owned());
    lines.join("\n")
}

/// The head of the log: a history that begins nowhere begins now, and says where that is.
async fn cursor(replica: &Replica) -> Option<String> {
    let url = format!("{}/v1/messages?topic=order:*&limit=1", replica.url());
    let page: Value = http().get(url).send().await.ok()?.json().await.ok()?;
    page["cursor"].as_str().map(str::to_owned)
}

fn has_psql() -> bool {
    let mut command = Command::new("psql");
    let quiet = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    quiet.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
