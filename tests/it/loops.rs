//! Loops that panic: one that comes round again changes nothing, one that does not takes its replica
//! down, so that another one takes its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use tidings::app::{Backend, Replica};
use tidings::bus::{Bus, BusError, BusEvent};
use tidings::clock::Clock;
use tidings::config::{Config, Flags};
use tidings::domain::{Draft, Epoch, Pattern, Seq, Timestamp};
use tidings::metrics::Metrics;
use tidings::store::{Appended, Found, Head, LogStore, LogWriter, Mark, Page, StoreError, Turn};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::fleet::until;

/// How often what is asked still panics, and what says that it may.
#[derive(Default)]
struct Trouble {
    panics: AtomicU32,
    begins: Notify,
}

impl Trouble {
    fn panic_maybe(&self) {
        let left = self.panics.load(Ordering::SeqCst);
        if left > 0 {
            self.panics.store(left - 1, Ordering::SeqCst);
            panic!("on purpose");
        }
    }
}

/// Panics when the log asks for its head.
struct Store {
    inner: Arc<dyn LogStore>,
    head: Arc<Trouble>,
    write: Arc<Trouble>,
}

#[async_trait]
impl LogStore for Store {
    async fn head(&self) -> Result<Head, StoreError> {
        self.head.panic_maybe();
        self.inner.head().await
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        self.inner.barrier().await
    }

    async fn range(&self, after: Seq, until: Seq, page: Page) -> Result<Found, StoreError> {
        self.inner.range(after, until, page).await
    }

    async fn matching(
        &self,
        patterns: &[Pattern],
        after: Seq,
        until: Seq,
        page: Page,
    ) -> Result<Found, StoreError> {
        self.inner.matching(patterns, after, until, page).await
    }

    async fn since(&self, moment: Timestamp) -> Result<Seq, StoreError> {
        self.inner.since(moment).await
    }

    async fn mark(&self, seq: Seq) -> Result<Option<Mark>, StoreError> {
        self.inner.mark(seq).await
    }

    async fn epoch_renew(&self, old: &Epoch) -> Result<(), StoreError> {
        self.inner.epoch_renew(old).await
    }

    async fn writer(&self) -> Result<Box<dyn LogWriter>, StoreError> {
        let (inner, trouble) = (self.inner.writer().await?, self.write.clone());
        Ok(Box::new(Writer { inner, trouble }))
    }
}

struct Writer {
    inner: Box<dyn LogWriter>,
    trouble: Arc<Trouble>,
}

#[async_trait]
impl LogWriter for Writer {
    async fn write(&mut self, drafts: &[Draft], turn: Turn) -> Result<Appended, StoreError> {
        self.trouble.panic_maybe();
        self.inner.write(drafts, turn).await
    }

    async fn recover(&mut self, drafts: &[Draft]) -> Result<Option<Appended>, StoreError> {
        self.inner.recover(drafts).await
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        self.inner.renew().await
    }

    async fn release(&mut self) {
        self.inner.release().await;
    }
}

/// Panics while it listens.
struct Ear {
    inner: Arc<dyn Bus>,
    trouble: Arc<Trouble>,
}

#[async_trait]
impl Bus for Ear {
    async fn listen(&self, events: mpsc::Sender<BusEvent>, stop: CancellationToken) {
        self.trouble.panic_maybe();
        tokio::select! {
            () = self.inner.listen(events, stop) => {}
            () = self.trouble.begins.notified() => self.trouble.panic_maybe(),
        }
    }

    async fn signal(&self, drafts: &[Draft], at: Timestamp) -> Result<(), BusError> {
        self.inner.signal(drafts, at).await
    }

    fn suspect(&self) {
        self.inner.suspect();
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sick {
    Log,
    Lane,
    Bus,
}

/// A replica in memory, of which one loop panics so many times.
struct Patient {
    http: reqwest::Client,
    url: String,
    sick: Sick,
    trouble: Arc<Trouble>,
    life: tokio::task::JoinHandle<u8>,
}

impl Patient {
    async fn start(sick: Sick) -> Patient {
        let settings: HashMap<&str, &str> =
            [("TIDINGS_DEV", "true"), ("TIDINGS_LISTEN", "127.0.0.1:0"), ("TIDINGS_DRAIN_S", "2")]
                .into();
        let env = |name: &str| settings.get(name).map(|value| (*value).to_owned());
        let config = Config::resolve(&Flags::new(), &env, None).unwrap();
        let (clock, metrics) = (Clock::system(), Metrics::new());
        let mut backend = Backend::new(&config, &clock, &metrics).unwrap();
        let [head, write, ear] = std::array::from_fn(|_| Arc::new(Trouble::default()));
        let trouble = match sick {
            Sick::Log => head.clone(),
            Sick::Lane => write.clone(),
            Sick::Bus => ear.clone(),
        };
        backend.store = Arc::new(Store { inner: backend.store, head, write });
        backend.bus = Arc::new(Ear { inner: backend.bus, trouble: ear });
        let replica = Replica::over(backend, &config, clock, metrics).await.unwrap();
        let url = format!("http://{}", replica.address);
        #[expect(clippy::disallowed_methods, reason = "a replica of a test, ended by it")]
        let life = tokio::spawn(replica.run());
        let patient = Patient { http: reqwest::Client::new(), url, sick, trouble, life };
        until("it is ready", async || patient.readiness().await == Some(200)).await;
        patient
    }

    /// `None`: it does not answer any more.
    async fn readiness(&self) -> Option<u16> {
        let asked = self.http.get(format!("{}/readyz", self.url)).send().await;
        asked.ok().map(|answer| answer.status().as_u16())
    }

    fn fails(&self, times: u32) {
        self.trouble.panics.store(times, Ordering::SeqCst);
        self.trouble.begins.notify_one();
    }

    async fn publish(&self) -> Option<u16> {
        let body = json!({"topic": "a", "data": 1});
        let sent = self.http.post(format!("{}/v1/messages", self.url)).json(&body).send().await;
        sent.ok().map(|answer| answer.status().as_u16())
    }

    /// What wakes the loop that is sick.
    async fn poke(&self) {
        if self.sick == Sick::Lane {
            self.publish().await;
        }
    }

    async fn metrics(&self) -> String {
        let asked = self.http.get(format!("{}/metrics", self.url)).send().await;
        asked.unwrap().text().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_loop_panics_again_and_again_is_not_ready_and_ends_with_a_failure() {
    for sick in [Sick::Log, Sick::Lane, Sick::Bus] {
        let patient = Patient::start(sick).await;
        patient.fails(u32::MAX);
        until("it is not ready any more", async || {
            patient.poke().await;
            patient.readiness().await != Some(200)
        })
        .await;
        until("it has ended", async || {
            patient.poke().await;
            patient.life.is_finished()
        })
        .await;
        assert_eq!(patient.life.await.unwrap(), 1, "{sick:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_panics_now_and_then_comes_round() {
    for sick in [Sick::Log, Sick::Lane, Sick::Bus] {
        let patient = Patient::start(sick).await;
        patient.fails(2);
        until("it has panicked twice and is ready", async || {
            patient.poke().await;
            let name = format!("{sick:?}").to_lowercase();
            let panicked = format!("tidings_supervise_panics_total{{name=\"{name}\"}} 2\n");
            patient.metrics().await.contains(&panicked) && patient.readiness().await == Some(200)
        })
        .await;
        until("it takes messages", async || patient.publish().await == Some(201)).await;
        until("and shows them", async || {
            let page = page(&patient).await;
            page["messages"].as_array().is_some_and(|messages| !messages.is_empty())
        })
        .await;
        patient.life.abort();
    }
}

async fn page(patient: &Patient) -> Value {
    let address = format!("{}/v1/messages?topic=a&since=2020-01-01T00:00:00Z", patient.url);
    patient.http.get(address).send().await.unwrap().json().await.unwrap()
}

/// The one loop that the others hear through: while it is down, `/readyz` says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_log_does_not_run_says_so() {
    let patient = Patient::start(Sick::Log).await;
    patient.fails(3);
    until("it is not ready", async || patient.readiness().await == Some(503)).await;
    until("it is ready again", async || patient.readiness().await == Some(200)).await;
    until("the listener is live again", async || {
        let asked = patient.http.get(format!("{}/readyz", patient.url)).send().await.unwrap();
        asked.json::<Value>().await.unwrap()["listener"] == "live"
    })
    .await;
    patient.life.abort();
}
