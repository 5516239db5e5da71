//! One suite over every store of notices, inboxes and presence.

mod counting;
mod delivery;
mod present;
mod sending;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidings::bus::memory::MemoryBus;
use tidings::clock::{Clock, TestClock};
use tidings::domain::notice::Counts;
use tidings::domain::{
    Message, Notice, NoticeId, ReceiptState, Seq, Tally, Target, Timestamp, Urgency, UserId,
};
use tidings::store::memory::{MemorySettings, MemoryStore};
use tidings::store::notice::{
    Delivery, Entry, InboxFilter, InboxStore, Mark, Marked, NewNotice, NoticeStore, Opened, Reader,
    Recalled, RecipientFilter, Redelivery, Replays, Resent, Sent,
};
use tidings::store::presence::PresenceStore;
use tidings::store::{LogStore, Page};

use crate::harness;

/// A store to be tested, and the hand that makes time pass.
struct Subject {
    notices: Arc<dyn NoticeStore>,
    inboxes: Arc<dyn InboxStore>,
    presence: Arc<dyn PresenceStore>,
    log: Arc<dyn LogStore>,
    hand: Hand,
}

enum Hand {
    Clock(TestClock),
    Database(tokio_postgres::Client),
}

const REPLAYS: Replays = Replays { max: 100, age: Duration::from_secs(7 * 86_400) };

async fn memory() -> Subject {
    let settings = MemorySettings {
        messages_max: 1_000_000,
        items_max: 1_000_000,
        bytes_max: 1 << 30,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let (clock, hand) = Clock::test(Timestamp(1_795_168_800_000));
    let store = MemoryStore::new(settings, clock, MemoryBus::default());
    Subject {
        notices: Arc::new(store.clone()),
        inboxes: Arc::new(store.clone()),
        presence: Arc::new(store.clone()),
        log: Arc::new(store),
        hand: Hand::Clock(hand),
    }
}

async fn postgres() -> Subject {
    let connector = harness::database().await;
    let client = connector.connect().await.unwrap();
    let store = harness::store(connector);
    store.settings_store().await.unwrap();
    Subject {
        notices: Arc::new(store.clone()),
        inboxes: Arc::new(store.clone()),
        presence: Arc::new(store.clone()),
        log: Arc::new(store),
        hand: Hand::Database(client),
    }
}

suite! {
    sending:
        a_notice_to_named_users_has_a_row_and_a_message_for_each
        a_notice_to_everybody_is_one_row_and_one_message
        a_notice_to_roles_is_one_message_a_role
        who_is_left_out_finds_nothing
        a_notice_is_sent_once_per_key
        ten_thousand_named_users_are_one_statement
        the_newest_notices_come_first_page_by_page
        a_recalled_notice_goes_from_every_inbox_and_is_told_once
        a_notice_that_is_too_old_is_removed;
    counting:
        receipts_only_grow_and_are_counted
        a_notice_that_nobody_received_in_time_is_expired
        only_the_own_inbox_is_marked
        all_of_an_inbox_is_marked_at_once
        what_asks_for_no_confirmation_is_read_by_it
        whoever_acts_is_told_its_counts_and_nobody_else
        counts_never_drift_whatever_happens;
    delivery:
        what_was_missed_comes_oldest_first_and_not_all_of_it
        what_was_received_is_not_missed
        what_nobody_acknowledged_is_due_to_those_who_are_connected
        within_a_round_every_replica_carries_it_once
        each_round_waits_twice_as_long_and_they_end
        what_was_left_out_when_a_session_opened_is_not_redelivered
        a_resent_notice_is_due_to_those_who_have_not_received_it;
    present:
        sessions_are_counted_by_user_and_topic
        who_joins_and_leaves_is_told_once
        a_replica_that_renews_no_more_takes_its_sessions_with_it
        recipients_who_have_sessions_are_online;
}

/// What another replica is about to take is passed over, and not waited for.
#[tokio::test]
async fn what_another_replica_has_in_hand_is_skipped() {
    let subject = postgres().await;
    for name in ["a", "b"] {
        subject.send(&new(name, users(&["1", "2"]))).await;
    }
    subject.seconds_pass(31).await;
    let Hand::Database(client) = &subject.hand else { unreachable!() };
    client
        .batch_execute(
            "begin; select from tidings.inbox where user_id = '1' and notice = 1 for update",
        )
        .await
        .unwrap();
    let both = delivery::due(&subject, "a", &["1", "2"]).await;
    assert_eq!(both, delivery::pairs(&[("2", "a"), ("1", "b"), ("2", "b")]));
    client.batch_execute("commit").await.unwrap();
    assert_eq!(delivery::due(&subject, "a", &["1"]).await, delivery::pairs(&[("1", "a")]));
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn users(names: &[&str]) -> Target {
    Target::Users(names.iter().map(|name| user(name)).collect())
}

fn roles(names: &[&str]) -> Target {
    Target::Roles(names.iter().map(|name| (*name).into()).collect())
}

fn reader(name: &str, roles: &[&str]) -> Reader {
    Reader { user: user(name), roles: roles.iter().map(|role| (*role).into()).collect() }
}

fn id(text: &str) -> NoticeId {
    NoticeId::parse(text).unwrap()
}

fn new(name: &str, target: Target) -> NewNotice {
    NewNotice {
        id: id(name),
        target,
        except: Vec::new(),
        title: "Main\"tenance".into(),
        content: "Tonight at 22:00".into(),
        data: r#"{"why" : "é"}"#.into(),
        urgency: Urgency::High,
        confirm: true,
        expires_in_s: None,
        sender: None,
        idempotency_key: None,
    }
}

fn mark(reader: &Reader, name: &str, state: ReceiptState) -> Mark {
    Mark { reader: reader.clone(), id: Some(id(name)), state }
}

fn counts(unread: u64, unconfirmed: u64) -> Counts {
    Counts { unread, unconfirmed }
}

impl Subject {
    async fn send(&self, notice: &NewNotice) -> Sent {
        let sent = self.notices.send(notice).await.unwrap();
        assert!(!sent.duplicate);
        sent
    }

    async fn get(&self, name: &str) -> Notice {
        self.notices.get(&id(name)).await.unwrap().unwrap()
    }

    async fn tally(&self, name: &str) -> Tally {
        self.notices.tally(&id(name)).await.unwrap()
    }

    async fn mark(&self, reader: &Reader, name: &str, state: ReceiptState) -> Marked {
        self.inboxes.mark(&[mark(reader, name, state)]).await.unwrap()
    }

    async fn open(&self, reader: &Reader) -> Opened {
        let mut opened = self.inboxes.open(std::slice::from_ref(reader), REPLAYS).await.unwrap();
        assert_eq!(opened.len(), 1);
        opened.remove(0)
    }

    async fn missed(&self, reader: &Reader) -> Vec<String> {
        self.open(reader).await.missed.iter().map(|one| one.id.to_string()).collect()
    }

    async fn inbox(&self, reader: &Reader) -> Vec<Entry> {
        self.inboxes.inbox(reader, &InboxFilter::default(), 1_000).await.unwrap()
    }

    /// What was said in the log, by kind and topic.
    async fn said(&self, kind: &str) -> Vec<Message> {
        let page = Page { messages_max: 100_000, bytes_max: 1 << 30 };
        let head = self.log.head().await.unwrap().seq;
        let found = self.log.range(Seq::ZERO, head, page).await.unwrap();
        assert_eq!(found.read_to, head);
        found.messages.into_iter().filter(|one| one.kind.as_deref() == Some(kind)).collect()
    }

    async fn seconds_pass(&self, seconds: i64) {
        match &self.hand {
            Hand::Clock(hand) => hand.shift_ms(seconds * 1000),
            Hand::Database(client) => {
                let earlier = format!("interval '{seconds} s'");
                let all = format!(
                    "update tidings.notice set created_at = created_at - {earlier}, expires_at = expires_at - {earlier};
                     update tidings.inbox set tried_at = tried_at - {earlier};
                     update tidings.replica set until = until - {earlier}"
                );
                client.batch_execute(&all).await.unwrap();
            }
        }
    }
}

fn topics(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.topic.as_str()).collect()
}

fn data(message: &Message) -> Value {
    serde_json::from_str(&message.data).unwrap()
}
