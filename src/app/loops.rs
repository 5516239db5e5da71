//! The loops of a replica, each with its name; `supervise` owns their lives.
//!
//! All that touch the log wait until the schema is right.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::parts::Schema;
use crate::api::{Api, SchemaCheck};
use crate::auth::Authenticator;
use crate::bus::{Bus, BusEvent, BusState};
use crate::log::LogLoop;
use crate::metrics::{Metrics, RATES_EVERY};
use crate::notices::Keeper;
use crate::presence::PresenceLoop;
use crate::publish::{Lane, SignalLoop};
use crate::recovery::Recovery;
use crate::supervise::{LAST_WORD, Policy, Shutdown, Supervisor, finish};
use crate::tasks::{RUNS_END, Runner};
use crate::telemetry::{self, Flusher, Live};

/// How many events of the bus may wait for the log; with more the listener waits, and Postgres keeps them.
const BUS_EVENTS_MAX: usize = 1_024;

/// How often the keys behind a URL are fetched anew.
const KEYS_REFRESH: Duration = Duration::from_secs(300);

/// What loops are started with.
pub struct Loops {
    pub schema: Schema,
    pub schema_known: watch::Sender<SchemaCheck>,
    pub log: LogLoops,
    pub tasks: Runner,
    pub keeper: Keeper,
    pub presence: PresenceLoop,
    pub telemetry: (telemetry::Keeper, Flusher, Live),
    pub auth: Authenticator,
    pub api: Api,
    pub metrics: Metrics,
}

/// What carries messages: the part of a replica that a simulation runs without a socket.
pub struct LogLoops {
    pub bus: Arc<dyn Bus>,
    pub log: LogLoop,
    pub lanes: Vec<Lane>,
    pub signals: SignalLoop,
    pub recovery: Recovery,
}

impl Loops {
    pub fn start(self, supervisor: &Supervisor) {
        let ready = self.schema_known.subscribe();
        start_schema(supervisor, self.schema, self.schema_known);
        self.log.start(supervisor, &ready);
        let tasks = Arc::new(Mutex::new(self.tasks));
        // It ends its runs by itself, each with time for its last report.
        when_ready(supervisor, ("tasks", Policy::Restart), &ready, RUNS_END, move |shutdown| {
            let tasks = tasks.clone();
            async move { tasks.lock().await.run(&shutdown).await }
        });
        let (keeper, flusher, live) = self.telemetry;
        let keeper = Arc::new(Mutex::new(keeper));
        when_ready(supervisor, ("telemetry", Policy::Restart), &ready, RUNS_END, move |shutdown| {
            let keeper = keeper.clone();
            async move { keeper.lock().await.run(&shutdown).await }
        });
        let flusher = Arc::new(Mutex::new(flusher));
        when_ready(
            supervisor,
            ("telemetry_flush", Policy::Restart),
            &ready,
            RUNS_END,
            move |shutdown| {
                let flusher = flusher.clone();
                async move { flusher.lock().await.run(&shutdown).await }
            },
        );
        let live = Arc::new(Mutex::new(live));
        when_ready(
            supervisor,
            ("telemetry_live", Policy::Restart),
            &ready,
            LAST_WORD,
            move |shutdown| {
                let live = live.clone();
                async move { live.lock().await.run(&shutdown.stopping).await }
            },
        );
        let keeper = Arc::new(Mutex::new(self.keeper));
        // These two write down what is left when they are told to end.
        when_ready(supervisor, ("notices", Policy::Restart), &ready, RUNS_END, move |shutdown| {
            let keeper = keeper.clone();
            async move { keeper.lock().await.run(&shutdown.stopping).await }
        });
        let presence = Arc::new(Mutex::new(self.presence));
        when_ready(supervisor, ("presence", Policy::Restart), &ready, RUNS_END, move |shutdown| {
            let presence = presence.clone();
            async move { presence.lock().await.run(&shutdown.stopping).await }
        });
        start_keys(supervisor, self.auth);
        start_rates(supervisor, self.metrics);
        let api = self.api;
        supervisor.start("roll", Policy::Restart, move |shutdown| {
            let api = api.clone();
            async move {
                api.answer_roll_calls(&shutdown.stopping).await;
                Ok::<(), String>(())
            }
        });
    }
}

impl LogLoops {
    pub fn start(self, supervisor: &Supervisor, ready: &watch::Receiver<SchemaCheck>) {
        let (events, heard) = mpsc::channel(BUS_EVENTS_MAX);
        let bus = self.bus.clone();
        when_ready(supervisor, ("bus", Policy::Needed), ready, LAST_WORD, move |shutdown| {
            let (bus, events) = (bus.clone(), events.clone());
            async move {
                let _deaf = Deaf(events.clone());
                bus.listen(events, shutdown.stopping).await;
            }
        });
        let (log, bus) = (Arc::new(Mutex::new((self.log, heard))), self.bus);
        when_ready(supervisor, ("log", Policy::Needed), ready, LAST_WORD, move |shutdown| {
            let (log, bus) = (log.clone(), bus.clone());
            async move {
                let (log, heard) = &mut *log.lock().await;
                log.run(&*bus, heard, &shutdown.stopping).await;
            }
        });
        let recovery = Arc::new(Mutex::new(self.recovery));
        when_ready(supervisor, ("recovery", Policy::Restart), ready, LAST_WORD, move |shutdown| {
            let recovery = recovery.clone();
            async move { recovery.lock().await.run(&shutdown.stopping).await }
        });
        // These two answer publishers, with a refusal as long as the log cannot be written.
        for lane in self.lanes {
            let lane = Arc::new(Mutex::new(lane));
            supervisor.start("lane", Policy::Needed, move |shutdown| {
                let lane = lane.clone();
                async move { lane.lock().await.run(&shutdown.stopping).await }
            });
        }
        let signals = Arc::new(Mutex::new(self.signals));
        supervisor.start("signals", Policy::Needed, move |shutdown| {
            let signals = signals.clone();
            async move {
                let run = async { signals.lock().await.run(&shutdown.stopping).await };
                finish(&shutdown.stopping, LAST_WORD, run).await;
                Ok::<(), String>(())
            }
        });
    }
}

/// Tells the log that nothing is heard any more, also when listening ends in a panic.
struct Deaf(mpsc::Sender<BusEvent>);

impl Drop for Deaf {
    fn drop(&mut self) {
        // With so much to do that there is no room, it looks at its tick.
        let _ = self.0.try_send(BusEvent::Deaf(BusState::Down));
    }
}

/// Starts a loop that begins once the schema is right, and ends within a time when it is told to.
fn when_ready<F, Fut>(
    supervisor: &Supervisor,
    (name, policy): (&'static str, Policy),
    ready: &watch::Receiver<SchemaCheck>,
    end_within: Duration,
    run: F,
) where
    F: Fn(Shutdown) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let ready = ready.clone();
    supervisor.start(name, policy, move |shutdown| {
        let (mut ready, stopping) = (ready.clone(), shutdown.stopping.clone());
        let run = run(shutdown);
        async move {
            let is_right = |schema: &SchemaCheck| *schema == SchemaCheck::Right;
            let right = async { ready.wait_for(is_right).await.is_ok() };
            tokio::select! {
                () = stopping.cancelled() => return Ok::<(), String>(()),
                right = right => if !right { return Ok(()) },
            }
            // What it awaits then is a statement, and a server that hangs must not decide how we end.
            finish(&stopping, end_within, run).await;
            Ok(())
        }
    });
}

/// Brings the schema up, however long it takes until Postgres can be reached.
fn start_schema(supervisor: &Supervisor, schema: Schema, known: watch::Sender<SchemaCheck>) {
    let schema = Arc::new(schema);
    let known = Arc::new(known);
    supervisor.start("schema", Policy::Restart, move |shutdown| {
        let (schema, known) = (schema.clone(), known.clone());
        async move {
            tokio::select! {
                () = shutdown.stopping.cancelled() => Ok(()),
                result = schema.bring_up(&known) => result,
            }
        }
    });
}

fn start_rates(supervisor: &Supervisor, metrics: Metrics) {
    supervisor.start("rates", Policy::Restart, move |shutdown| {
        let metrics = metrics.clone();
        async move {
            loop {
                metrics.note_rates();
                tokio::select! {
                    () = shutdown.stopping.cancelled() => return Ok::<(), String>(()),
                    () = tokio::time::sleep(RATES_EVERY) => {}
                }
            }
        }
    });
}

fn start_keys(supervisor: &Supervisor, auth: Authenticator) {
    supervisor.start("keys", Policy::Restart, move |shutdown| {
        let auth = auth.clone();
        async move {
            loop {
                finish(&shutdown.stopping, LAST_WORD, auth.refresh()).await;
                tokio::select! {
                    () = shutdown.stopping.cancelled() => return Ok::<(), String>(()),
                    () = tokio::time::sleep(KEYS_REFRESH) => {}
                }
            }
        }
    });
}
