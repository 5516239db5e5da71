//! Plays an example of server-sent events.

use futures_util::StreamExt;
use tokio::time::timeout;

use super::document::{Failure, Line};
use super::expect;
use super::player::{Exchange, PATIENCE, Stage, exchange};

/// Expected events stand one after the other, parted by empty lines; of each, the lines shown must
/// be there. A `cursor` that was not expected may come at any time.
pub async fn play(
    stage: &mut Stage,
    client: &reqwest::Client,
    lines: &[Line],
) -> Result<(), Failure> {
    let Exchange { request, answer, .. } = exchange(stage, client, lines)?;
    let sent = request.send().await;
    let response = sent.map_err(|error| Failure::new(&lines[0], format!("no answer: {error}")))?;
    let content = response.headers().get("content-type").map(|value| value.as_bytes().to_owned());
    if response.status() != 200 || content.as_deref() != Some(b"text/event-stream") {
        let status = response.status();
        let body = response.text().await.unwrap_or_default();
        return Err(Failure::new(&lines[0], format!("no stream came but {status}: {body}")));
    }
    let mut body = response.bytes_stream();
    let mut buffer = String::new();
    for expected in answer.split(|line| line.text.is_empty()) {
        let Some(first) = expected.first() else { continue };
        let wants_cursor = expected.iter().any(|line| line.text == "event: cursor");
        let event = loop {
            if let Some((event, rest)) = buffer.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                buffer = rest;
                if wants_cursor || !event.lines().any(|line| line == "event: cursor") {
                    break event;
                }
                continue;
            }
            match timeout(PATIENCE, body.next()).await {
                Ok(Some(Ok(chunk))) => buffer.push_str(&String::from_utf8_lossy(&chunk)),
                Ok(_) => return Err(Failure::new(first, "the stream ended")),
                Err(_) => return Err(Failure::new(first, "nothing came")),
            }
        };
        for line in expected {
            check(stage, line, &event)?;
        }
        let shows_id = expected.iter().any(|line| line.text.starts_with("id: "));
        if !shows_id && event.lines().any(|line| line.starts_with("id: ")) {
            return Err(Failure::new(first, format!("an id that is not shown:\n{event}")));
        }
    }
    Ok(())
}

fn check(stage: &mut Stage, line: &Line, event: &str) -> Result<(), Failure> {
    let name = line.text.split(' ').next().unwrap();
    let Some(came) = event.lines().find(|own| own.starts_with(name)) else {
        return Err(Failure::new(line, format!("{} expected in\n{event}", line.text)));
    };
    match (line.text.strip_prefix("data: "), came.strip_prefix("data: ")) {
        (Some(expected), Some(came)) => {
            stage.interface.sent(came).map_err(|wrong| Failure::new(line, wrong))?;
            let value = expect::json(line, expected, came)?;
            stage.learn(&value);
            Ok(())
        }
        _ => expect::text(line, &line.text, came),
    }
}
