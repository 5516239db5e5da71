//! Whatever a user does in whichever tab, all tabs count alike.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::tab::Tab;
use super::*;
use crate::harness;

const STATES: [&str; 3] = ["received", "read", "confirmed"];

#[derive(Debug, Clone)]
enum Step {
    Send { target: usize, confirm: bool, replica: usize },
    Say { tab: usize, notice: usize, state: usize },
    All { replica: usize, state: usize },
    Recall { notice: usize, replica: usize },
    Resend { notice: usize, replica: usize },
    Reopen { tab: usize, replica: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_usize, any::<bool>(), 0..2_usize)
            .prop_map(|(target, confirm, replica)| Step::Send { target, confirm, replica }),
        5 => (0..4_usize, 0..12_usize, 0..3_usize)
            .prop_map(|(tab, notice, state)| Step::Say { tab, notice, state }),
        1 => (0..2_usize, 0..3_usize).prop_map(|(replica, state)| Step::All { replica, state }),
        1 => (0..12_usize, 0..2_usize)
            .prop_map(|(notice, replica)| Step::Recall { notice, replica }),
        1 => (0..12_usize, 0..2_usize)
            .prop_map(|(notice, replica)| Step::Resend { notice, replica }),
        2 => (0..4_usize, 0..2_usize).prop_map(|(tab, replica)| Step::Reopen { tab, replica }),
    ]
}

/// What the user has of a notice, kept by a hand that knows nothing of stores.
struct Own {
    id: String,
    there: bool,
    confirm: bool,
    /// Unread, read, confirmed.
    done: usize,
}

impl Own {
    fn grow(&mut self, state: usize) {
        let most = if self.confirm { 2 } else { 1 };
        self.done = self.done.max(state.min(most));
    }
}

fn counted(books: &[Own]) -> (u64, u64) {
    let there = || books.iter().filter(|own| own.there);
    let unread = there().filter(|own| own.done < 1).count();
    let unconfirmed = there().filter(|own| own.confirm && own.done < 2).count();
    (unread as u64, unconfirmed as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tabs_count_alike_whatever_is_done_in_whichever() {
    let fleet = fleet(&harness::database_url().await, 2, &[]).await;
    let urls = [&fleet[0].url, &fleet[1].url];
    let mut runner = TestRunner::deterministic();
    let mut tabs = Vec::new();
    for tab in 0..4 {
        tabs.push(Tab::open(urls[tab % 2], "2").await);
    }
    let mut books: Vec<Own> = Vec::new();
    for round in 0..20 {
        let steps = prop::collection::vec(step(), 5).new_tree(&mut runner).unwrap().current();
        for step in &steps {
            take(step, &urls, &mut tabs, &mut books).await;
        }
        let (unread, unconfirmed) = counted(&books);
        assert_eq!(counts(urls[round % 2], "2").await, (unread, unconfirmed), "{steps:?}");
        for tab in &mut tabs {
            tab.until_counts(unread, unconfirmed).await;
        }
    }
    let last = counted(&books);
    for tab in &mut tabs {
        tab.settle().await;
        assert_eq!(tab.counts, last);
    }
    assert!(books.len() > 10 && last.0 > 0, "it was about something: {last:?}");
}

async fn take(step: &Step, urls: &[&String; 2], tabs: &mut [Tab], books: &mut Vec<Own>) {
    match *step {
        Step::Send { target, confirm, replica } => {
            let to = [
                json!("all"),
                json!({"roles": ["ops", "dev"]}),
                json!({"users": ["1", "2"]}),
                json!({"users": ["1"]}),
            ];
            let id = send(urls[replica], to[target].clone(), json!({"confirm": confirm})).await;
            books.push(Own { id, there: target < 3, confirm, done: 0 });
        }
        Step::Say { tab, notice, state } => {
            let Some(own) = books.get_mut(notice) else { return };
            tabs[tab].say(STATES[state], &[&own.id]).await;
            own.grow(state);
        }
        Step::All { replica, state } => {
            let path = format!("/v1/inbox/{}", STATES[state]);
            let body = json!({"all": true});
            ask(urls[replica], Method::POST, &path, &token("2"), Some(&body)).await;
            books.iter_mut().for_each(|own| own.grow(state));
        }
        Step::Recall { notice, replica } => {
            let Some(own) = books.get_mut(notice) else { return };
            let path = format!("/v1/notices/{}", own.id);
            ask(urls[replica], Method::DELETE, &path, API_KEY, None).await;
            own.there = false;
        }
        Step::Resend { notice, replica } => {
            let Some(own) = books.get(notice) else { return };
            let path = format!("/v1/notices/{}/resend", own.id);
            ask(urls[replica], Method::POST, &path, API_KEY, None).await;
        }
        Step::Reopen { tab, replica } => tabs[tab] = Tab::open(urls[replica], "2").await,
    }
}
