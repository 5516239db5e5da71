//! What the server's processes cost, as the kernel tells it. Linux only; elsewhere nothing is told.

use std::fs;

use super::Figures;

/// Ticks a second in which Linux tells processor time, on every machine it runs on.
const TICKS_PER_S: f64 = 100.0;

/// Processes that are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub pids: Vec<u32>,
    /// Whether their children count too, also those that have ended: a Postgres is its postmaster
    /// and a backend for each connection.
    pub children: bool,
}

/// All that serve what is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes(pub Vec<Group>);

/// Processor seconds of each group since they began.
#[derive(Clone, Debug)]
pub struct Spent(Vec<f64>);

impl Processes {
    pub fn spent(&self) -> Spent {
        Spent(self.0.iter().map(Group::spent_s).collect())
    }

    /// What was spent since: of each group, and the sum of them.
    pub fn since(&self, before: &Spent) -> (Vec<(&str, f64)>, f64) {
        let now = self.spent();
        let each = self.0.iter().zip(now.0.iter().zip(&before.0));
        let each: Vec<(&str, f64)> =
            each.map(|(group, (now, before))| (group.name.as_str(), now - before)).collect();
        let sum = each.iter().map(|(_, spent)| spent).sum();
        (each, sum)
    }

    /// Adds what was spent since, by so many of something.
    pub fn tell(&self, before: &Spent, count: u64, of: &str, figures: &mut Figures) {
        if self.0.is_empty() {
            return;
        }
        let (each, sum) = self.since(before);
        for (name, spent) in &each {
            figures.add(format!("cpu_{name}_s"), *spent);
        }
        if count > 0 {
            for (name, spent) in &each {
                figures.add(format!("cpu_{name}_us_per_{of}"), spent * 1e6 / count as f64);
            }
            figures.add(format!("cpu_us_per_{of}"), sum * 1e6 / count as f64);
        }
    }

    /// Memory of the first group, in KiB, what is shared with others divided among them.
    pub fn memory_kib(&self) -> Option<f64> {
        let group = self.0.first()?;
        group.pids.iter().map(|pid| memory_kib(*pid)).sum()
    }
}

impl Group {
    pub fn server(pids: Vec<u32>) -> Group {
        Group { name: "server".to_owned(), pids, children: false }
    }

    /// By the process that its backends are children of.
    pub fn postgres(postmaster: u32) -> Group {
        Group { name: "postgres".to_owned(), pids: vec![postmaster], children: true }
    }

    fn spent_s(&self) -> f64 {
        let mut ticks = 0.0;
        for pid in &self.pids {
            ticks += ticks_of(*pid, self.children);
            if self.children {
                ticks += children(*pid).into_iter().map(|child| ticks_of(child, true)).sum::<f64>();
            }
        }
        ticks / TICKS_PER_S
    }
}

/// The name stands in brackets and may hold anything, so what follows the last one is read.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(')')?.1;
    Some(rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
}

/// Of it alone, or with its children that were waited for.
fn ticks_of(pid: u32, children: bool) -> f64 {
    // utime and stime are the 14th and 15th field of all, cutime and cstime follow.
    let last = if children { 14 } else { 12 };
    let Some(fields) = stat(pid) else { return 0.0 };
    fields.get(11..=last).unwrap_or_default().iter().map(|ticks| *ticks as f64).sum()
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&u64::from(parent))))
        .collect()
}

fn memory_kib(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn own() -> Processes {
        Processes(vec![Group::server(vec![std::process::id()])])
    }

    #[test]
    fn what_a_process_spends_is_seen() {
        let own = own();
        let before = own.spent();
        let mut sum = 0_u64;
        while own.since(&before).1 < 0.05 {
            sum = (0..100_000).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert_ne!(sum, 1);
        let mut figures = Figures::default();
        own.tell(&before, 10, "message", &mut figures);
        assert!(figures.get("cpu_server_s").unwrap() >= 0.05);
        assert!(figures.get("cpu_us_per_message").unwrap() >= 5_000.0);
    }

    #[test]
    fn memory_is_told_and_of_who_is_gone_nothing_is() {
        assert!(own().memory_kib().unwrap() > 100.0);
        assert_eq!(Processes::default().memory_kib(), None);
        assert!(ticks_of(u32::MAX, true) == 0.0);
    }
}
