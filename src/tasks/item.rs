//! One item in hand: tries with a bound on time, pauses between them, and whatever goes wrong is its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::FutureExt;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::executor::{Executor, Outcome, Try};
use super::hands::Hand;
use crate::domain::{TaskItem, TaskRules};

/// The pauses between tries, unless the other side says how long.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The longest pause that the other side may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What became of an item in hand.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    Succeeded,
    Failed(String),
    /// It was between two tries when no more were wanted: not finished.
    Returned,
}

/// Tries until it is done, or until no further try is wanted. A try that has begun is finished.
/// Between two tries the hand is let go, and another is waited for.
pub async fn run(
    executor: &Arc<dyn Executor>,
    item: &TaskItem,
    rules: TaskRules,
    attempt: u32,
    stop: &CancellationToken,
    mut hand: Hand,
) -> Done {
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build();
    let mut tried = 0;
    loop {
        let (name, data) = (&*item.name, item.data.as_deref());
        let one = Try { name, data, attempt, tried, timeout: rules.item_timeout };
        let running = AssertUnwindSafe(executor.run(one)).catch_unwind();
        let (error, asked) = match timeout(rules.item_timeout, running).await {
            Ok(Ok(Outcome::Succeeded)) => return Done::Succeeded,
            Ok(Ok(Outcome::Failed(error))) => return Done::Failed(error),
            Ok(Ok(Outcome::TryAgain { error, after })) => (error, after),
            Ok(Err(panic)) => {
                tracing::error!(item = &*item.name, "an executor panicked");
                return Done::Failed(format!("it panicked: {}", panic_text(&*panic)));
            }
            Err(_) => (format!("it took longer than {:?}", rules.item_timeout), None),
        };
        if tried >= rules.retries {
            return Done::Failed(error);
        }
        tried += 1;
        let pause = asked.map(|asked| asked.min(ASKED_PAUSE_MAX)).or_else(|| pauses.next());
        let (hands, owner) = hand.let_go();
        let paused = async {
            sleep(pause.unwrap_or(PAUSE_MAX)).await;
            hands.take(&owner).await
        };
        hand = match stop.run_until_cancelled(paused).await {
            Some(hand) => hand,
            None => return Done::Returned,
        };
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::super::hands::Hands;
    use super::*;
    use crate::domain::ItemStatus;

    /// Does what is written in the item's name.
    struct Told(Mutex<u32>);

    #[async_trait]
    impl Executor for Told {
        async fn run(&self, one: Try<'_>) -> Outcome {
            *self.0.lock() += 1;
            match one.name {
                "panic" => panic!("as told"),
                "hang" => std::future::pending().await,
                "flaky" if one.tried < 2 => {
                    Outcome::TryAgain { error: "not yet".to_owned(), after: None }
                }
                "later" if one.tried == 0 => Outcome::TryAgain {
                    error: "busy".to_owned(),
                    after: Some(Duration::from_secs(7)),
                },
                "never" => Outcome::TryAgain { error: "no".to_owned(), after: None },
                "no" => Outcome::Failed("refused".to_owned()),
                _ => Outcome::Succeeded,
            }
        }
    }

    fn hand() -> Hand {
        Hands::new(1).try_take(&None).unwrap()
    }

    async fn tried(name: &str) -> (Done, u32, Duration) {
        let told = Arc::new(Told(Mutex::new(0)));
        let executor: Arc<dyn Executor> = told.clone();
        let item = TaskItem {
            name: name.into(),
            data: None,
            status: ItemStatus::Pending,
            error: None,
            attempt: None,
            finished_at: None,
        };
        let rules = TaskRules {
            concurrency: 1,
            retries: 2,
            item_timeout: Duration::from_secs(30),
            at_most_once: false,
            notice: false,
        };
        let since = Instant::now();
        let done = run(&executor, &item, rules, 1, &CancellationToken::new(), hand()).await;
        let count = *told.0.lock();
        (done, count, since.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_an_item_does_is_its_own() {
        assert_eq!(tried("good").await.0, Done::Succeeded);
        assert_eq!(tried("no").await, (Done::Failed("refused".to_owned()), 1, Duration::ZERO));
        let (done, count, _) = tried("panic").await;
        assert_eq!((done, count), (Done::Failed("it panicked: as told".to_owned()), 1));
        let (done, count, took) = tried("hang").await;
        assert_eq!((done, count), (Done::Failed("it took longer than 30s".to_owned()), 3));
        assert!(took >= Duration::from_secs(90), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_after_a_pause() {
        let (done, count, took) = tried("flaky").await;
        assert_eq!((done, count), (Done::Succeeded, 3));
        assert!(took >= PAUSE_MIN * 3, "{took:?}");
        assert_eq!(tried("later").await, (Done::Succeeded, 2, Duration::from_secs(7)));
        assert_eq!(tried("never").await.0, Done::Failed("no".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_further_try_is_begun_once_none_is_wanted() {
        let told: Arc<dyn Executor> = Arc::new(Told(Mutex::new(0)));
        let item = TaskItem {
            name: "never".into(),
            data: None,
            status: ItemStatus::Pending,
            error: None,
            attempt: None,
            finished_at: None,
        };
        let rules = TaskRules {
            concurrency: 1,
            retries: 20,
            item_timeout: Duration::from_secs(30),
            at_most_once: false,
            notice: false,
        };
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(run(&told, &item, rules, 1, &stop, hand()).await, Done::Returned);
    }
}
