//! A publisher of a run: so many messages a second, in batches that wait for nobody, each said
//! until somebody answers for it or the time is up.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, sleep_until};

use super::Run;
use super::word::{Id, Plan};
use crate::client::{Client, ClientError, Outgoing};
use crate::domain::{Class, Cursor, CursorError};

/// Far below what a server takes as one request, in messages and bytes.
const BATCH_MESSAGES_MAX: u64 = 100;
const BATCH_BYTES_MAX: u64 = 1 << 20;

/// So much may be under way in one run, over all clients; beyond it publishers wait.
pub const UNSETTLED_MAX: usize = 1_000_000;

/// How long they wait then, before they look again.
const HOLD: Duration = Duration::from_millis(50);

impl Run {
    /// Publishes until it is told to stop, has said all, or was refused.
    pub async fn publish(&self, publisher: usize) {
        let client = self.client.beginning_with(publisher);
        let began = Instant::now();
        let mut said = 0;
        while !self.is_stopping() {
            let left = self.left(publisher).saturating_sub(said);
            let due = self.due(began.elapsed()).saturating_sub(said).min(left);
            if left == 0 {
                return;
            }
            if due == 0 {
                let next = began + self.when(said + 1);
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.stopping() => {}
                }
                continue;
            }
            if self.ledger.lock().unsettled() > UNSETTLED_MAX {
                sleep(HOLD).await;
                continue;
            }
            let bytes = u64::try_from(self.plan.bytes_max).unwrap_or(u64::MAX);
            let fits = (BATCH_BYTES_MAX / bytes.max(1)).max(1);
            let count = due.min(BATCH_MESSAGES_MAX).min(fits);
            said += count;
            if let Err(error) = self.say(&client, publisher, count).await {
                self.note_publisher(&error);
                return;
            }
        }
    }

    /// Says the next messages of a publisher, and notes what became of them. An error is one that
    /// will not change. The seq that the last of them got, if they were accepted.
    pub async fn say(
        &self,
        client: &Client,
        publisher: usize,
        count: u64,
    ) -> Result<Option<Cursor>, String> {
        let first = self.ledger.lock().say(publisher, count);
        let ids = (first..first + count).map(|number| Id { publisher, number });
        let now_us = self.now_us();
        let messages = ids.clone().map(|id| outgoing(&self.plan, id, now_us));
        let messages = messages.collect::<Result<Vec<Outgoing>, serde_json::Error>>();
        let messages = messages.map_err(|error| error.to_string())?;
        let answered = client.publish(&messages, self.settings.timeout).await;
        let mut ledger = self.ledger.lock();
        match answered {
            Ok(published) => {
                let cursors = published
                    .iter()
                    .map(|one| Cursor::parse(one.cursor.as_deref().unwrap_or_default()));
                let cursors: Vec<Cursor> =
                    cursors.collect::<Result<_, CursorError>>().map_err(|_| {
                        "a message was accepted without a cursor: is that Tidings?".to_owned()
                    })?;
                for (id, cursor) in ids.zip(&cursors) {
                    ledger.accepted(id, cursor);
                }
                Ok(cursors.last().cloned())
            }
            Err(ClientError::GaveUp { .. }) => {
                ids.for_each(|id| ledger.unknown(id));
                Ok(None)
            }
            Err(error) => {
                ids.for_each(|id| ledger.refused(id));
                Err(error.to_string())
            }
        }
    }

    /// How many of its messages a publisher should have said after so long.
    fn due(&self, elapsed: Duration) -> u64 {
        let all = elapsed.as_micros() * u128::from(self.settings.rate) / 1_000_000;
        u64::try_from(all / self.plan.publishers.max(1) as u128).unwrap_or(u64::MAX)
    }

    /// After how long a message is due.
    fn when(&self, number: u64) -> Duration {
        let publishers = self.plan.publishers as u64;
        let us = u128::from(number) * u128::from(publishers) * 1_000_000;
        let us = us.div_ceil(u128::from(self.settings.rate.max(1)));
        Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
    }

    /// How many messages a publisher has to say in all.
    fn left(&self, publisher: usize) -> u64 {
        let publishers = self.plan.publishers.max(1) as u64;
        match self.settings.messages {
            None => u64::MAX,
            Some(all) => all / publishers + u64::from((publisher as u64) < all % publishers),
        }
    }
}

pub fn outgoing(plan: &Plan, id: Id, now_us: u64) -> Result<Outgoing, serde_json::Error> {
    let topic = plan.topic(id);
    let class = plan.class(topic);
    Ok(Outgoing {
        topic: plan.topic_name(topic),
        data: RawValue::from_string(plan.data(id, now_us))?,
        kind: None,
        class: (class != Class::Event).then(|| class.as_str().to_owned()),
        key: plan.key(id).map(Plan::key_name),
        priority: Some(plan.priority(topic).as_str().to_owned()),
        ttl_s: None,
        idempotency_key: format!("{}{}:{}", plan.prefix(), id.publisher, id.number),
    })
}
