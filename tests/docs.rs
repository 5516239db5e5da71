//! What documents name exists: commands, files, tests, parts, metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Documents whose every command and file is to be there.
const DOCUMENTS: &[&str] =
    &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/operations.md"];

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
