//! One connected client, without a socket: frames go in, replies and items come out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::Api;
use super::access::task_of;
use super::error::{Close, Problem};
use super::inbox::{no_inbox, reader_of};
use super::limits::Place;
use super::protocol::{
    ClientFrame, Operation, PublishLimits, PublishedAnswer, Reference, Subscription, error_frame,
    ok_frame, pong_frame, publish_message, status_frame, welcome_frame,
};
use super::receiving::Receiving;
use crate::domain::{Cursor, NoticeId, Pattern, PatternSet, Principal, ReceiptState, TaskId};
use crate::feed::{FeedError, Start};
use crate::frame::Frame;
use crate::presence;

/// How long before its token expires a session is told.
const EXPIRY_WARNING_S: i64 = 30;

pub struct Session {
    api: Api,
    id: String,
    principal: Principal,
    pub receiving: Receiving,
    pub health: Health,
    present: Option<presence::Place>,
    warned: bool,
    _place: Place,
}

/// What the session was told of the replica's sight of the log.
#[derive(Clone)]
pub struct Health {
    degraded: watch::Receiver<bool>,
    told: bool,
}

impl Health {
    /// Resolves when there is something else to tell than what was told last.
    pub async fn changed(&mut self) -> String {
        let told = self.told;
        let Ok(now) = self.degraded.wait_for(|degraded| *degraded != told).await.map(|now| *now)
        else {
            // The log is gone, and with it the replica.
            return std::future::pending().await;
        };
        self.told = now;
        status_frame(now)
    }
}

/// What follows from a frame.
pub enum Reply {
    Frame(String),
    /// The token is a new one: the time means something else now.
    Renewed(String),
    /// The answer to a publish, when it is durable. The session goes on meanwhile.
    Later(BoxFuture<'static, String>),
    Close(Close),
}

/// What follows from the passing of time.
#[derive(Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Look again after so long.
    After(Duration),
    Warn,
    Expired,
}

impl Session {
    pub async fn open(
        api: &Api,
        principal: Principal,
        wanted: Vec<Subscription>,
        cursor: Option<Cursor>,
    ) -> Result<Session, Problem> {
        let place = api.enter(&principal)?;
        let begins = cursor.is_none();
        // Topics with a cursor of their own, and tasks that are begun with, come one by one.
        let (own, common): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|subscription| {
            subscription.cursor.is_some() || (begins && task_of(&subscription.pattern).is_some())
        });
        let common = common.into_iter().map(|subscription| subscription.pattern).collect();
        let patterns = api.patterns(&principal, common).await?;
        let start = cursor.map_or(Start::Now, Start::After);
        let feed = api.feed(patterns, start).await?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        let health = Health { degraded: api.inner.log.degraded(), told: false };
        let (api, warned, present, _place) = (api.clone(), false, None, place);
        // After the feed: what is sent from here on comes by the log.
        let inbox = reader_of(&principal).map(|reader| api.inner.notices.enter(reader));
        let receiving = Receiving::new(feed, inbox, api.inner.log.clone());
        let mut session =
            Session { api, id, principal, receiving, health, present, warned, _place };
        session.subscribe(own).await?;
        if let Some(user) = session.principal.user.clone() {
            let inner = &session.api.inner;
            let (patterns, now) = (session.receiving.feed.patterns().to_vec(), inner.log.now());
            session.present = Some(inner.presence.enter(&session.id, user, patterns, now));
        }
        Ok(session)
    }

    pub fn welcome(&self, reference: Option<&Reference>) -> String {
        let settings = &self.api.inner.settings;
        welcome_frame(
            &self.id,
            self.principal.user.as_ref().map(crate::domain::UserId::as_str),
            &settings.replica,
            &self.receiving.feed.patterns().to_vec(),
            &self.receiving.feed.cursor(),
            settings.heartbeat.as_secs(),
            reference,
        )
    }

    /// One frame of the client.
    pub async fn receive(&mut self, text: &str) -> Reply {
        let Ok(ClientFrame { reference, operation }) = ClientFrame::read(text) else {
            return Reply::Close(Close::Malformed);
        };
        let done = match operation {
            Ok(operation) => self.perform(operation, reference.clone()).await,
            Err(problem) => Err(problem),
        };
        done.unwrap_or_else(|problem| Reply::Frame(error_frame(reference.as_ref(), &problem)))
    }

    async fn perform(
        &mut self,
        operation: Operation<'_>,
        reference: Option<Reference>,
    ) -> Result<Reply, Problem> {
        match operation {
            Operation::Ping => return Ok(Reply::Frame(pong_frame(reference.as_ref()))),
            Operation::Hello { .. } => {
                return Err(Problem::malformed("hello is the first frame, and comes once"));
            }
            Operation::Subscribe { topics } => {
                self.subscribe(topics).await?;
                self.tell_presence();
            }
            Operation::Unsubscribe { patterns } => {
                self.unsubscribe(&patterns);
                self.tell_presence();
            }
            Operation::Acknowledge { ids, state } => {
                return self.acknowledge(ids, state, reference);
            }
            Operation::Auth { token } => {
                self.renew(&token).await?;
                self.tell_presence();
                return Ok(Reply::Renewed(ok_frame(reference.as_ref(), None)));
            }
            Operation::Publish { message } => return self.publish(message, reference),
        }
        Ok(Reply::Frame(ok_frame(reference.as_ref(), None)))
    }

    async fn subscribe(&mut self, topics: Vec<Subscription>) -> Result<(), Problem> {
        let patterns: Vec<Pattern> = topics.iter().map(|topic| topic.pattern.clone()).collect();
        self.api.may_subscribe(&self.principal, &patterns).await?;
        let own = self.receiving.feed.patterns();
        let new: PatternSet =
            patterns.into_iter().filter(|pattern| !own.contains(pattern)).collect();
        self.api.check_count(own.len() + new.len())?;
        // All of them or none: a client could not tell which ones it has.
        let replays = topics.iter().filter(|topic| topic.cursor.is_some()).count();
        if !self.receiving.feed.has_room(replays) {
            return Err(FeedError::Busy.into());
        }
        for Subscription { pattern, cursor } in topics {
            match (cursor, task_of(&pattern)) {
                (None, Some(task)) => self.follow(pattern, &task).await?,
                (cursor, _) => {
                    let start = cursor.map_or(Start::Now, Start::After);
                    self.receiving.feed.subscribe(pattern, start).await?;
                }
            }
        }
        Ok(())
    }

    /// The task as it stands first, then what follows.
    async fn follow(&mut self, pattern: Pattern, task: &TaskId) -> Result<(), Problem> {
        match self.api.inner.tasks.snapshot(task).await? {
            None => self.receiving.feed.subscribe(pattern, Start::Now).await?,
            Some(snapshot) => {
                let frame = Arc::new(Frame::new(&snapshot.message, &snapshot.epoch));
                self.receiving.feed.follow(pattern, frame, snapshot.as_of)?;
            }
        }
        Ok(())
    }

    /// A user's own topics stay: nobody leaves them by mistake.
    fn unsubscribe(&mut self, patterns: &[Pattern]) {
        let own = self.principal.own_topics();
        for pattern in patterns {
            if !own.iter().any(|topic| *pattern == Pattern::Exact(topic.clone())) {
                self.receiving.feed.unsubscribe(pattern);
            }
        }
    }

    /// A new token for the same user. What it no longer allows is unsubscribed, its roles are heard.
    async fn renew(&mut self, token: &str) -> Result<(), Problem> {
        let authenticated = self.api.inner.auth.authenticate(Some(token), None).await;
        let principal = authenticated.map_err(|error| Problem::unauthenticated(&error))?;
        if principal.user != self.principal.user {
            return Err(Problem::forbidden("the token is another user's: open a new session"));
        }
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for pattern in self.receiving.feed.patterns().to_vec() {
            let may = self.api.may_follow(&principal, &pattern).await?;
            if may { kept.push(pattern) } else { lost.push(pattern) }
        }
        let own: Vec<Pattern> = principal.own_topics().into_iter().map(Pattern::Exact).collect();
        let all: PatternSet = kept.into_iter().chain(own.iter().cloned()).collect();
        self.api.check_count(all.len())?;
        // Nothing has been changed before here, so that an error means what it says.
        self.principal = principal;
        self.warned = false;
        self.receiving.renew(reader_of(&self.principal));
        for pattern in lost {
            self.receiving.feed.unsubscribe(&pattern);
        }
        for pattern in own {
            self.receiving.feed.subscribe(pattern, Start::Now).await?;
        }
        Ok(())
    }

    fn publish(&self, message: &str, reference: Option<Reference>) -> Result<Reply, Problem> {
        let draft = publish_message(message, self.api.publish_limits(), &self.principal)?;
        if !self.principal.may_publish(&draft.topic) {
            return Err(not_allowed(&draft.topic));
        }
        let publisher = self.api.inner.publisher.clone();
        let answer = async move {
            let topic = draft.topic.clone();
            match publisher.publish(vec![draft]).await {
                Ok(published) => {
                    let answers: Vec<PublishedAnswer> =
                        published.iter().map(|one| PublishedAnswer::new(&topic, one)).collect();
                    ok_frame(reference.as_ref(), Some(&answers))
                }
                Err(error) => error_frame(reference.as_ref(), &Problem::from(error)),
            }
        };
        Ok(Reply::Later(Box::pin(answer)))
    }

    /// Answered when it is durable; the session goes on meanwhile.
    fn acknowledge(
        &self,
        ids: Vec<NoticeId>,
        state: ReceiptState,
        reference: Option<Reference>,
    ) -> Result<Reply, Problem> {
        let reader = reader_of(&self.principal).ok_or_else(no_inbox)?;
        let notices = self.api.inner.notices.clone();
        let answer = async move {
            match notices.acknowledge(&reader, Some(ids), state).await {
                Ok(_) => ok_frame(reference.as_ref(), None),
                Err(error) => error_frame(reference.as_ref(), &Problem::from(error)),
            }
        };
        Ok(Reply::Later(Box::pin(answer)))
    }

    fn tell_presence(&self) {
        if let Some(present) = &self.present {
            present.moved_to(self.receiving.feed.patterns().to_vec());
        }
    }

    /// What the time means for the token. A warning is given once.
    pub fn expiry(&mut self) -> Expiry {
        let Some(expires_at_s) = self.principal.expires_at_s else {
            return Expiry::After(Duration::from_secs(3600));
        };
        let left_s = expires_at_s - self.api.inner.clock.now().0.div_euclid(1000);
        let seconds = |number: i64| Duration::from_secs(u64::try_from(number).unwrap_or(0).max(1));
        if left_s <= 0 {
            Expiry::Expired
        } else if left_s > EXPIRY_WARNING_S {
            // Not for ever: a clock may be set.
            Expiry::After(seconds((left_s - EXPIRY_WARNING_S).min(3600)))
        } else if self.warned {
            Expiry::After(seconds(left_s))
        } else {
            self.warned = true;
            Expiry::Warn
        }
    }
}

impl Api {
    pub fn publish_limits(&self) -> PublishLimits {
        let settings = &self.inner.settings;
        PublishLimits {
            data_bytes_max: settings.data_bytes_max,
            batch_messages_max: settings.batch_messages_max,
            ttl_s_max: settings.retention_s,
        }
    }
}

pub fn not_allowed(topic: &crate::domain::Topic) -> Problem {
    Problem::forbidden(format!("the token does not allow to publish on {topic}"))
}
