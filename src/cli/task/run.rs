//! `tidings task run`: items from the command line or a file, and how they are run.

use std::collections::HashSet;
use std::process::ExitCode;

use clap::Args;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Patience, watch};
use crate::cli::failure::Failure;
use crate::cli::output::answer;
use crate::client::Submission;
use crate::domain::TaskId;

/// More than any server takes as one body.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[derive(Args, Debug)]
pub struct Run {
    /// Your word for what is done
    action: String,
    /// Names of what it is done to
    #[arg(value_name = "ITEM")]
    items: Vec<String>,
    /// Reads more items, one a line: a name, or JSON such as {"name":"a","data":1}; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// How an item is run: simulate, external, or JSON such as {"type":"http","url":"https://host/{item}"}
    #[arg(long, value_name = "EXECUTOR")]
    executor: String,
    /// Whose it is; a server's own token names nobody
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// How many items may be in hand at once
    #[arg(long, value_name = "ITEMS")]
    concurrency: Option<u32>,
    /// How often an item is tried again that failed and may pass
    #[arg(long, value_name = "TIMES")]
    retries: Option<u32>,
    /// How long one try may take
    #[arg(long, value_name = "SECONDS")]
    item_timeout_s: Option<u32>,
    /// Items that were in hand when their replica or worker died have failed, and are not run again
    #[arg(long)]
    at_most_once: bool,
    /// Its owner finds a notice in the inbox when it has ended
    #[arg(long)]
    notice: bool,
    /// A JSON object for yourself
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
    /// Under one key a task is kept once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Follows it to its end, as `watch` does
    #[arg(long)]
    watch: bool,
    /// Prints the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Run {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        let executor = self.executor()?;
        let meta = self.meta.as_deref().map(|text| object("--meta", text)).transpose()?;
        let client = self.patience.server.client()?;
        let submission = Submission {
            action: self.action.clone(),
            items: self.items().await?,
            executor,
            owner: self.owner.clone(),
            concurrency: self.concurrency,
            retries: self.retries,
            item_timeout_s: self.item_timeout_s,
            at_most_once: self.at_most_once.then_some(true),
            notice: self.notice.then_some(true),
            meta,
            idempotency_key: self
                .idempotency_key
                .clone()
                .unwrap_or_else(|| format!("cli:{}", uuid::Uuid::now_v7().simple())),
        };
        let task = client.task_submit(&submission, self.patience.within()).await?;
        if self.json {
            answer(&task.text);
        } else {
            let duplicate = if task.duplicate { "\tduplicate" } else { "" };
            answer(format!("{}{duplicate}", task.id));
        }
        if !self.watch {
            return Ok(ExitCode::SUCCESS);
        }
        let id = TaskId::parse(&task.id);
        let id = id.ok_or_else(|| Failure::failed("the server gave an id that is none"))?;
        watch::follow(&client, &id, self.patience.within(), self.json).await
    }

    fn executor(&self) -> Result<Box<RawValue>, Failure> {
        let text = self.executor.trim();
        if text.starts_with('{') {
            return object("--executor", text);
        }
        let document = serde_json::json!({ "type": text }).to_string();
        RawValue::from_string(document).map_err(Failure::misused)
    }

    /// What a server would refuse is refused here, where its line is known.
    async fn items(&self) -> Result<Vec<Box<RawValue>>, Failure> {
        let mut text = String::new();
        if let Some(file) = &self.file {
            let unread = |error| Failure::misused(format!("--file {file}: {error}"));
            let read = match file.as_str() {
                "-" => read(tokio::io::stdin(), &mut text).await,
                _ => read(tokio::fs::File::open(file).await.map_err(unread)?, &mut text).await,
            };
            read.map_err(unread)?;
        }
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let lines = lines.map(|(place, line)| (format!("line {}", place + 1), line));
        let named = self.items.iter().map(|name| (format!("the item {name:?}"), name.as_str()));
        let mut items = Vec::new();
        let mut seen = HashSet::new();
        for (place, text) in named.chain(lines) {
            let wrong = |why: String| Failure::misused(format!("{place}: {why}"));
            let item = match text.starts_with('{') {
                true => object(&place, text)?,
                false => serde_json::value::to_raw_value(text).map_err(Failure::misused)?,
            };
            if !seen.insert(text) {
                return Err(wrong("it comes twice".to_owned()));
            }
            items.push(item);
        }
        if items.is_empty() {
            return Err(Failure::misused("name at least one item, or a file of them with --file"));
        }
        Ok(items)
    }
}

async fn read(from: impl AsyncRead + Unpin, text: &mut String) -> std::io::Result<()> {
    from.take(FILE_BYTES_MAX).read_to_string(text).await.map(|_| ())
}

fn object(what: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    let wrong = |why: String| Failure::misused(format!("{what} is no JSON object ({why})"));
    let raw: Box<RawValue> =
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    match raw.get().starts_with('{') {
        true => Ok(raw),
        false => Err(wrong("it is something else".to_owned())),
    }
}
