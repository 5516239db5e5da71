//! The loop that shows what instances do: at once if it is quiet, else ten times a second, the newest of each;
//! and takes in what the readers on other replicas show.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::domain::{Class, Draft, Message, SourceId};
use crate::notification;

/// Between two rounds: what changes meanwhile is shown once.
const PAUSE: Duration = Duration::from_millis(100);

/// The same while few instances change: then it costs little to be quick.
const QUIET_PAUSE: Duration = Duration::from_millis(20);
const QUIET_MAX: usize = 10;

/// How many signals go together.
const TOGETHER_MAX: usize = 500;

pub struct Live {
    shared: Arc<Shared>,
}

impl Live {
    pub(super) fn new(shared: Arc<Shared>) -> Live {
        Live { shared }
    }

    pub async fn run(&mut self, stop: &CancellationToken) {
        let shared = self.shared.clone();
        let mut shown = shared.log.sources_shown();
        let mut next = Instant::now();
        let mut waits = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                message = shown.recv() => match message {
                    Ok(message) => self.mirror(&message),
                    Err(RecvError::Lagged(_)) => shared.mirror.lock().doubt(),
                    Err(RecvError::Closed) => return,
                },
                () = shared.show.notified(), if !waits => waits = true,
                () = sleep_until(next), if waits => {
                    waits = false;
                    let shown = self.show().await;
                    let pause = if shown > QUIET_MAX { PAUSE } else { QUIET_PAUSE };
                    next = Instant::now() + pause;
                }
            }
        }
    }

    fn mirror(&self, message: &Message) {
        let Some(id) = SourceId::of_topic(&message.topic) else { return };
        if message.kind.as_deref() != Some("instance.state") {
            return;
        }
        // The wire can be written to by others: what is no state is passed over.
        let Ok(Value::Object(shown)) = serde_json::from_str(&message.data) else { return };
        self.shared.mirror.lock().take(&id, shown);
    }

    /// Returns how much there was.
    async fn show(&self) -> usize {
        let shared = &self.shared;
        let mut drafts = Vec::new();
        {
            let mut books = shared.books.lock();
            for own in books.all().filter(|own| own.has_to_show()) {
                let topic = own.id().topic();
                let (states, lines) = own.shown();
                for (name, data) in states {
                    let draft = Draft { key: Some(name), ..signal(&topic, "instance.state", data) };
                    drafts.push(draft);
                }
                drafts.extend(lines.into_iter().map(|data| signal(&topic, "log", data)));
            }
        }
        for draft in &mut drafts {
            if !notification::signal_fits(draft) {
                *draft = Draft { data: shortened(&draft.data).into(), ..draft.clone() };
            }
        }
        drafts.retain(notification::signal_fits);
        for together in drafts.chunks(TOGETHER_MAX) {
            if shared.publisher.troubled() {
                // No other replica can be told; the sessions of this one are.
                let at = shared.log.now();
                let message = |draft| Message::from_draft(draft, None, at);
                shared.log.signal(&together.iter().map(message).collect::<Vec<_>>());
            } else if let Err(error) = shared.publisher.publish(together.to_vec()).await {
                tracing::debug!(%error, "what instances do was not shown; the next change is");
            }
        }
        drafts.len()
    }
}

fn signal(topic: &crate::domain::Topic, kind: &str, data: String) -> Draft {
    Draft { class: Class::Signal, kind: Some(kind.into()), ..Draft::new(topic.clone(), data) }
}

/// Without facts or most of the line: what does not change can be asked for.
fn shortened(data: &str) -> String {
    let Ok(Value::Object(mut shown)) = serde_json::from_str(data) else { return data.to_owned() };
    if shown.remove("static").is_some() {
        shown.insert("truncated".to_owned(), true.into());
    }
    if let Some(Value::String(text)) = shown.get_mut("text") {
        let short: String = text.chars().take(1_000).collect();
        *text = short;
        shown.insert("truncated".to_owned(), true.into());
    }
    Value::Object(shown).to_string()
}
