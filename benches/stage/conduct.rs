//! One run: every shape of every contender in turn, as many rounds as wanted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidings::bench::{
    self, Contender as _, Figures, Group, Installation, Measured, Processes, Shape,
};
use tidings::client::{Address, Client};
use tidings::cluster::Cluster;
use tidings::store::postgres::migrate::migrate;

use crate::pg_floor::{PgFloor, connector};
use crate::plan::{Case, Contender, Plan};
use crate::servers::{KEY, Server, postgres, say};
use crate::ws_floor::WsFloor;
use crate::{Conduct, Failure, machine, report};

/// How this program is started as the floor of sockets; its tests have a test for it.
#[cfg(not(test))]
const WS_FLOOR: &[&str] = &["ws-floor"];
#[cfg(test)]
const WS_FLOOR: &[&str] = &["tests::a_floor_for_others", "--exact", "--ignored", "--nocapture"];

pub struct Stage {
    cluster: Cluster,
    postgres: Group,
    /// This program, which is the floor of sockets too.
    own: PathBuf,
    program: PathBuf,
    databases: AtomicUsize,
}

pub fn run(wanted: &Conduct) -> Result<(), Failure> {
    bench::raise_descriptors();
    let plan = Plan::new(wanted);
    let cases = match wanted.growth {
        true => plan.growth(wanted.log_rows_max),
        false => plan.cases(),
    };
    let only = wanted.only.as_deref().unwrap_or_default();
    let mut cases: Vec<Case> =
        cases.into_iter().filter(|case| case.name().contains(only)).collect();
    if !wanted.contenders.is_empty() {
        let is_wanted = |contender: &Contender| wanted.contenders.contains(&contender.name());
        cases.iter_mut().for_each(|case| case.contenders.retain(is_wanted));
    }
    let machine = machine::look()?;
    let out = wanted.out.join(if wanted.growth { "growth" } else { "run" });
    std::fs::create_dir_all(&out)?;
    let stage = Stage::new(wanted)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut rounds = Vec::new();
    for round in 1..=wanted.rounds {
        let mut measured = Vec::new();
        for case in &cases {
            for contender in &case.contenders {
                say(&format!(
                    "round {round}/{} · {} · {}",
                    wanted.rounds,
                    case.name(),
                    contender.name()
                ));
                let figures = runtime.block_on(stage.measure(case, *contender))?;
                say(&format!("    {}", report::in_short(&figures)));
                let (shape, contender) = (case.name(), contender.name());
                measured.push(Measured { contender, shape, figures });
            }
        }
        report::write_round(&out, round, &machine, &measured)?;
        rounds.push(measured);
        // As far as it is, should it be ended before its time.
        report::write(&out, &machine, plan, &rounds, wanted.growth)?;
    }
    say(&format!("written to {}", out.display()));
    Ok(())
}

impl Stage {
    pub fn new(wanted: &Conduct) -> Result<Stage, Failure> {
        let own = std::env::current_exe()?;
        let program = wanted.program.clone().or_else(|| beside(&own)).ok_or(
            "there is no binary of Tidings beside this program: build it, or name it with --program",
        )?;
        let (cluster, postgres) = postgres()?;
        Ok(Stage { cluster, postgres, own, program, databases: AtomicUsize::new(0) })
    }

    /// With servers of its own, and a database of its own.
    pub async fn measure(&self, case: &Case, contender: Contender) -> Result<Figures, Failure> {
        let told = |_: &str| {};
        match contender {
            Contender::WsFloor => {
                let server = Server::ws_floor(&self.own, WS_FLOOR)?;
                let floor = WsFloor::new(server.address)?;
                let processes = Processes(vec![Group::server(vec![server.pid()])]);
                Ok(bench::measure(&floor, &case.shape, &processes, &told).await?)
            }
            Contender::PgFloor => {
                let url = self.database(case).await?;
                let floor = PgFloor::start(&url).await?;
                let processes = Processes(vec![self.postgres.clone()]);
                Ok(bench::measure(&floor, &case.shape, &processes, &told).await?)
            }
            Contender::Tidings(replicas) => {
                let url = self.database(case).await?;
                let servers: Result<Vec<Server>, Failure> = (1..=replicas)
                    .map(|number| Server::replica(&self.program, number, &url))
                    .collect();
                let servers = servers?;
                let address =
                    |server: &Server| Address::parse(&format!("http://{}", server.address));
                let addresses: Result<Vec<Address>, _> = servers.iter().map(address).collect();
                let installation = Installation::new(Client::new(addresses?, Some(KEY))?);
                self.until_ready(&installation, replicas).await?;
                let pids = servers.iter().map(Server::pid).collect();
                let processes = Processes(vec![Group::server(pids), self.postgres.clone()]);
                let measured =
                    bench::measure_installation(&installation, &case.shape, &processes, &told);
                Ok(measured.await?)
            }
        }
    }

    /// A fresh one, with a log as long as the case wants it.
    async fn database(&self, case: &Case) -> Result<String, Failure> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        if number > 0 {
            // One at a time: long logs are large.
            self.cluster.drop_database(&format!("bench_{}", number - 1))?;
        }
        let name = format!("bench_{number}");
        self.cluster.create_database(&name, None)?;
        let url = self.cluster.url(&name);
        migrate(&connector(&url)?).await?;
        if case.log_rows > 0 {
            fill(&url, case.log_rows).await?;
        }
        Ok(url)
    }

    /// A session and a message through each.
    async fn until_ready(
        &self,
        installation: &Installation,
        replicas: usize,
    ) -> Result<(), Failure> {
        let small =
            Shape::Idle(bench::Idle { connections: replicas, lasts: std::time::Duration::ZERO });
        let mut tried = bench::measure(installation, &small, &Processes::default(), &|_| {}).await;
        for _ in 0..READY_TRIES {
            if tried.is_ok() {
                break;
            }
            tokio::time::sleep(READY_PAUSE).await;
            tried = bench::measure(installation, &small, &Processes::default(), &|_| {}).await;
        }
        tried?;
        drop(installation.way_in(0).await?);
        Ok(())
    }
}

/// A replica listens before it has reached the log.
const READY_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
const READY_TRIES: usize = 100;

/// `target/release/examples/stage` lies one below `target/release/tidings`; its tests two below.
fn beside(own: &std::path::Path) -> Option<PathBuf> {
    own.ancestors().skip(1).take(3).map(|dir| dir.join("tidings")).find(|program| program.is_file())
}

/// Rows as if they had been published, many at a time; then the head is where they end.
async fn fill(url: &str, rows: u64) -> Result<(), Failure> {
    const STEP: u64 = 1_000_000;
    say(&format!("    filling a log of {rows} rows"));
    let client = connector(url)?.connect().await?;
    let mut first = 1;
    while first <= rows {
        let last = rows.min(first + STEP - 1);
        let made = format!(
            "select tidings.partition_make({last});
             insert into tidings.message (seq, at, class, priority, topic, data)
             select n, now(), 0, 1, 'old:' || n % 1000, '\"' || repeat('x', 100) || '\"'
             from generate_series({first}::bigint, {last}::bigint) n;
             update tidings.log set head = {last};"
        );
        client.batch_execute(&made).await?;
        first = last + 1;
    }
    // Each by itself: neither may stand in a transaction with others.
    for clean in ["vacuum analyze tidings.message", "checkpoint"] {
        client.batch_execute(clean).await?;
    }
    Ok(())
}
