//! One command for one item: what is run, for how long, and what became of it.
//!
//! A command has a process group of its own, so that what it started goes with it, and a Ctrl-C on
//! the terminal reaches the worker alone. It reads nothing, what it prints goes nowhere, and of what
//! it complains the last lines are kept.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::client::{Item, Task};

const ITEM: &str = "{item}";

/// How much of what it complains is kept; the server keeps 500 bytes of an error.
const COMPLAINT_BYTES_MAX: usize = 440;

/// Once it has ended, how long its complaints are read: what it left behind may keep them open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is run for each item.
#[derive(Clone, Debug)]
pub struct Template {
    program: String,
    args: Vec<String>,
    /// Arguments from here on are no options to whoever honours `--`.
    operands: usize,
    shell: bool,
}

impl Template {
    pub fn new(words: &[String], shell: bool) -> Result<Template, String> {
        let Some((program, args)) = words.split_first() else {
            return Err("name a command after --".to_owned());
        };
        if shell {
            if !args.is_empty() {
                return Err("with --shell the command is one text: quote it".to_owned());
            }
            if program.contains(ITEM) {
                let advice = "a shell would read the item as part of the command";
                return Err(format!("{advice}: write \"$TIDINGS_ITEM\" instead of {ITEM}"));
            }
            let args = vec!["-c".to_owned(), program.clone()];
            return Ok(Template { program: "sh".to_owned(), args, operands: 0, shell });
        }
        if program.contains(ITEM) {
            return Err("an item may not name the program: give it as an argument".to_owned());
        }
        let operands = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        Ok(Template { program: program.clone(), args: args.to_vec(), operands, shell })
    }

    /// The arguments for an item, unless it would be taken for something else than a name.
    fn args(&self, item: &str) -> Result<Vec<String>, String> {
        let taken = |arg: &String| arg.starts_with(ITEM) && item.starts_with('-');
        if !self.shell && self.args.iter().take(self.operands).any(taken) {
            return Err("the command would take this name for an option; \
                write `--` before it, or `--name={item}`"
                .to_owned());
        }
        let filled = |arg: &String| if self.shell { arg.clone() } else { arg.replace(ITEM, item) };
        Ok(self.args.iter().map(filled).collect())
    }

    fn command(&self, task: &Task, item: &Item) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        command.args(self.args(&item.name)?);
        command.env("TIDINGS_TASK", &task.id).env("TIDINGS_ACTION", &task.action);
        command.env("TIDINGS_ATTEMPT", task.attempt.to_string()).env("TIDINGS_ITEM", &item.name);
        match &item.data {
            Some(data) => command.env("TIDINGS_DATA", data.get()),
            None => command.env_remove("TIDINGS_DATA"),
        };
        // It is the worker's, and would end up in some command's complaint.
        command.env_remove("TIDINGS_TOKEN");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0);
        Ok(command)
    }
}

/// Runs a command to its end. Dropped before, it takes the command with it.
pub async fn run(
    template: &Template,
    task: &Task,
    item: &Item,
    within: Duration,
) -> Result<(), String> {
    let mut command = template.command(task, item)?;
    let started = command.spawn();
    let mut child =
        started.map_err(|error| format!("{} cannot be started: {error}", template.program))?;
    let mut complaint = Complaint::default();
    let group = Group::of(&child);
    let mut stderr = child.stderr.take();
    let ended = timeout(within, async {
        tokio::select! {
            ended = child.wait() => ended,
            // It reads to the end, which may come before or after that of the command.
            never = complaint.read(&mut stderr) => match never {},
        }
    })
    .await;
    let Ok(ended) = ended else {
        drop(group);
        // Nothing is left to wait for: it was killed.
        let _ = child.wait().await;
        return Err(complaint.after(&format!("it took longer than {within:?}")));
    };
    group.spare();
    let status = ended.map_err(|error| format!("it was lost sight of: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let _ = timeout(LAST_WORDS, complaint.read_to_end(&mut stderr)).await;
    Err(complaint.after(&ending(status)))
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended in a way of its own".to_owned(),
    }
}

/// The process group of a command, killed when this is dropped unless it was spared.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Group(id.and_then(Pid::from_raw))
    }

    /// The command has ended by itself; what it left behind was meant to stay.
    fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Whoever is gone already needs no signal.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The end of what a command writes to standard error.
#[derive(Default)]
struct Complaint {
    bytes: Vec<u8>,
}

impl Complaint {
    /// Reads for as long as it is polled.
    async fn read(&mut self, from: &mut Option<ChildStderr>) -> std::convert::Infallible {
        self.read_to_end(from).await;
        std::future::pending().await
    }

    async fn read_to_end(&mut self, from: &mut Option<ChildStderr>) {
        let Some(open) = from else { return };
        let mut buffer = [0; 8 << 10];
        while let Ok(read @ 1..) = open.read(&mut buffer).await {
            self.bytes.extend_from_slice(&buffer[..read]);
            let over = self.bytes.len().saturating_sub(COMPLAINT_BYTES_MAX);
            self.bytes.drain(..over);
        }
        *from = None;
    }

    /// What became of it, and its last whole lines.
    fn after(&self, ending: &str) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim();
        let cut = self.bytes.len() >= COMPLAINT_BYTES_MAX;
        let whole = if cut { text.split_once('\n').map_or(text, |(_, rest)| rest) } else { text };
        if whole.is_empty() { ending.to_owned() } else { format!("{ending}: {whole}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(words: &[&str], shell: bool) -> Result<Template, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Template::new(&words, shell)
    }

    #[test]
    fn an_item_is_an_argument_and_never_a_program_an_option_or_a_script() {
        let args = |words: &[&str], item: &str| template(words, false).unwrap().args(item);
        assert_eq!(args(&["ping", "-c1", "{item}"], "a b;c").unwrap(), ["-c1", "a b;c"]);
        assert_eq!(args(&["x", "--n={item}", "{item}/{item}"], "a").unwrap(), ["--n=a", "a/a"]);
        assert!(args(&["rm", "{item}"], "-rf").unwrap_err().contains("option"));
        assert_eq!(args(&["rm", "--", "{item}"], "-rf").unwrap(), ["--", "-rf"]);
        assert_eq!(args(&["x", "--n={item}"], "-rf").unwrap(), ["--n=-rf"]);
        assert!(template(&["{item}"], false).is_err());
        assert!(template(&["echo {item}"], true).unwrap_err().contains("$TIDINGS_ITEM"));
        assert!(template(&["echo", "a"], true).is_err());
        assert!(template(&[], false).is_err());
        let shell = template(&["echo \"$TIDINGS_ITEM\""], true).unwrap();
        assert_eq!(shell.args("-x").unwrap()[0], "-c");
    }

    #[test]
    fn of_a_long_complaint_the_last_whole_lines_are_kept() {
        let said = |text: &str| {
            let from = text.len().saturating_sub(COMPLAINT_BYTES_MAX);
            Complaint { bytes: text.as_bytes()[from..].to_vec() }.after("exit code 1")
        };
        assert_eq!(said(""), "exit code 1");
        assert_eq!(said("no\nsuch node\n"), "exit code 1: no\nsuch node");
        let long: String = (0..1_000).map(|line| format!("line {line}\n")).collect();
        let kept = said(&long);
        assert!(kept.len() < 460 && kept.ends_with("line 998\nline 999"), "{kept}");
        assert!(kept.starts_with("exit code 1: line 9"), "{kept}");
    }
}
