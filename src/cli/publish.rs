//! `tidings publish`: one message from the command line, or a stream of them from standard input.
//!
//! A stream is published in batches that wait for nobody: all that has been read goes out as one,
//! and while it is on its way the next one gathers in the pipe.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::failure::Failure;
use super::server::Server;
use crate::client::{Client, Outgoing, Published};
use crate::domain::{Class, Priority, Topic};

/// What a server takes in one request unless its settings say otherwise.
const BATCH_MESSAGES_MAX: usize = 1_000;

/// Well below what a server takes as one body.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// More than any server takes as one message's data.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Args, Debug)]
pub struct Publish {
    /// Where to publish
    topic: String,
    /// What to publish, as JSON; `-` reads one JSON document a line from standard input
    #[arg(default_value = "null", allow_hyphen_values = true)]
    data: String,
    /// Your word for what it is
    #[arg(long)]
    kind: Option<String>,
    /// event (kept, never dropped), state (the newest per key counts) or signal (not kept)
    #[arg(long)]
    class: Option<String>,
    /// Of a state or signal: what it is the state of
    #[arg(long)]
    key: Option<String>,
    /// high, normal or low
    #[arg(long)]
    priority: Option<String>,
    /// After so many seconds it is not delivered any more
    #[arg(long, value_name = "SECONDS")]
    ttl_s: Option<u32>,
    /// Under one key a message is kept once; lines of standard input get it with their number
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long to try
    #[arg(long, value_name = "SECONDS", default_value = "30",
        value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout_s: u64,
    /// Prints the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Publish {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        self.check()?;
        let client = self.server.client()?;
        if self.data == "-" {
            self.stream(&client, BufReader::new(tokio::io::stdin())).await?;
        } else {
            let data = json(&self.data).map_err(|why| {
                Failure::misused(format!(
                    "DATA is no JSON ({why}); a text needs quotes: '\"text\"'"
                ))
            })?;
            let key = self.idempotency_key.clone().unwrap_or_else(fresh_key);
            self.send(&client, &[self.message(data, key)]).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What a server would refuse is refused here, before anything is read or sent.
    fn check(&self) -> Result<(), Failure> {
        if let Err(error) = Topic::parse(&self.topic) {
            return Err(Failure::misused(format!("the topic {:?}: {error}", self.topic)));
        }
        let classes = Class::ALL.map(Class::as_str);
        let priorities = Priority::ALL.map(Priority::as_str);
        one_of("--class", self.class.as_deref(), &classes)?;
        one_of("--priority", self.priority.as_deref(), &priorities)
    }

    async fn stream(
        &self,
        client: &Client,
        mut input: impl AsyncBufRead + Unpin,
    ) -> Result<(), Failure> {
        let run = self.idempotency_key.clone().unwrap_or_else(fresh_key);
        let (mut number, mut published) = (0_u64, 0_u64);
        let mut line = Vec::new();
        let mut ended = false;
        while !ended {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while batch.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
                // The first line is waited for, of the others those are taken that are there.
                let reading = read_line(&mut input, &mut line);
                let read = match batch.is_empty() {
                    true => reading.await,
                    false => match reading.now_or_never() {
                        Some(read) => read,
                        None => break,
                    },
                };
                if !read.map_err(|error| stopped(published, &error))? {
                    ended = true;
                    break;
                }
                number += 1;
                let text = String::from_utf8_lossy(&std::mem::take(&mut line)).trim().to_owned();
                if text.is_empty() {
                    continue;
                }
                bytes += text.len();
                let data = json(&text).map_err(|why| {
                    Failure::misused(format!(
                        "line {number} is no JSON ({why}); {}",
                        so_far(published)
                    ))
                })?;
                batch.push(self.message(data, format!("{run}:{number}")));
            }
            if !batch.is_empty() {
                let sent = self.send(client, &batch).await;
                published += sent.map_err(|failure| stopped(published, &failure))?;
            }
        }
        Ok(())
    }

    fn message(&self, data: Box<RawValue>, idempotency_key: String) -> Outgoing {
        Outgoing {
            topic: self.topic.clone(),
            data,
            kind: self.kind.clone(),
            class: self.class.clone(),
            key: self.key.clone(),
            priority: self.priority.clone(),
            ttl_s: self.ttl_s,
            idempotency_key,
        }
    }

    async fn send(&self, client: &Client, messages: &[Outgoing]) -> Result<u64, Failure> {
        let published = client.publish(messages, Duration::from_secs(self.timeout_s)).await?;
        let lines: String = published.iter().map(|one| self.line(one)).collect();
        let mut out = tokio::io::stdout();
        let written = async {
            out.write_all(lines.as_bytes()).await?;
            out.flush().await
        };
        // Who no longer reads the answers has been told nothing wrong: it is published.
        let _ = written.await;
        Ok(published.len() as u64)
    }

    /// For scripts: seq and cursor, and whether it was there before.
    fn line(&self, one: &Published) -> String {
        if self.json {
            return serde_json::to_string(one).unwrap_or_default() + "\n";
        }
        let seq = one.seq.map_or("-".to_owned(), |seq| seq.to_string());
        let cursor = one.cursor.as_deref().unwrap_or("-");
        let duplicate = if one.duplicate { "\tduplicate" } else { "" };
        format!("{seq}\t{cursor}{duplicate}\n")
    }
}

/// Reads a line on top of what was read of it before; `false` at the end. What is read stays in
/// `line` when it is given up on, so that nothing gets lost.
async fn read_line(
    input: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let left = LINE_BYTES_MAX.saturating_sub(line.len() as u64);
    input.take(left).read_until(b'\n', line).await?;
    if line.last() != Some(&b'\n') && line.len() as u64 >= LINE_BYTES_MAX {
        return Err(std::io::Error::other("a line is too long"));
    }
    Ok(!line.is_empty())
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn fresh_key() -> String {
    format!("cli:{}", uuid::Uuid::now_v7().simple())
}

fn one_of(flag: &str, given: Option<&str>, known: &[&str]) -> Result<(), Failure> {
    match given {
        Some(given) if !known.contains(&given) => {
            Err(Failure::misused(format!("{flag} is one of {}, not {given:?}", known.join(", "))))
        }
        _ => Ok(()),
    }
}

fn stopped(published: u64, error: &dyn std::error::Error) -> Failure {
    Failure::failed(format!("{error}; {}", so_far(published)))
}

fn so_far(published: u64) -> String {
    match published {
        1 => "1 message before it is published".to_owned(),
        _ => format!("{published} messages before it are published"),
    }
}
