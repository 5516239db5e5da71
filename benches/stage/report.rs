//! Pages of a run: raw figures of each round, medians, goals, plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tidings::bench::{Figures, Measured};

use crate::Failure;
use crate::machine::Machine;
use crate::plan::{Contender, Plan};
use crate::plot::{Bars, bars};

/// What is told of a measurement as soon as it is there.
const IN_SHORT: [&str; 12] = [
    "messages_per_s",
    "deliveries_per_s",
    "p50_ms",
    "p99_ms",
    "cpu_us_per_delivery",
    "cpu_server_us_per_delivery",
    "lost",
    "memory_kib_per_connection",
    "cpu_us_per_connect",
    "back_all_ms",
    "first_missed_p50_ms",
    "items_per_s",
];

pub fn in_short(figures: &Figures) -> String {
    let told =
        IN_SHORT.iter().filter_map(|name| Some(format!("{name} {}", shown(figures.get(name)?))));
    told.collect::<Vec<String>>().join(", ")
}

pub fn write_round(
    out: &Path,
    round: usize,
    machine: &Machine,
    measured: &[Measured],
) -> Result<(), Failure> {
    let measured: Vec<Value> = measured.iter().map(Measured::as_json).collect();
    let page = json!({ "round": round, "of": machine.as_json(), "measured": measured });
    Ok(fs::write(out.join(format!("round-{round}.json")), format!("{page:#}\n"))?)
}

/// The middle of all rounds.
pub struct Medians(Vec<Measured>);

impl Medians {
    pub fn of(rounds: &[Vec<Measured>]) -> Medians {
        let Some(first) = rounds.first() else { return Medians(Vec::new()) };
        let median = |one: &Measured| {
            let same =
                |other: &&Measured| other.shape == one.shape && other.contender == one.contender;
            let all = rounds.iter().flatten().filter(same).map(|found| found.figures.clone());
            Measured { figures: Figures::median(&all.collect::<Vec<_>>()), ..one.clone() }
        };
        Medians(first.iter().map(median).collect())
    }

    pub fn get(&self, shape: &str, contender: Contender, figure: &str) -> Option<f64> {
        let name = contender.name();
        let found = self.0.iter().find(|one| one.shape == shape && one.contender == name)?;
        found.figures.get(figure)
    }

    fn shapes(&self) -> Vec<&str> {
        let mut shapes: Vec<&str> = Vec::new();
        for one in &self.0 {
            if !shapes.contains(&one.shape.as_str()) {
                shapes.push(&one.shape);
            }
        }
        shapes
    }

    fn of_shape(&self, shape: &str) -> Vec<&Measured> {
        self.0.iter().filter(|one| one.shape == shape).collect()
    }
}

pub fn write(
    out: &Path,
    machine: &Machine,
    plan: Plan,
    rounds: &[Vec<Measured>],
    growth: bool,
) -> Result<(), Failure> {
    let medians = Medians::of(rounds);
    let title = if growth { "Growth" } else { "Benchmarks" };
    let mut page = format!(
        "# {title}\n\n<!-- Written by `make bench`. -->\n\nMedians of {} rounds, every contender in turn.\n{}.\nRaw figures stand in `round-*.json`, what the figures mean in [performance](../../performance.md).\n",
        rounds.len(),
        machine.as_text(),
    );
    if !growth {
        page.push_str(&goals(plan, &medians));
        for (name, plot) in plots(plan, &medians) {
            fs::write(out.join(&name), plot)?;
            let _ = write!(page, "\n![{name}]({name})\n");
        }
    }
    for shape in medians.shapes() {
        page.push_str(&table(shape, &medians.of_shape(shape)));
    }
    Ok(fs::write(out.join("README.md"), page)?)
}

/// A column a contender, a line a figure.
fn table(shape: &str, all: &[&Measured]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in all.iter().flat_map(|one| one.figures.iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut table = format!("\n## {shape}\n\n| |");
    for one in all {
        let _ = write!(table, " {} |", one.contender);
    }
    let _ = writeln!(table, "\n|---|{}", "---:|".repeat(all.len()));
    for name in names {
        let _ = write!(table, "| {name} |");
        for one in all {
            let value = one.figures.get(name).map_or_else(|| "–".to_owned(), shown);
            let _ = write!(table, " {value} |");
        }
        table.push('\n');
    }
    table
}

/// What is wanted, and what was found.
fn goals(plan: Plan, medians: &Medians) -> String {
    use Contender::{PgFloor, Tidings, WsFloor};
    let get = |shape: &str, contender, figure: &str| medians.get(shape, contender, figure);
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?).filter(|ratio| ratio.is_finite());
    let mut lines = Vec::new();
    let mut line = |what: String, found: Option<f64>, goal: &str| {
        if let Some(found) = found {
            lines.push(format!("| {what} | {} | {goal} |", shown(found)));
        }
    };
    let idle = plan.idle().to_string();
    let memory = get(&idle, Tidings(1), "memory_kib_per_connection");
    line("memory of an idle WebSocket, KiB".to_owned(), memory, "≤ 10 (6)");
    line(
        "idle replica, % of a core".to_owned(),
        get(&idle, Tidings(1), "idle_server_percent"),
        "< 1",
    );
    let steady = plan.fanout(Some(100)).to_string();
    let cpu = |contender| get(&steady, contender, "cpu_server_us_per_delivery");
    let found = ratio(cpu(Tidings(1)), cpu(WsFloor));
    line(
        "fan-out at 100/s: CPU of the replica a delivery, × ws-floor".to_owned(),
        found,
        "≤ 1.3 (1.0)",
    );
    let limit = plan.fanout(None).to_string();
    let rate = |contender| get(&limit, contender, "deliveries_per_s");
    let found = ratio(rate(Tidings(1)), rate(WsFloor));
    line("fan-out to the limit: deliveries/s, × ws-floor".to_owned(), found, "≥ 2 (3)");
    for rate in [500, 2_000, 5_000] {
        let shape = plan.unicast(Some(rate)).to_string();
        for (figure, goal) in [("p50_ms", "≤ 1.5 (1.2)"), ("p99_ms", "≤ 2 (1.5)")] {
            for replicas in [1, 3] {
                let of = |contender| get(&shape, contender, figure);
                let found = ratio(of(Tidings(replicas)), of(PgFloor));
                let what = format!("unicast {rate}/s, {replicas} replicas: {figure}, × pg-floor");
                line(what, found, goal);
            }
        }
    }
    let shape = plan.unicast(Some(5_000)).to_string();
    let cpu = |contender| get(&shape, contender, "cpu_us_per_message");
    let floors = cpu(PgFloor).zip(cpu(WsFloor)).map(|(pg, ws)| pg + ws);
    for replicas in [1, 3] {
        let found = ratio(cpu(Tidings(replicas)), floors);
        let what = format!(
            "unicast 5,000/s, {replicas} replicas: CPU of replicas and Postgres a message, × both floors"
        );
        line(what, found, "≤ 1.3 (1.1)");
    }
    let shape = plan.unicast(None).to_string();
    let rate = |contender| get(&shape, contender, "messages_per_s");
    let found = ratio(rate(Tidings(1)), rate(WsFloor));
    line("unicast to the limit: messages/s, × ws-floor".to_owned(), found, "≥ 0.3 (0.5)");
    line(
        "the same, three replicas, × one".to_owned(),
        ratio(rate(Tidings(3)), rate(Tidings(1))),
        "≥ 0.8",
    );
    let batches = get(&plan.batches().to_string(), Tidings(1), "messages_per_s");
    line(
        "the same, 100 messages a request, × pg-floor".to_owned(),
        ratio(batches, rate(PgFloor)),
        "≥ 0.5 (0.8)",
    );
    let recovery = plan.recovery().to_string();
    for figure in ["first_missed_p50_ms", "first_missed_max_ms"] {
        line(format!("back after 3 s: {figure}"), get(&recovery, Tidings(3), figure), "≤ 10 (2)");
    }
    let reconnect = get(&plan.reconnect().to_string(), Tidings(1), "back_all_ms");
    line("5,000 return at once: all caught up, ms".to_owned(), reconnect, "≤ 3,000 (1,000)");
    format!("\n## Goals\n\n| | found | goal (beyond) |\n|---|---:|---:|\n{}\n", lines.join("\n"))
}

fn plots(plan: Plan, medians: &Medians) -> Vec<(String, String)> {
    use Contender::{PgFloor, Tidings, WsFloor};
    let series =
        |figure: &str, contenders: &[Contender], rates: &[u32], of: &dyn Fn(u32) -> String| {
            let value = |contender: &Contender, rate: &u32| {
                medians.get(&of(*rate), *contender, figure).unwrap_or_default()
            };
            contenders
                .iter()
                .map(|contender| {
                    (contender.name(), rates.iter().map(|rate| value(contender, rate)).collect())
                })
                .collect::<Vec<(String, Vec<f64>)>>()
        };
    let (fans, ones) = ([10, 50, 100], [500, 2_000, 5_000]);
    let fanout = |rate: u32| plan.fanout(Some(rate)).to_string();
    let unicast = |rate: u32| plan.unicast(Some(rate)).to_string();
    let mut plots = Vec::new();
    let mut plot = |name: &str, title: &str, labels: &[u32], series: Vec<(String, Vec<f64>)>| {
        let labels = labels.iter().map(|rate| format!("{rate}/s")).collect();
        if series.iter().any(|(_, values)| values.iter().any(|value| *value > 0.0)) {
            plots.push((
                format!("{name}.svg"),
                bars(&Bars { title: title.to_owned(), labels, series }),
            ));
        }
    };
    let both = [WsFloor, Tidings(1)];
    let cpu = series("cpu_server_us_per_delivery", &both, &fans, &fanout);
    plot("fanout-cpu", "Fan-out: CPU of the server, µs a delivery", &fans, cpu);
    plot("fanout-p99", "Fan-out: p99, ms", &fans, series("p99_ms", &both, &fans, &fanout));
    let durable = [PgFloor, Tidings(1), Tidings(3)];
    for (figure, name) in [("p50_ms", "p50"), ("p99_ms", "p99")] {
        let title = format!("Unicast: {name}, ms");
        plot(&format!("unicast-{name}"), &title, &ones, series(figure, &durable, &ones, &unicast));
    }
    let all = [WsFloor, PgFloor, Tidings(1), Tidings(3)];
    let cpu = series("cpu_us_per_message", &all, &ones, &unicast);
    plot("unicast-cpu", "Unicast: CPU of all servers, µs a message", &ones, cpu);
    plots
}

/// Three digits that say something.
pub fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
