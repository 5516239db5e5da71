//! One suite over every store of tasks: what is promised of a task, whoever keeps it.

mod books;
mod leases;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidings::bus::memory::MemoryBus;
use tidings::clock::{Clock, TestClock};
use tidings::domain::{
    Counts, ItemResult, ItemStatus, Seq, Task, TaskId, TaskRules, TaskStatus, Timestamp, UserId,
};
use tidings::notification::Announcement;
use tidings::store::memory::{MemorySettings, MemoryStore};
use tidings::store::notice::{Delivery, InboxStore, Reader, Replays};
use tidings::store::task::{
    Claim, Claimed, Ending, Granted, ItemFilter, NewTask, Report, Reported, TaskFilter, TaskStore,
    Which, Wish,
};
use tidings::store::{LogStore, Page};

use crate::harness;

const LEASE: Duration = Duration::from_secs(30);

/// A store to be tested, and the hand that makes leases run out.
struct Subject {
    tasks: Arc<dyn TaskStore>,
    inboxes: Arc<dyn InboxStore>,
    log: Arc<dyn LogStore>,
    hand: Hand,
}

enum Hand {
    Clock(TestClock),
    Database(tokio_postgres::Client),
}

async fn memory() -> Subject {
    let settings = MemorySettings {
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        items_max: 100_000,
        retention_s: 3600,
        idempotency_s: 86_400,
    };
    let (clock, hand) = Clock::test(Timestamp(1_795_168_800_000));
    let store = MemoryStore::new(settings, clock, MemoryBus::default());
    Subject {
        tasks: Arc::new(store.clone()),
        inboxes: Arc::new(store.clone()),
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
        tasks: Arc::new(store.clone()),
        inboxes: Arc::new(store.clone()),
        log: Arc::new(store),
        hand: Hand::Database(client),
    }
}

suite! {
    books:
        a_task_is_kept_with_its_items_and_said_once_per_topic
        a_task_is_submitted_once_per_key
        the_newest_tasks_come_first_page_by_page
        items_come_in_their_order_page_by_page
        a_report_books_items_counters_and_one_message
        last_words_are_said_alike_everywhere
        a_report_told_twice_changes_nothing_more
        an_attempt_ends_once_and_its_counts_say_how
        a_task_that_cannot_be_run_fails_with_its_reason
        a_snapshot_is_what_the_last_message_said
        a_task_that_ended_long_ago_is_removed
        a_hundred_thousand_items_are_one_statement;
    leases:
        a_task_is_claimed_once_and_again_when_its_lease_ran_out
        owners_take_turns
        an_owner_leaves_room_for_another
        a_worker_waits_for_what_it_may_have
        what_was_in_hand_at_most_once_is_not_let_go_to_others
        a_report_renews_the_lease_as_it_was_claimed
        a_stale_term_changes_nothing
        a_task_at_most_once_fails_what_was_in_hand
        a_task_that_kills_its_holders_is_interrupted
        what_is_let_go_is_claimed_by_another
        workers_get_the_actions_they_know_of_the_owner_they_may
        a_worker_that_dies_while_cancelling_is_ended_by_a_replica;
    wishes:
        what_nobody_holds_is_cancelled_at_once
        what_somebody_holds_is_cancelled_by_its_holder
        a_paused_task_is_given_to_nobody_until_it_is_resumed
        a_holder_may_go_on_when_its_task_is_resumed
        a_retry_runs_what_failed_or_was_cancelled
        its_owner_finds_a_notice_of_each_attempt_if_that_is_wished;
}

fn new_task(id: &str, names: &[&str]) -> NewTask {
    NewTask {
        id: TaskId::parse(id).unwrap(),
        action: "cordon".into(),
        owner: Some(UserId::parse("42").unwrap()),
        external: false,
        executor: r#"{"type":"simulate"}"#.into(),
        meta: r#"{"why" : "é"}"#.into(),
        rules: TaskRules {
            concurrency: 10,
            retries: 2,
            item_timeout: Duration::from_secs(30),
            at_most_once: false,
            notice: false,
        },
        idempotency_key: None,
        items: names.iter().map(|name| ((*name).into(), None)).collect(),
    }
}

fn once(mut task: NewTask) -> NewTask {
    task.rules.at_most_once = true;
    task
}

fn external(mut task: NewTask) -> NewTask {
    task.external = true;
    task
}

impl Subject {
    async fn submit(&self, task: &NewTask) -> TaskId {
        let submitted = self.tasks.submit(task).await.unwrap();
        assert!(!submitted.duplicate);
        submitted.id
    }

    async fn task(&self, id: &TaskId) -> Task {
        self.tasks.get(id).await.unwrap().unwrap()
    }

    fn claim_of(&self, holder: &str) -> Claim {
        Claim {
            holder: holder.into(),
            lease: LEASE,
            tasks_max: 10,
            takeovers_max: 2,
            external: None,
        }
    }

    async fn claim(&self, holder: &str) -> Claimed {
        self.tasks.claim(&self.claim_of(holder)).await.unwrap()
    }

    /// The term of the one task that is due.
    async fn claim_one(&self, holder: &str) -> i64 {
        let claimed = self.claim(holder).await;
        assert_eq!(claimed.leases.len(), 1, "{claimed:?}");
        claimed.leases[0].1
    }

    fn report(&self, id: &TaskId, term: i64, results: &[(&str, Option<&str>)]) -> Report {
        let result = |(name, error): &(&str, Option<&str>)| ItemResult {
            name: (*name).into(),
            error: error.map(Into::into),
        };
        Report {
            id: id.clone(),
            term,
            results: results.iter().map(result).collect(),
            in_flight: None,
            ending: Ending::GoesOn,
        }
    }

    async fn tell(&self, report: &Report) -> Reported {
        let early = self.tasks.report(report).await.unwrap();
        if early != Reported::Early {
            return early;
        }
        match &self.hand {
            Hand::Clock(hand) => hand.shift_ms(1_000),
            Hand::Database(client) => {
                let past = "update tidings.task set updated_at = updated_at - interval '1 s'";
                client.batch_execute(past).await.unwrap();
            }
        }
        self.tasks.report(report).await.unwrap()
    }

    async fn finish(&self, id: &TaskId, term: i64) -> Reported {
        let ending = Ending::Finish(None);
        self.tell(&Report { ending, ..self.report(id, term, &[]) }).await
    }

    async fn let_leases_run_out(&self) {
        match &self.hand {
            Hand::Clock(hand) => hand.shift_ms(60_000),
            Hand::Database(client) => {
                let past = "update tidings.task set due_at = clock_timestamp() - interval '1 s' where held";
                client.batch_execute(past).await.unwrap();
            }
        }
    }

    /// Shortens what is left of the leases, so that the next report renews them.
    async fn let_leases_run_low(&self) {
        match &self.hand {
            Hand::Clock(hand) => hand.shift_ms(590_000),
            Hand::Database(client) => {
                let soon = "update tidings.task set due_at = clock_timestamp() + interval '10 s' where held";
                client.batch_execute(soon).await.unwrap();
            }
        }
    }

    /// What was said on a topic: kinds, with their data.
    async fn said(&self, topic: &str) -> Vec<(String, Value)> {
        let page = Page { messages_max: 1_000, bytes_max: 1 << 30 };
        let head = self.log.head().await.unwrap().seq;
        let found = self.log.range(Seq::ZERO, head, page).await.unwrap();
        assert_eq!(found.read_to, head);
        let own = found.messages.iter().filter(|message| message.topic.as_str() == topic);
        own.map(|message| {
            let data: Value = serde_json::from_str(&message.data).unwrap();
            let task = data["id"].as_str().unwrap();
            assert_eq!(message.key.as_deref(), Some(task));
            (message.kind.as_deref().unwrap().to_owned(), data)
        })
        .collect()
    }

    /// What the user 42 has not received.
    async fn missed(&self) -> Vec<Delivery> {
        let reader = Reader { user: UserId::parse("42").unwrap(), roles: [].into() };
        let replays = Replays { max: 100, age: Duration::from_secs(3_600) };
        self.inboxes.open(&[reader], replays).await.unwrap().remove(0).missed
    }

    async fn finished(&self, id: &TaskId) -> Vec<Value> {
        let said = self.said(id.topic().as_str()).await;
        let finished = said.iter().filter(|(kind, _)| kind == "task.finished");
        let finished: Vec<Value> = finished.map(|(_, data)| data.clone()).collect();
        if !finished.is_empty() {
            assert_eq!(said.last().unwrap().0, "task.finished", "something after the last word");
        }
        finished
    }
}

fn told(reported: &Reported) -> Option<&Announcement> {
    match reported {
        Reported::Done { told, .. } => told.as_ref(),
        other => panic!("{other:?}"),
    }
}

fn status(reported: &Reported) -> TaskStatus {
    match reported {
        Reported::Done { status, .. } => *status,
        other => panic!("{other:?}"),
    }
}

fn stop(reported: &Reported) -> bool {
    match reported {
        Reported::Done { stop, .. } => *stop,
        other => panic!("{other:?}"),
    }
}
