//! `tidings tail`: one line a message, until somebody stops it.

use std::process::ExitCode;

use clap::Args;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::output::say;
use super::server::Server;
use crate::client::{ClientError, Event, Received};
use crate::domain::{Cursor, Pattern, Topic};

/// How much is gathered before it is written, if so much is there already.
const WRITE_BYTES_MAX: usize = 64 << 10;

#[derive(Args, Debug)]
pub struct Tail {
    /// Topics, or prefixes ending in `*`
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Begins after this cursor instead of now
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Prints the frames as they come
    #[arg(long)]
    json: bool,
    /// Ends after so many messages
    #[arg(long, value_name = "MESSAGES")]
    count: Option<u64>,
    #[command(flatten)]
    server: Server,
}

impl Tail {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        let topics = self.topics.iter().map(|text| {
            Pattern::parse(text)
                .map_err(|error| Failure::misused(format!("the topic {text:?}: {error}")))
        });
        let topics: Vec<Pattern> = topics.collect::<Result<_, _>>()?;
        let after = self.after.as_deref().map(Cursor::parse).transpose();
        let after = after.map_err(|error| Failure::misused(format!("--after: {error}")))?;
        let client = self.server.client()?;
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            return Err(Failure::failed("signals cannot be watched"));
        };
        tokio::select! {
            ended = self.follow(&client, &topics, after) => ended,
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        }
    }

    async fn follow(
        &self,
        client: &crate::client::Client,
        topics: &[Pattern],
        after: Option<Cursor>,
    ) -> Result<ExitCode, Failure> {
        let mut tail = client.tail(topics, after);
        let mut out = tokio::io::stdout();
        let mut left = self.count;
        let mut text = String::new();
        while left != Some(0) {
            let mut next = tail.next().await;
            let ended = loop {
                match next {
                    Ok(event) => self.take(event, topics, &mut text, &mut left),
                    Err(error) => break Err(error),
                }
                if left == Some(0) || text.len() > WRITE_BYTES_MAX {
                    break Ok(());
                }
                match tail.ready() {
                    Some(event) => next = event,
                    None => break Ok(()),
                }
            };
            let written = async {
                out.write_all(text.as_bytes()).await?;
                out.flush().await
            };
            match written.await {
                Ok(()) => text.clear(),
                // Whoever read it has had enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(Failure::failed(format!("standard output: {error}"))),
            }
            ended.map_err(|error: ClientError| Failure::from(error))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// A message becomes a line; everything else is said beside.
    fn take(&self, event: Event, topics: &[Pattern], text: &mut String, left: &mut Option<u64>) {
        match event {
            Event::Message(received) => {
                // A session hears its user's own topics as well, which nobody asked for here.
                let topic = Topic::parse(&received.topic);
                let asked = |topic: Topic| topics.iter().any(|pattern| pattern.matches(&topic));
                if topic.is_ok_and(asked) && *left != Some(0) {
                    text.push_str(&self.line(&received));
                    *left = left.map(|left| left - 1);
                }
            }
            Event::Connected { address, replica } => {
                say(format!("connected to {replica} at {address}"));
            }
            Event::Lost { reason, pause } => {
                say(format!("{reason}; trying again in {:.1} s", pause.as_secs_f32()));
            }
            Event::Cursor(_) => {}
            Event::Replayed { count } => say(format!("replayed {count} missed messages")),
            Event::Reset { reason, cursor } => {
                let from = cursor.map_or(String::new(), |cursor| format!(" after {cursor}"));
                say(format!("reset ({reason}): messages may be missing; going on{from}"));
            }
            Event::Gap { topic, dropped } => {
                say(format!("gap: {dropped} signals of {topic} were dropped"));
            }
            Event::TokenExpires => {
                say("the token expires within 30 s; a new one needs a new start");
            }
            Event::Complaint(detail) => say(format!("the server says: {detail}")),
        }
    }

    fn line(&self, received: &Received) -> String {
        let line = if self.json {
            received.frame.clone()
        } else {
            let seq = received.seq.map_or("-".to_owned(), |seq| seq.to_string());
            let kind = received.kind.as_deref().unwrap_or("-");
            format!("{} {seq} {} {kind} {}", received.at, received.topic, received.data)
        };
        // Data is kept byte for byte, and may hold line breaks, between its tokens only.
        line.replace(['\n', '\r'], " ") + "\n"
    }
}
