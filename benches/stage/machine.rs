//! What was measured and on what; nothing that names the machine.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::Failure;

#[derive(Clone, Debug)]
pub struct Machine {
    pub command: String,
    pub commit: String,
    pub cores: usize,
    pub processor: String,
    pub memory_gib: u64,
    pub kernel: String,
    pub postgres: String,
}

pub fn look() -> Result<Machine, Failure> {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().next().unwrap_or_default().parse().unwrap_or(0);
    let dirty = said("git", &["status", "--porcelain", "--", "src", "sql", "benches"]);
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The path of the program says nothing to others.
    let args: Vec<String> = std::env::args().skip(1).collect();
    Ok(Machine {
        command: format!("stage {}", args.join(" ")),
        commit: if dirty.is_some() { format!("{commit} and changes") } else { commit },
        cores: std::thread::available_parallelism()?.get(),
        processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
        memory_gib: kib.div_ceil(1 << 20),
        // What follows the number is somebody's own build.
        kernel: kernel.split('-').next().unwrap_or_default().trim().to_owned(),
        postgres: said("psql", &["--version"]).unwrap_or_default().replace("psql ", ""),
    })
}

impl Machine {
    pub fn as_json(&self) -> Value {
        json!({
            "command": self.command,
            "commit": self.commit,
            "cores": self.cores,
            "processor": self.processor,
            "memory_gib": self.memory_gib,
            "kernel": self.kernel,
            "postgres": self.postgres,
        })
    }

    pub fn as_text(&self) -> String {
        let Machine { command, commit, cores, processor, memory_gib, kernel, postgres } = self;
        format!(
            "`{command}` at commit {commit}; {cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, {postgres}, fsync on"
        )
    }
}
