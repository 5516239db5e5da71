//! Every line that the README and the quickstart tell to type is typed here, by a shell, and does what
//! it is for. Addresses are put in their stead; what needs an engine or a cluster says so in its fence.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::fleet::{PATIENCE, Replica, three, until_live};
use crate::follower::{Follower, Way};
use crate::harness;
use crate::programs;

struct Block {
    kind: String,
    text: String,
    line: usize,
}

/// The blocks of a page, or of one of its sections.
fn blocks(page: &str, section: Option<&str>) -> Vec<Block> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut found = Vec::new();
    let mut inside = section.is_none();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            inside = section.is_none_or(|section| section == title);
        }
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(line, _)| line)
            .take_while(|line| !line.starts_with("```"))
            .collect();
        if inside {
            let text = body.join("\n");
            found.push(Block { kind: kind.to_owned(), text, line: number });
        }
    }
    found
}

/// One shell, in which a page is typed from its beginning to its end.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    environment: Vec<(String, String)>,
}

impl Shell {
    fn open(environment: &[(&str, &str)]) -> Shell {
        // `tidings` is the binary of this build; curl fails if it is refused.
        let program = Path::new(env!("CARGO_BIN_EXE_tidings")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut all = vec![("PATH".to_owned(), format!("{}:{path}", program.display()))];
        all.extend(
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let mut command = Command::new("sh");
        command.envs(all.clone()).env_remove("DATABASE_URL").kill_on_drop(true).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Shell { child, input, output, environment: all }
    }

    /// Types lines and returns what they say, when they are done and went well.
    async fn runs(&mut self, text: &str) -> String {
        let wrapped = format!(
            "curl() {{ command curl -sS --fail-with-body \"$@\"; }}; set -e\n{text}\nset +e\necho; echo \"@@done\"\n"
        );
        self.input.write_all(wrapped.as_bytes()).await.unwrap();
        let mut said = String::new();
        loop {
            let line = timeout(PATIENCE, self.output.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("it hangs: {text}\n{said}")).unwrap();
            let line = line.unwrap_or_else(|| panic!("it failed: {text}\n{said}"));
            if line == "@@done" {
                return said;
            }
            said += &line;
            said.push('\n');
        }
    }

    /// Something that has no end, in a terminal of its own; returns once it has begun.
    async fn follows(&self, text: &str) -> Stream {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {text} -sS")]).envs(self.environment.clone());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stream = Stream { _child: child, lines };
        stream.says("welcome").await;
        stream
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // What it has left in the background belongs to its group.
        if let Some(id) = self.child.id() {
            let _ =
                std::process::Command::new("sh").args(["-c", &format!("kill -9 -{id}")]).status();
        }
    }
}

struct Stream {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stream {
    async fn says(&mut self, what: &str) {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("it never says {what}")).unwrap();
            if line.unwrap_or_else(|| panic!("it ended before it said {what}")).contains(what) {
                return;
            }
        }
    }
}

fn put(text: &str, instead: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (told, own) in instead {
        text = text.replace(told, own);
    }
    text
}

/// Types a block; what follows a stream is followed on.
async fn typed(
    shell: &mut Shell,
    block: &Block,
    instead: &BTreeMap<String, String>,
    streams: &mut Vec<Stream>,
) {
    let text = put(&block.text, instead);
    let mut together = String::new();
    for line in text.lines() {
        if line.starts_with("curl -N") {
            shell.runs(&std::mem::take(&mut together)).await;
            streams.push(shell.follows(line).await);
        } else {
            together += line;
            together.push('\n');
        }
    }
    let said = shell.runs(&together).await;
    assert!(!said.contains("/problems/"), "line {}: {said}", block.line);
}

fn address(replica: &Replica) -> String {
    replica.url.strip_prefix("http://").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_tells_to_type_does_what_it_says() {
    let url = harness::database_url().await;
    let fleet = three(&url, &[]).await;
    until_live(&fleet).await;
    let begin = fleet[0].publish(&json!({"topic": "begin", "data": 0})).await;
    let cursor = begin["messages"][0]["cursor"].as_str().unwrap();
    let mut instead: BTreeMap<String, String> =
        (1..=3).map(|n| (format!("127.0.0.1:808{n}"), address(&fleet[n - 1]))).collect();
    instead.insert("<id>".to_owned(), cursor.to_owned());
    // Any command does for each item; not every machine has this one.
    instead.insert("-- ping -c1 {item}".to_owned(), "-- echo {item} 2>/dev/null".to_owned());
    instead.insert("tidings check ".to_owned(), "tidings check --seconds 2 ".to_owned());
    let shop = harness::connect(&url).await;
    shop.batch_execute(
        "create table orders (id int, step text); insert into orders values (7, '')",
    )
    .await
    .unwrap();
    let mut shell = Shell::open(&[]);
    let (mut streams, mut kinds) = (Vec::new(), Vec::new());
    for block in blocks("README.md", None) {
        match block.kind.as_str() {
            // tests/it/demo.rs and whoever runs this test type the first two; the third is `serve --dev`.
            "sh" if block.text.lines().all(|line| line.starts_with("make ")) => {}
            "sh" => typed(&mut shell, &block, &instead, &mut streams).await,
            "sql" => shop.batch_execute(&block.text).await.unwrap(),
            // Nobody types this: tests/browser opens examples/progress.html, which uses the client so.
            "js" => {}
            other => panic!("README.md:{}: nobody types `{other}`", block.line),
        }
        kinds.push(block.kind);
    }
    assert!(kinds.len() >= 8, "the blocks are not found any more");
    // Who has followed since the beginning has what came from a shell and from SQL.
    streams[0].says(r#""kind":null"#).await;
    streams[0].says(r#""kind":"shipped""#).await;
    // The one that came back too, though it was not there; and a task has told its end.
    streams[1].says(r#""kind":"shipped""#).await;
    streams[2].says("task.finished").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_in_memory_does_what_it_says() {
    let blocks = blocks("docs/quickstart.md", Some("In memory"));
    assert_eq!(blocks[0].text, "make run");
    let makefile = include_str!("../../Makefile");
    assert!(makefile.contains(
        "\nrun: ## One replica in memory at http://127.0.0.1:8080\n\t$(CARGO) run -- serve --dev\n"
    ));
    let replica = Replica::in_memory("one", &[]).await;
    let instead = [("127.0.0.1:8080".to_owned(), address(&replica))].into();
    let mut shell = Shell::open(&[]);
    let mut streams = Vec::new();
    for block in &blocks[1..] {
        typed(&mut shell, block, &instead, &mut streams).await;
    }
    streams[0].says(r#""step":"packed""#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_on_postgres_does_what_it_says() {
    if programs::find("psql", "postgresql-client").is_none() {
        return;
    }
    let url = harness::empty_database_url();
    let (one, two) = (programs::free_port(), programs::free_port());
    let instead: BTreeMap<String, String> = [
        ("postgres://postgres@127.0.0.1:5432/postgres".to_owned(), url),
        ("127.0.0.1:8081".to_owned(), format!("127.0.0.1:{one}")),
        ("127.0.0.1:8082".to_owned(), format!("127.0.0.1:{two}")),
    ]
    .into();
    let mut shell = Shell::open(&[]);
    let mut streams = Vec::new();
    for block in blocks("docs/quickstart.md", Some("On Postgres")) {
        typed(&mut shell, &block, &instead, &mut streams).await;
        if block.text.contains("serve") {
            // A person is slower than this shell.
            for port in [one, two] {
                crate::fleet::until("the replica is ready", async || {
                    let asked = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await;
                    asked.is_ok_and(|answer| answer.status().is_success())
                })
                .await;
            }
        }
    }
    streams[0].says(r#""step":"packed""#).await;
    streams[0].says(r#""step":"paid""#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_sql_does_what_it_says() {
    let url = harness::database_url().await;
    let replica = Replica::start("one", &url, &[]).await;
    let follower = Follower::start(Way::Sse, vec![replica.url.clone()], "order:*", None);
    follower.connected().await;
    let shop = harness::connect(&url).await;
    let blocks = blocks("docs/sql.md", None);
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        shop.batch_execute(&block.text).await.unwrap();
    }
    shop.batch_execute("insert into orders values (9, 'new')").await.unwrap();
    let seen = follower.has(3).await;
    let topics: Vec<&str> = seen.messages.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["order:7", "order:7", "order:9"]);
}

/// What is not typed says why, and there is no other reason.
#[test]
fn what_nobody_types_says_what_it_needs() {
    for page in ["README.md", "docs/quickstart.md", "docs/kubernetes.md"] {
        for block in blocks(page, None) {
            let (kind, needs) = block.kind.split_once(' ').unwrap_or((&block.kind, ""));
            let needs_engine = block.text.contains("docker ") || block.text.contains("kubectl ");
            let is_beside = block.text.contains("demo-key");
            assert_eq!(
                !needs.is_empty(),
                needs_engine || is_beside,
                "{page}:{}: {kind} {needs}",
                block.line
            );
        }
    }
}
