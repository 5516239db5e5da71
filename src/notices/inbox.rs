//! A session's own place: what it has been handed, and what is to be told of it.
//!
//! A session is handed each notice once, by whichever way it comes first: live, from the log that it
//! reads after its cursor, as something that it had missed, or again because nobody acknowledged
//! it. Only what was sent again by its sender comes a second time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Notices;
use super::keeper::Job;
use super::mailbox::{LIVE, Letter, Mailbox, REPLAY};
use crate::domain::notice::{COUNTS, Counts, role_topic};
use crate::domain::{Class, Draft, Epoch, Message, NoticeId, ReceiptState, Seq, Timestamp, Topic};
use crate::frame::{About, Frame};
use crate::store::notice::{Mark, Reader, counts_draft};

/// How many notices wait for what was missed, which is older. Beyond it they are handed out at once.
const HELD_MAX: usize = 128;

/// How many notices a session remembers to have been handed. Older ones have long been acknowledged.
const HAD_MAX: usize = 1_024;

/// Which sending the message of a notice in the log is.
const FIRST_SENDING: u32 = 1;

/// What comes for a session beside what its feed hands out.
#[derive(Debug)]
pub enum Post {
    Frame(Arc<Frame>),
    /// So many notices were left out.
    Gap {
        topic: Topic,
        dropped: u64,
    },
}

pub struct Inbox {
    notices: Notices,
    mailbox: Arc<Mailbox>,
    had: HashMap<NoticeId, u32>,
    had_order: VecDeque<NoticeId>,
    /// The place in the log of what it was last told of its counts.
    counted: Seq,
    told: Option<Counts>,
    /// What was handed out and is to be said to be sent once it was written.
    handed: Vec<NoticeId>,
    recount: bool,
    /// Whether what was missed has come; until then what comes live is held, so that the oldest is first.
    opened: bool,
    held: Vec<(NoticeId, Arc<Frame>)>,
}

impl Inbox {
    pub(super) fn new(notices: Notices, reader: Reader) -> Inbox {
        let mailbox = notices.shared.mailboxes.enter(reader);
        notices.shared.metrics.notices.readers.inc();
        let mut inbox = Inbox {
            notices,
            mailbox,
            had: HashMap::new(),
            had_order: VecDeque::new(),
            counted: Seq::ZERO,
            // Whoever is told nothing has nothing to look at.
            told: Some(Counts::default()),
            handed: Vec::new(),
            recount: false,
            opened: false,
            held: Vec::new(),
        };
        inbox.open();
        inbox
    }

    pub fn reader(&self) -> &Reader {
        &self.mailbox.reader
    }

    /// The same user with another token, and perhaps with other roles.
    pub fn renew(&mut self, reader: Reader) {
        if *self.reader() != reader {
            let shared = &self.notices.shared;
            shared.mailboxes.leave(&self.mailbox);
            self.mailbox = shared.mailboxes.enter(reader);
            self.open();
        }
    }

    /// Asks for what was missed. If there is no room the loop comes upon it by its tick.
    fn open(&mut self) {
        self.opened = false;
        self.mailbox.set_opened(false);
        self.job(Job::Open(self.mailbox.clone()), "open");
    }

    /// The session was reset: what it missed in the log it may have missed here.
    pub fn reopen(&mut self) {
        self.open();
    }

    /// Resolves when there may be something to take. Cancel-safe.
    pub async fn ready(&self) {
        self.mailbox.ready().await;
    }

    pub fn take(&mut self, posts: &mut Vec<Post>, now: Timestamp) {
        let state = self.mailbox.take();
        if state.left_out > 0 {
            let topic = self.reader().user.topic();
            posts.push(Post::Gap { topic, dropped: state.left_out });
        }
        for Letter { id, sending, frame, way } in state.letters {
            let late = frame.expires_at.is_some_and(|at| at <= now);
            if !late && self.note(&id, sending, way) {
                posts.push(Post::Frame(frame));
            }
        }
        if state.opened {
            self.opened = true;
            for (id, frame) in std::mem::take(&mut self.held) {
                let late = frame.expires_at.is_some_and(|at| at <= now);
                if !late && self.note(&id, FIRST_SENDING, LIVE) {
                    posts.push(Post::Frame(frame));
                }
            }
        }
        if let Some((counts, as_of)) = state.counts
            && as_of >= self.counted
        {
            self.counted = as_of;
            if self.told != Some(counts) {
                self.told = Some(counts);
                posts.push(Post::Frame(Arc::new(self.counts_frame(counts, now))));
            }
        }
    }

    /// Whether a frame of the log is for this session, and has not been handed to it before.
    pub async fn admits(&mut self, frame: &Arc<Frame>) -> bool {
        if frame.about == About::Anything || !self.is_own(&frame.topic) {
            return true;
        }
        match frame.about {
            About::Anything => true,
            About::Counts => {
                let Some(seq) = frame.seq.filter(|_| self.is_personal(&frame.topic)) else {
                    return true;
                };
                let news = seq > self.counted;
                if news {
                    (self.counted, self.told) = (seq, counts_of(frame));
                }
                news
            }
            About::Recall => {
                self.recount = true;
                // It may wait in the mailbox, or be held.
                if let Some(id) = frame.key.as_deref().and_then(NoticeId::parse) {
                    self.remember(&id, u32::MAX);
                }
                true
            }
            About::Notice => {
                let id = frame.key.as_deref().and_then(NoticeId::parse);
                let Some(id) = id.filter(|_| frame.seq.is_some()) else { return true };
                if !self.is_personal(&frame.topic) {
                    let shared = self.notices.shared.clone();
                    let asked =
                        async { Ok(shared.notices.get(&id).await?.map(|notice| notice.except)) };
                    match shared.facts.of(&id, asked).await {
                        Ok(Some(except)) if except.contains(&self.reader().user) => return false,
                        Ok(Some(_)) => {}
                        // Somebody published a message that looks like one.
                        Ok(None) => return true,
                        Err(error) => {
                            // It cannot be known whether it may be shown. It comes as something missed.
                            tracing::debug!(%error, "a notice is kept back until the store is back");
                            self.opened = false;
                            self.mailbox.set_opened(false);
                            return false;
                        }
                    }
                }
                if !self.opened && self.held.len() < HELD_MAX {
                    self.held.push((id, frame.clone()));
                    return false;
                }
                self.note(&id, FIRST_SENDING, LIVE)
            }
        }
    }

    /// What was handed out has been written to the socket.
    pub fn written(&mut self) {
        for id in std::mem::take(&mut self.handed) {
            let mark =
                Mark { reader: self.reader().clone(), id: Some(id), state: ReceiptState::Sent };
            self.job(Job::Sent(mark), "sent");
        }
        if std::mem::take(&mut self.recount) {
            self.job(Job::Count(self.reader().clone()), "count");
        }
    }

    fn job(&self, job: Job, what: &'static str) {
        let shared = &self.notices.shared;
        if shared.jobs.try_send(job).is_err() {
            shared.metrics.notices.refused.get_or_create(&what.into()).inc();
        }
    }

    fn is_personal(&self, topic: &Topic) -> bool {
        topic.as_str().strip_prefix("user:") == Some(self.reader().user.as_str())
    }

    fn is_own(&self, topic: &Topic) -> bool {
        self.is_personal(topic)
            || topic.as_str() == "broadcast"
            || self.reader().roles.iter().any(|role| role_topic(role).as_ref() == Some(topic))
    }

    /// Whether it is to be handed that notice; now it is. What was missed comes once, whatever its
    /// sender did meanwhile; what was sent again while the session was open comes again.
    fn note(&mut self, id: &NoticeId, sending: u32, way: &'static str) -> bool {
        let had = self.remember(id, sending);
        let comes = had.is_none_or(|had| had < sending && way != REPLAY);
        if comes {
            self.notices.shared.metrics.notices.handed.get_or_create(&way.into()).inc();
            self.handed.push(id.clone());
        }
        comes
    }

    /// That it was handed a sending of a notice. Returns which one it had.
    fn remember(&mut self, id: &NoticeId, sending: u32) -> Option<u32> {
        if let Some(had) = self.had.get_mut(id) {
            let before = *had;
            *had = before.max(sending);
            return Some(before);
        }
        self.had.insert(id.clone(), sending);
        self.had_order.push_back(id.clone());
        if self.had_order.len() > HAD_MAX
            && let Some(oldest) = self.had_order.pop_front()
        {
            self.had.remove(&oldest);
        }
        None
    }

    /// Counts that are told to this session alone: they have no place in the log.
    fn counts_frame(&self, counts: Counts, now: Timestamp) -> Frame {
        let draft: Draft = counts_draft(&self.reader().user, counts);
        debug_assert!(draft.class == Class::State && draft.kind.as_deref() == Some(COUNTS));
        let message = Message::from_draft(&draft, None, now);
        let epoch = Epoch::parse("counts").expect("the word is made of lower-case letters");
        Frame::new(&message, &epoch)
    }
}

/// What a message of the log says of counts.
fn counts_of(frame: &Frame) -> Option<Counts> {
    let said: serde_json::Value = serde_json::from_str(&frame.text()).ok()?;
    let number = |name: &str| said["data"][name].as_u64();
    Some(Counts { unread: number("unread")?, unconfirmed: number("unconfirmed")? })
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.notices.shared.mailboxes.leave(&self.mailbox);
        self.notices.shared.metrics.notices.readers.dec();
    }
}
