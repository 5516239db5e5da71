//! What documents name exists: commands, files, tests, parts, metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Documents whose every command and file is to be there.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/comparison.md",
    "docs/concepts.md",
    "docs/kubernetes.md",
    "docs/limits.md",
    "docs/moving.md",
    "docs/operations.md",
    "docs/quickstart.md",
    "docs/security.md",
    "docs/sql.md",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands in backticks in a line of prose.
fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (fenced, block) in text.split("```").enumerate() {
        if fenced % 2 == 0 {
            found.extend(block.split('`').skip(1).step_by(2).map(str::to_owned));
        } else {
            // A block of commands: what follows `#` is a remark.
            let lines = block.lines().map(|line| line.split(" #").next().unwrap().trim());
            found.extend(lines.map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_make_target_that_is_named_exists() {
    let targets: BTreeSet<String> =
        read("Makefile").lines().filter_map(|line| Some(line.split_once(": ")?.0.into())).collect();
    let mut named = 0;
    for document in DOCUMENTS {
        for command in quoted(&read(document)) {
            let Some(target) = command.strip_prefix("make ") else { continue };
            named += 1;
            assert!(targets.contains(target), "{document}: there is no `make {target}`");
        }
    }
    assert!(named >= 4, "the commands are not found any more");
}

#[test]
fn every_subcommand_that_is_named_exists() {
    let mut named = 0;
    for document in DOCUMENTS {
        for command in quoted(&read(document)) {
            let Some(rest) = command.strip_prefix("tidings ") else { continue };
            let name = rest.split_whitespace().next().unwrap();
            let mut asked = Command::new(env!("CARGO_BIN_EXE_tidings"));
            let output = asked.args([name, "--help"]).output().unwrap();
            named += 1;
            assert!(output.status.success(), "{document}: there is no `tidings {name}`");
        }
    }
    assert!(named >= 1, "the commands are not found any more");
}

#[test]
fn every_file_that_is_named_exists() {
    let roots = ["src/", "sql/", "tests/", "docs/"];
    for document in DOCUMENTS {
        for name in quoted(&read(document)) {
            // `src/part.rs` stands for any part.
            let is_path = roots.iter().any(|root| name.starts_with(root));
            if is_path && !name.starts_with("src/part") {
                assert!(path(&name).exists(), "{document}: there is no {name}");
            }
        }
    }
}

/// `[`name`](tests/file.rs)`: the promise of the README and the test that tries to break it.
#[test]
fn every_test_that_is_named_exists() {
    let mut named = 0;
    for document in DOCUMENTS {
        for link in read(document).split("[`").skip(1) {
            let Some((name, rest)) = link.split_once("`](") else { continue };
            let file = rest.split(')').next().unwrap();
            let test = if file.ends_with(".mjs") {
                // The name of one that runs over both ways, or in both themes, goes on.
                name.to_owned()
            } else if file.starts_with("tests/") {
                format!("fn {name}(")
            } else {
                continue;
            };
            named += 1;
            assert!(read(file).contains(&test), "{document}: {file} has no test {name}");
        }
    }
    assert!(named >= 10, "the promises are not found any more");
}

#[test]
fn the_map_shows_every_part() {
    let map = read("ARCHITECTURE.md");
    for line in read("src/lib.rs").lines() {
        let Some(part) = line.strip_prefix("pub mod ").map(|part| part.trim_end_matches(';'))
        else {
            continue;
        };
        let entry = format!("[{part}](src/{part}.rs)");
        assert!(map.contains(&entry), "ARCHITECTURE.md: the map lacks {entry}");
    }
}

/// The catalogue is read as it is written: a page of metrics leaves out what was never counted.
#[test]
fn the_page_of_operations_lists_every_metric() {
    const BEGIN: &str =
        "<!-- metrics: written from src/metrics.rs by `UPDATE_DOCS=1 cargo test --test docs` -->\n";
    const END: &str = "<!-- /metrics -->";
    let mut table = "\n| Metric | Type | What it says |\n|---|---|---|\n".to_owned();
    let source = read("src/metrics.rs");
    for part in source.split("\npart! {").skip(1) {
        let part = part.split("\n}").next().unwrap();
        for entry in part.split(';') {
            let texts: Vec<&str> = entry.split('"').skip(1).step_by(2).collect();
            let Some([name, help]) = texts.last_chunk::<2>() else { continue };
            let kind = ["Counter", "Gauge", "Histogram"];
            let kind = kind.iter().find(|kind| entry.contains(**kind)).expect("a known type");
            let total = if *kind == "Counter" { "_total" } else { "" };
            let label = entry.split("Family<").nth(1).and_then(|rest| rest.split(',').next());
            let label = label.map(|label| format!("{{{}}}", label.to_lowercase()));
            let (label, kind) = (label.unwrap_or_default(), kind.to_lowercase());
            table += &format!("| `tidings_{name}{total}{label}` | {kind} | {help} |\n");
        }
    }
    table += "| `tidings_delivery_seconds` | histogram | From the commit of a message to the queues of the sessions |\n\n";
    assert!(source.contains("registry.register(\"delivery_seconds\""));
    let page = read("docs/operations.md");
    let (before, rest) = page.split_once(BEGIN).expect("the beginning of the list is marked");
    let (_, after) = rest.split_once(END).expect("the end of the list is marked");
    let right = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path("docs/operations.md"), &right).unwrap();
    } else {
        assert!(page == right, "docs/operations.md is out of date: run this with UPDATE_DOCS=1");
    }
}

/// What stands in backticks and looks like a setting is one, where pages speak of settings.
#[test]
fn every_setting_that_is_named_exists() {
    let known: BTreeSet<&str> = tidings::config::SETTINGS.iter().map(|one| one.key).collect();
    let ends = ["_max", "_s", "_ms", "_bytes", "_listen", "_url", "_secret", "_file", "_origins"];
    // Of messages, requests and frames, and of Postgres.
    let others = [
        "ttl_s",
        "wait_s",
        "lease_s",
        "item_timeout_s",
        "delay_ms",
        "heartbeat_s",
        "retry_after_ms",
    ];
    let mut named = 0;
    for document in DOCUMENTS {
        for word in quoted(&read(document)) {
            let is_word = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !is_word
                || word.starts_with("tidings_")
                || others.contains(&word.as_str())
                || !ends.iter().any(|end| word.ends_with(end))
            {
                continue;
            }
            named += 1;
            assert!(known.contains(word.as_str()), "{document}: there is no setting {word}");
        }
    }
    assert!(named >= 20, "the settings are not found any more");
}

/// Every source file, one after the other, each piece of white space as one blank.
fn sources() -> String {
    let mut open = vec![path("src")];
    let mut all = String::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                open.push(file);
            } else if file.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(file).unwrap();
                all.extend(text.split_whitespace().flat_map(|word| [word, " "]));
            }
        }
    }
    all
}

#[test]
fn every_line_of_the_log_that_is_told_is_written_with_its_fields() {
    let sources = sources();
    let page = read("docs/operations.md");
    let (_, table) = page.split_once("| `message` | `level` | Fields |").expect("the list");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| "));
    let mut told = 0;
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let (message, level) = (cells[0].trim_start_matches("| "), cells[1].to_lowercase());
        // As it stands in a macro: the level, the fields, the message. Other texts may be the same.
        let ends = [format!("\"{message}\" )"), format!("\"{message}\")")];
        let begin = format!("tracing::{level}!(");
        let places = ends.iter().flat_map(|end| sources.match_indices(end.as_str()));
        let is_written = places.into_iter().any(|(at, _)| {
            let Some((_, written)) = sources[..at].rsplit_once(&begin) else { return false };
            let has = |field: &String| written.contains(field.as_str());
            // Not across the end of that macro.
            !written.contains("; ") && quoted(cells[2]).iter().all(has)
        });
        assert!(is_written, "nobody logs this, at that level, with those fields: {row}");
        told += 1;
    }
    assert!(told > 10);
}
