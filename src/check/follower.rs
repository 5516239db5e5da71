//! A client of a run: it tells the ledger all that it is given, and comes back when it is cut.

use tokio::sync::Notify;

use super::Run;
use super::word::Met;
use crate::client::{Client, ClientError, Event, Way};
use crate::domain::{Cursor, Pattern, Topic};

/// Events that are told in one go, before others have their turn.
const GO_EVENTS_MAX: usize = 256;

pub struct Follower<'a> {
    pub run: &'a Run,
    pub name: usize,
    client: Client,
    way: Way,
    /// Told when its connection is to be cut.
    pub cut: Notify,
}

/// By topic, whether a client follows it: a third of them all of them, by their common prefix, the
/// others half of them by name. The marks are for everybody.
pub fn follows(name: usize, topics: usize) -> Vec<bool> {
    (0..=topics)
        .map(|topic| topic == topics || is_for_all(name) || (topic + name).is_multiple_of(2))
        .collect()
}

fn is_for_all(name: usize) -> bool {
    name.is_multiple_of(3)
}

impl<'a> Follower<'a> {
    pub fn new(run: &'a Run, name: usize) -> Follower<'a> {
        let ways = &run.settings.ways;
        // The ways change faster than the addresses, so that each address has all of them.
        let client = run.client.beginning_with(name / ways.len());
        Follower { run, name, client, way: ways[name % ways.len()], cut: Notify::new() }
    }

    fn patterns(&self) -> Vec<Pattern> {
        let plan = &self.run.plan;
        if is_for_all(self.name) {
            return vec![plan.pattern()];
        }
        let follows = follows(self.name, plan.topics).into_iter().enumerate();
        let wanted = follows.filter(|(_, wanted)| *wanted);
        let topic = |(topic, _)| Topic::parse(&plan.topic_name(topic)).ok().map(Pattern::Exact);
        wanted.filter_map(topic).collect()
    }

    /// Follows until it is dropped, or until nobody lets it in any more.
    pub async fn follow(&self, begin: Cursor) {
        let mut tail =
            self.client.tail(&self.patterns(), Some(begin)).over(self.way).with_repeats();
        let mut connects = 0_u64;
        loop {
            let next = tokio::select! {
                next = tail.next() => next,
                () = self.cut.notified() => {
                    if tail.cut() {
                        let mut ledger = self.run.ledger.lock();
                        ledger.figures.cuts += 1;
                        ledger.lost_connection(self.name);
                    }
                    continue;
                }
            };
            let mut events = 1;
            let mut next = Some(next);
            while let Some(event) = next.take() {
                if let Err(error) = self.tell(event, &mut connects) {
                    self.run.ledger.lock().lost_connection(self.name);
                    self.run.note_client(self.name, error.to_string(), true);
                    return;
                }
                if events < GO_EVENTS_MAX {
                    next = tail.ready();
                    events += 1;
                }
            }
        }
    }

    fn tell(
        &self,
        event: Result<Event, ClientError>,
        connects: &mut u64,
    ) -> Result<(), ClientError> {
        let mut ledger = self.run.ledger.lock();
        match event? {
            Event::Connected { .. } => {
                ledger.opened(self.name, *connects > 0);
                *connects += 1;
                drop(ledger);
                self.run.troubles.lock().clients.remove(&self.name);
            }
            Event::Lost { reason, .. } => {
                ledger.lost_connection(self.name);
                drop(ledger);
                self.run.note_client(self.name, reason, false);
            }
            Event::Message(received) => {
                let met = Met {
                    topic: &received.topic,
                    class: &received.class,
                    key: received.key.as_deref(),
                    data: &received.data,
                };
                let (cursor, now_us) = (received.cursor.as_ref(), self.run.now_us());
                ledger.frame(self.name, received.seq, cursor, &met, now_us);
            }
            Event::Cursor(cursor) => ledger.cursor(self.name, &cursor),
            Event::Replayed { .. } => ledger.replayed(self.name),
            Event::Reset { cursor, .. } => ledger.reset(self.name, cursor.as_ref()),
            Event::Gap { .. } => ledger.figures.gaps += 1,
            Event::TokenExpires | Event::Complaint(_) => {}
        }
        Ok(())
    }
}
