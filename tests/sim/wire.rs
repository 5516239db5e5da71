//! A bus that one replica hears badly.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings::bus::{Bus, BusError, BusEvent, BusState};
use tidings::domain::{Draft, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::faults::{Fate, Faults};

/// How late a late announcement is; longer than a hole is waited for, so that some are read instead.
const LATE: Duration = Duration::from_millis(8);

pub struct FaultyBus {
    pub bus: Arc<dyn Bus>,
    pub faults: Faults,
}

#[async_trait]
impl Bus for FaultyBus {
    async fn listen(&self, events: mpsc::Sender<BusEvent>, stop: CancellationToken) {
        let (told, mut heard) = mpsc::channel(1_024);
        let mut cut = self.faults.bus();
        let mut late: VecDeque<(Instant, BusEvent)> = VecDeque::new();
        let forward = async {
            loop {
                let due = late.front().map(|(due, _)| *due);
                tokio::select! {
                    changed = cut.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let now_cut = *cut.borrow_and_update();
                        let event = match now_cut {
                            true => BusEvent::Deaf(BusState::Down),
                            false => BusEvent::Listening,
                        };
                        let _ = events.send(event).await;
                    }
                    Some(event) = heard.recv() => {
                        if *cut.borrow() {
                            continue;
                        }
                        let is_news = matches!(event, BusEvent::Announced(_));
                        let fate = if is_news { self.faults.fate() } else { Fate::Heard };
                        match fate {
                            Fate::Lost => {}
                            Fate::Late => late.push_back((Instant::now() + LATE, event)),
                            Fate::Doubled => {
                                let _ = events.send(event.clone()).await;
                                let _ = events.send(event).await;
                            }
                            Fate::Heard => {
                                let _ = events.send(event).await;
                            }
                        }
                    }
                    () = async { match due {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    } } => {
                        if let Some((_, event)) = late.pop_front() && !*cut.borrow() {
                            let _ = events.send(event).await;
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = self.bus.listen(told, stop) => {}
            () = forward => {}
        }
    }

    async fn signal(&self, drafts: &[Draft], at: Timestamp) -> Result<(), BusError> {
        if *self.faults.bus().borrow() {
            return Err(BusError("cut off".to_owned()));
        }
        self.bus.signal(drafts, at).await
    }

    fn suspect(&self) {
        self.bus.suspect();
    }
}
