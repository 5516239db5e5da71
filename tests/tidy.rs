//! What the compiler does not hold: who may know whom, how long a file may grow, what is never
//! written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part and what it may use, from the ground up; a part may only use what stands above it.
///
/// What follows a colon is the reason that a reader of a failure is given.
const EDGES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("notification", &["domain"]),
    ("frame", &["domain"]),
    ("metrics", &[]),
    ("supervise", &["metrics"]),
    ("wake", &[]),
    ("store", &["bus", "clock", "domain", "metrics", "notification"]),
    ("bus", &["domain", "metrics", "notification", "store"]),
    ("hub", &["domain", "frame", "metrics", "wake"]),
    ("spans", &["domain"]),
    (
        "log",
        &["bus", "clock", "domain", "frame", "hub", "metrics", "notification", "spans", "store"],
    ),
    ("feed", &["domain", "frame", "hub", "log", "metrics", "store"]),
    (
        "publish",
        &["bus", "domain", "log", "metrics", "notification", "spans", "store", "supervise"],
    ),
    ("recovery", &["domain", "log", "metrics", "notification", "store"]),
    ("notices", &["domain", "frame", "log", "metrics", "notification", "store"]),
    ("presence", &["domain", "metrics", "publish", "store"]),
    ("hosts", &[]),
    ("tasks", &["domain", "hosts", "log", "metrics", "notification", "store", "supervise"]),
    (
        "telemetry",
        &[
            "bus",
            "domain",
            "hosts",
            "log",
            "metrics",
            "notification",
            "publish",
            "store",
            "supervise",
        ],
    ),
    ("dsn", &[]),
    ("logging", &["clock", "config", "domain"]),
    ("config", &["domain", "dsn", "logging"]),
    ("auth", &["clock", "config", "domain"]),
    ("server", &["config", "metrics", "supervise", "wake"]),
    (
        "api",
        &[
            "auth",
            "bus",
            "clock",
            "domain",
            "feed",
            "frame",
            "hub",
            "log",
            "logging",
            "metrics",
            "notices",
            "presence",
            "publish",
            "server",
            "store",
            "supervise",
            "tasks",
            "telemetry",
            "wake",
        ],
    ),
    (
        "app",
        &[
            "api",
            "auth",
            "bus",
            "clock",
            "config",
            "domain",
            "dsn",
            "hosts",
            "hub",
            "log",
            "metrics",
            "notices",
            "presence",
            "publish",
            "recovery",
            "server",
            "store",
            "supervise",
            "tasks",
            "telemetry",
        ],
    ),
    ("cluster", &[]),
    ("client", &["domain"]),
    ("bench", &["client", "domain"]),
    ("check", &["client", "domain", "store"]),
    ("demo", &["client", "cluster"]),
    (
        "cli",
        &[
            "app", "auth", "bench", "bus", "check", "client", "clock", "cluster", "config", "demo",
            "domain", "dsn", "logging", "spans", "store",
        ],
    ),
];

/// Edges that somebody will want one day, and why not.
const REASONS: &[(&str, &str, &str)] = &[
    ("hub", "store", "the hub never waits, and a store makes one wait"),
    ("hub", "bus", "the hub knows sessions, the log knows replicas"),
    ("hub", "log", "the log drives the hub, never the other way round"),
    ("domain", "clock", "what is decided must not depend on when"),
    (
        "log",
        "publish",
        "what was published comes back through announcements, from whatever replica",
    ),
    (
        "publish",
        "hub",
        "a message reaches sessions through the log only, so that order has one place",
    ),
    ("tasks", "hub", "sessions hear of tasks through the log, like of everything else"),
    ("notices", "hub", "sessions hear of notices through the log, like of everything else"),
    ("notices", "feed", "a session puts the two together; neither knows the other"),
    ("store", "log", "the store keeps, it does not apply"),
];

/// Names of implementations, which only `app` may choose (and their own parts know).
const IMPLEMENTATIONS: &[&str] = &["PostgresStore", "MemoryStore", "PostgresBus", "MemoryBus"];

const LINES_MAX: usize = 500;

const NAMES_REFUSED: &[&str] = &["util", "utils", "common", "helpers", "types", "manager", "core"];

fn files(root: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(root)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_string_lossy().into_owned()
}

/// The part that a file under `src` belongs to; none for `lib.rs` and `main.rs`.
fn part(name: &str) -> Option<String> {
    let inner = name.strip_prefix("src/")?;
    let part = inner.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&part)).then(|| part.to_owned())
}

/// Code alone: whatever follows `//` on a line is prose.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap())
}

fn used(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut used = Vec::new();
    for line in code(text) {
        for rest in line.split("crate::").skip(1) {
            used.push(rest.chars().take_while(|c| is_name(*c)).collect());
        }
    }
    used.retain(|name: &String| !name.is_empty());
    used
}

#[test]
fn parts_use_only_what_they_may() {
    let table: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let (name, text) = (name(&path), fs::read_to_string(&path).unwrap());
        let Some(part) = part(&name) else { continue };
        let Some(allowed) = table.get(part.as_str()) else {
            wrong.push(format!("{name}: the part `{part}` is not in the table of tests/tidy.rs"));
            continue;
        };
        for other in used(&text) {
            if other == part || allowed.contains(&other.as_str()) {
                continue;
            }
            let reason = REASONS.iter().find(|(from, to, _)| *from == part && *to == other);
            let reason = reason.map_or("it is not in the table of tests/tidy.rs", |found| found.2);
            wrong.push(format!("{name}: {part} must not use {other}: {reason}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_app_chooses_implementations() {
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let (name, text) = (name(&path), fs::read_to_string(&path).unwrap());
        let own = part(&name).unwrap_or_default();
        if ["app", "store", "bus", "cli"].contains(&own.as_str()) || name.ends_with("tests.rs") {
            continue;
        }
        for implementation in IMPLEMENTATIONS {
            if code(&text).any(|line| line.contains(implementation)) {
                wrong.push(format!("{name} names {implementation}; take the contract instead"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_domain_needs_std_alone() {
    for path in files("src/domain", ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        for line in code(&text) {
            let foreign = ["tokio", "serde", "axum", "http::", "uuid", "Instant::now", "rand"];
            let found = foreign.iter().find(|name| line.contains(**name));
            assert!(found.is_none(), "{}: the domain decides, others do: {line}", name(&path));
        }
    }
}

#[test]
fn files_fit_the_head() {
    for root in ["src", "tests", "benches", "fuzz/src", "fuzz/targets"] {
        for path in files(root, ".rs") {
            let name = name(&path);
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{name} has {lines} lines: which second noun crept in?");
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(!NAMES_REFUSED.contains(&stem.as_str()), "{name}: that name says nothing");
            assert!(text.starts_with("//!"), "{name} does not say what it is");
        }
    }
}

/// Markdown is read by people who compare versions line by line.
#[test]
fn links_of_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = files("docs", ".md");
    documents.extend(
        fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "md")),
    );
    let mut wrong = Vec::new();
    for path in documents {
        let text = fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            if !path.parent().unwrap().join(file).exists() {
                wrong.push(format!("{}: {target} does not exist", name(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
