//! The loops of a replica, each with its name; `supervise` owns their lives.
//!
//! All that touch the log wait until the schema is right.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::parts::Schema;
use crate::api::SchemaCheck;
use crate::auth::Authenticator;
use crate::bus::Bus;
use crate::log::LogLoop;
use crate::metrics::{Metrics, RATES_EVERY};
use crate::notices::Keeper;
use crate::presence::PresenceLoop;
use crate::publish::{Lane, SignalLoop};
use crate::recovery::Recovery;
use crate::supervise::{Policy, Shutdown, Supervisor};
use crate::tasks::Runner;
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
        when_ready(supervisor, "tasks", &ready, move |shutdown| {
            let tasks = tasks.clone();
            async move { tasks.lock().await.run(&shutdown).await }
        });
        let (keeper, flusher, live) = self.telemetry;
        let keeper = Arc::new(Mutex::new(keeper));
        when_ready(supervisor, "telemetry", &ready, move |shutdown| {
            let keeper = keeper.clone();
            async move { keeper.lock().await.run(&shutdown).await }
        });
        let flusher = Arc::new(Mutex::new(flusher));
        when_ready(supervisor, "telemetry_flush", &ready, move |shutdown| {
            let flusher = flusher.clone();
            async move { flusher.lock().await.run(&shutdown).await }
        });
        let live = Arc::new(Mutex::new(live));
        when_ready(supervisor, "telemetry_live", &ready, move |shutdown| {
            let live = live.clone();
            async move { live.lock().await.run(&shutdown.stopping).await }
        });
        let keeper = Arc::new(Mutex::new(self.keeper));
        when_ready(supervisor, "notices", &ready, move |shutdown| {
            let keeper = keeper.clone();
            async move { keeper.lock().await.run(&shutdown.stopping).await }
        });
        let presence = Arc::new(Mutex::new(self.presence));
        when_ready(supervisor, "presence", &ready, move |shutdown| {
            let presence = presence.clone();
            async move { presence.lock().await.run(&shutdown.stopping).await }
        });
        start_keys(supervisor, self.auth);
        start_rates(supervisor, self.metrics);
    }
}

impl LogLoops {
    pub fn start(self, supervisor: &Supervisor, ready: &watch::Receiver<SchemaCheck>) {
        let (events, heard) = mpsc::channel(BUS_EVENTS_MAX);
        let bus = self.bus.clone();
        when_ready(supervisor, "bus", ready, move |shutdown| {
            let (bus, events) = (bus.clone(), events.clone());
            async move { bus.listen(events, shutdown.stopping).await }
        });
        let (log, bus) = (Arc::new(Mutex::new((self.log, heard))), self.bus);
        when_ready(supervisor, "log", ready, move |shutdown| {
            let (log, bus) = (log.clone(), bus.clone());
            async move {
                let (log, heard) = &mut *log.lock().await;
                log.run(&*bus, heard, &shutdown.stopping).await;
            }
        });
        let recovery = Arc::new(Mutex::new(self.recovery));
        when_ready(supervisor, "recovery", ready, move |shutdown| {
            let recovery = recovery.clone();
            async move { recovery.lock().await.run(&shutdown.stopping).await }
        });
        // These two answer publishers, with a refusal as long as the log cannot be written.
        for lane in self.lanes {
            let lane = Arc::new(Mutex::new(lane));
            supervisor.start("lane", Policy::Restart, move |shutdown| {
                let lane = lane.clone();
                async move { lane.lock().await.run(&shutdown.stopping).await }
            });
        }
        let signals = Arc::new(Mutex::new(self.signals));
        supervisor.start("signals", Policy::Restart, move |shutdown| {
            let signals = signals.clone();
            async move {
                signals.lock().await.run(&shutdown.stopping).await;
                Ok::<(), String>(())
            }
        });
    }
}

/// Starts a loop that begins once the schema is right.
fn when_ready<F, Fut>(
    supervisor: &Supervisor,
    name: &'static str,
    ready: &watch::Receiver<SchemaCheck>,
    run: F,
) where
    F: Fn(Shutdown) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let ready = ready.clone();
    supervisor.start(name, Policy::Restart, move |shutdown| {
        let (mut ready, stopping) = (ready.clone(), shutdown.stopping.clone());
        let run = run(shutdown);
        async move {
            let is_right = |schema: &SchemaCheck| *schema == SchemaCheck::Right;
            let right = async { ready.wait_for(is_right).await.is_ok() };
            tokio::select! {
                () = stopping.cancelled() => return Ok::<(), String>(()),
                right = right => if !right { return Ok(()) },
            }
            run.await;
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
                auth.refresh().await;
                tokio::select! {
                    () = shutdown.stopping.cancelled() => return Ok::<(), String>(()),
                    () = tokio::time::sleep(KEYS_REFRESH) => {}
                }
            }
        }
    });
}
