//! Following topics, over as many connections as it takes.
//!
//! ```text
//!            welcome                 lost, or closed with a code that lets one come back
//!   Apart ─────────────▶ Open ──────────────────────────────────────────▶ Waiting
//!     ▲ │ the next address at once, until all were tried                     │
//!     │ └───────────────────────────────────────────────────────────────────▶│
//!     └──────────────────────────────────────────────────────────────────────┘
//!                     the pause is over: the server's word, or backoff
//! ```
//! A code or status that will not change ends it.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff};
use tokio::time::{Instant, sleep_until};

use super::answer::Undone;
use super::connection::{Connection, Way, is_to_anonymous};
use super::incoming::{Incoming, Received, owned};
use super::place::Place;
use super::{Client, ClientError, pauses};
use crate::domain::{Cursor, Pattern};

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Connected {
        address: String,
        replica: String,
    },
    /// It comes back by itself.
    Lost {
        reason: String,
        pause: Duration,
    },
    Message(Box<Received>),
    /// Everything due up to here has been handed out, though no message said so.
    Cursor(Cursor),
    /// Everything missed has been sent.
    Replayed {
        count: u64,
    },
    /// The cursor could not be honoured: something may have been missed, and it goes on from here.
    Reset {
        reason: String,
        cursor: Option<Cursor>,
    },
    /// So many signals were dropped.
    Gap {
        topic: String,
        dropped: u64,
    },
    TokenExpires,
    /// The server complains and goes on.
    Complaint(String),
}

pub struct Tail<'a> {
    client: &'a Client,
    topics: String,
    way: Way,
    /// Whether a message is handed out that was had before.
    repeats: bool,
    place: Place,
    state: State,
    /// Which address is tried next.
    turn: usize,
    /// How many addresses were tried in vain since the last pause.
    tried: usize,
    pauses: ExponentialBackoff,
}

enum State {
    Apart,
    Open(Box<Connection>),
    Waiting(Instant),
}

impl Client {
    /// Follows topics from after a cursor, or from now.
    pub fn tail(&self, topics: &[Pattern], after: Option<Cursor>) -> Tail<'_> {
        let topics: Vec<String> = topics.iter().map(ToString::to_string).collect();
        Tail {
            client: self,
            topics: topics.join(","),
            way: Way::default(),
            repeats: false,
            place: Place::new(after),
            state: State::Apart,
            turn: self.preferred(),
            tried: 0,
            pauses: pauses().build(),
        }
    }
}

impl Tail<'_> {
    #[must_use]
    pub fn over(self, way: Way) -> Self {
        Tail { way, ..self }
    }

    /// Hands out every message that comes, had or not: for who wants to see what a server sends.
    #[must_use]
    pub fn with_repeats(self) -> Self {
        Tail { repeats: true, ..self }
    }

    /// Drops the connection without a word, as if the network had; `next` resumes on another
    /// address. False when there was none.
    pub fn cut(&mut self) -> bool {
        let was_open = matches!(self.state, State::Open(_));
        if was_open {
            self.turn += 1;
            self.state = State::Apart;
        }
        was_open
    }

    /// The last cursor that was given: everything before it has been handed out.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.place.cursor()
    }

    /// The next event. An error is the end.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = State::Apart;
                }
                State::Apart => return self.connect().await,
                State::Open(connection) => match connection.next().await {
                    Ok(text) => {
                        if let Some(event) = self.understand(&text) {
                            return Ok(event);
                        }
                    }
                    Err(undone) => return self.part(undone),
                },
            }
        }
    }

    /// An event that is here already, so that many are written at once.
    pub fn ready(&mut self) -> Option<Result<Event, ClientError>> {
        loop {
            let State::Open(connection) = &mut self.state else { return None };
            match connection.ready()? {
                Ok(text) => {
                    if let Some(event) = self.understand(&text) {
                        return Some(Ok(event));
                    }
                }
                Err(undone) => return Some(self.part(undone)),
            }
        }
    }

    async fn connect(&mut self) -> Result<Event, ClientError> {
        let address = self.client.address(self.turn);
        match Connection::open(
            self.client,
            address,
            self.way,
            &query(&self.topics, self.place.cursor()),
        )
        .await
        {
            Ok((connection, welcome)) => {
                self.client.prefer(self.turn);
                if let (None, Some(cursor)) = (self.place.cursor(), &welcome.cursor) {
                    self.place.reach(cursor);
                }
                self.state = State::Open(Box::new(connection));
                Ok(Event::Connected { address: address.to_string(), replica: welcome.replica })
            }
            Err(undone) => self.part(undone),
        }
    }

    /// What becomes of an end: another address, another time, or none.
    fn part(&mut self, undone: Undone) -> Result<Event, ClientError> {
        let (reason, retry_after) = match undone {
            Undone::Never(reason) | Undone::Conflict(reason) => {
                return Err(ClientError::Refused(reason));
            }
            // Sessions are told with a frame; who answers so all the same is no replica of ours.
            Undone::Gone(_) => return Err(ClientError::Refused("no answer of Tidings".to_owned())),
            Undone::Later { reason, retry_after } => (reason, retry_after),
        };
        self.turn += 1;
        self.tried += 1;
        let was_open = matches!(self.state, State::Open(_));
        let pause = match retry_after {
            // It knows why it sends us away, and spreads whom it sends.
            Some(asked) if was_open => asked,
            // Others were not asked yet.
            _ if !was_open && self.tried < self.client.addresses.len() => Duration::ZERO,
            asked => {
                self.tried = 0;
                self.pauses.next().unwrap_or_default() + asked.unwrap_or_default()
            }
        };
        self.state = State::Waiting(Instant::now() + pause);
        Ok(Event::Lost { reason, pause })
    }

    fn understand(&mut self, text: &str) -> Option<Event> {
        // What cannot be read may be of a newer server, and is none of our business.
        let frame = Incoming::read(text)?;
        let cursor = frame.cursor();
        // It speaks: the next loss is a new one.
        (self.tried, self.pauses) = (0, pauses().build());
        match &*frame.r#type {
            "message" => {
                let new = self.place.takes(frame.seq, cursor.as_ref());
                let wanted = new || self.repeats;
                return wanted.then(|| Event::Message(Box::new(frame.received(text))));
            }
            "reset" => {
                if let Some(cursor) = &cursor {
                    self.place.reset(cursor);
                }
                let reason = owned(frame.reason.as_ref()).unwrap_or_default();
                return Some(Event::Reset { reason, cursor });
            }
            "cursor" => {
                self.place.reach(cursor.as_ref()?);
                return cursor.map(Event::Cursor);
            }
            "replayed" => {
                return Some(Event::Replayed { count: frame.count.unwrap_or_default() });
            }
            "gap" => {
                let dropped = frame.dropped.unwrap_or_default();
                return Some(Event::Gap { topic: frame.topic(), dropped });
            }
            "token_expired" => return Some(Event::TokenExpires),
            "error" if !is_to_anonymous(&frame) => {
                return owned(frame.detail.as_ref()).map(Event::Complaint);
            }
            _ => {}
        }
        None
    }
}

/// What a session is opened with.
pub(super) fn query(topics: &str, after: Option<&Cursor>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("topics", topics);
    if let Some(cursor) = after {
        query.append_pair("cursor", &cursor.to_string());
    }
    query.finish()
}
