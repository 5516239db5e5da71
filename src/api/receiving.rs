//! What a session is handed: by its feed what is published, by its inbox what it has missed.

use crate::feed::{Feed, Item};
use crate::frame::About;
use crate::log::Log;
use crate::notices::{Inbox, Post};
use crate::store::notice::Reader;

pub struct Receiving {
    pub feed: Feed,
    /// Of a user; a server has none.
    inbox: Option<Inbox>,
    /// What was taken last came from the inbox, which has judged it already.
    posted: bool,
    log: Log,
}

impl Receiving {
    pub fn new(feed: Feed, inbox: Option<Inbox>, log: Log) -> Receiving {
        Receiving { feed, inbox, posted: false, log }
    }

    /// Waits until there is something for the session. Cancel-safe, as the feed is; what comes is
    /// to be sifted before it is written.
    pub async fn next(&mut self, items: &mut Vec<Item>) {
        let Some(inbox) = &mut self.inbox else { return self.feed.next(items).await };
        let mut posts = Vec::new();
        tokio::select! {
            () = self.feed.next(items) => return,
            () = inbox.ready() => inbox.take(&mut posts, self.log.now()),
        }
        self.posted = true;
        items.extend(posts.into_iter().map(|post| match post {
            Post::Frame(frame) => Item::Message { frame, cursor: false },
            Post::Gap { topic, dropped } => Item::Gap { topic, dropped },
        }));
    }

    /// Leaves out what this session is not to be shown, or was shown already.
    pub async fn sift(&mut self, items: &mut Vec<Item>) {
        let Some(inbox) = &mut self.inbox else { return };
        if std::mem::take(&mut self.posted) {
            return;
        }
        let plain = |item: &Item| match item {
            Item::Message { frame, .. } => frame.about == About::Anything,
            Item::Reset { .. } => false,
            _ => true,
        };
        if items.iter().all(plain) {
            return;
        }
        let mut kept = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            let admitted = match &item {
                Item::Message { frame, .. } => inbox.admits(frame).await,
                Item::Reset { .. } => {
                    inbox.reopen();
                    true
                }
                _ => true,
            };
            if admitted {
                kept.push(item);
            }
        }
        *items = kept;
    }

    /// What was handed out last has been written to the socket.
    pub fn written(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.written();
        }
    }

    /// The same user with another token.
    pub fn renew(&mut self, reader: Option<Reader>) {
        if let (Some(inbox), Some(reader)) = (&mut self.inbox, reader) {
            inbox.renew(reader);
        }
    }
}
