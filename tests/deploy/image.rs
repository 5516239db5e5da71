//! The Dockerfile, read as far as its promises go: small, not root, found to be ready by itself.

use std::collections::BTreeMap;

use crate::{path, read, subcommand_exists};

/// One instruction, on one line.
struct Instruction {
    word: String,
    rest: String,
}

/// The stages of the Dockerfile; the first holds what stands before any.
fn stages() -> Vec<Vec<Instruction>> {
    let text = read("Dockerfile");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let mut stages = vec![Vec::new()];
    for line in joined.lines().filter(|line| !line.trim().is_empty()) {
        let (word, rest) = line.trim().split_once(' ').unwrap();
        if word == "FROM" {
            stages.push(Vec::new());
        }
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        stages.last_mut().unwrap().push(Instruction { word: word.to_owned(), rest });
    }
    stages
}

fn all<'a>(stage: &'a [Instruction], word: &str) -> Vec<&'a str> {
    let found = stage.iter().filter(|instruction| instruction.word == word);
    found.map(|instruction| instruction.rest.as_str()).collect()
}

fn list(text: &str) -> Vec<String> {
    let at = text.find('[').expect("the form that needs no shell: a list");
    serde_json::from_str(&text[at..]).unwrap()
}

#[test]
fn the_image_is_small_not_root_and_says_whether_it_is_ready() {
    let stages = stages();
    let last = stages.last().unwrap();
    assert_eq!(stages.len(), 3, "one stage builds, one is shipped");
    let user = all(last, "USER");
    let user: u32 = user.last().unwrap().split(':').next().unwrap().parse().expect("a number");
    assert_ne!(user, 0);
    assert!(all(last, "RUN").is_empty(), "there is no shell in it");
    let copied = all(last, "COPY");
    assert!(copied.iter().any(|copy| copy.starts_with("--from=build")), "{copied:?}");
    let entry = list(all(last, "ENTRYPOINT")[0]);
    let health = list(all(last, "HEALTHCHECK")[0]);
    assert_eq!(health[0], entry[0]);
    subcommand_exists(&health[1]);
    subcommand_exists(&list(all(last, "CMD")[0])[0]);
    let labels = all(last, "LABEL").join(" ");
    for label in ["title", "description", "licenses", "version", "revision"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    assert!(
        labels.contains("MIT OR Apache-2.0") && read("Cargo.toml").contains("MIT OR Apache-2.0")
    );
}

#[test]
fn images_are_named_with_a_version_and_nothing_knows_one_kind_of_machine() {
    let stages = stages();
    let defaults: BTreeMap<String, String> = all(&stages[0], "ARG")
        .iter()
        .map(|arg| arg.split_once('=').expect("a default"))
        .map(|(name, value)| (format!("${{{name}}}"), value.to_owned()))
        .collect();
    for stage in &stages[1..] {
        let from = all(stage, "FROM")[0].split(' ').next().unwrap();
        let image = &defaults[from];
        let tag = image.rsplit('/').next().unwrap().split_once(':').expect("a tag").1;
        assert_ne!(tag, "latest");
        assert!(all(stage, "ADD").is_empty(), "ADD fetches and unpacks unasked");
    }
    let text = read("Dockerfile");
    for word in ["x86_64", "aarch64", "TARGETARCH"] {
        assert!(!text.contains(word), "{word}");
    }
    // The toolchain of the image is one that Cargo.toml takes.
    let minor = |text: &str| text.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    let manifest = read("Cargo.toml");
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let tag = defaults["${RUST}"].rsplit_once(':').unwrap().1.split('-').next().unwrap();
    assert!(minor(tag) >= minor(wanted.trim_matches('"')), "{tag} is older than {wanted}");
}

#[test]
fn environment_of_the_image_is_made_of_settings() {
    let stages = stages();
    let settings: Vec<(String, String)> = all(stages.last().unwrap(), "ENV")
        .iter()
        .map(|env| env.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    crate::settings_are_right(&settings);
}

/// Dependencies are built before the sources are there, and what the sources include is copied.
#[test]
fn the_build_gets_what_it_reads_and_its_dependencies_first() {
    let stages = stages();
    let ignored = read(".dockerignore");
    let let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "nothing but what is listed");
    let build = &stages[1];
    let copies: Vec<Vec<&str>> =
        all(build, "COPY").iter().map(|copy| copy.split(' ').collect()).collect();
    assert_eq!(copies[0], ["Cargo.toml", "Cargo.lock", "./"]);
    let first_run = build.iter().position(|one| one.word == "RUN").unwrap();
    assert!(build[first_run].rest.contains("cargo build --release --locked"));
    assert_eq!(build[..first_run].iter().filter(|one| one.word == "COPY").count(), 1);
    let sources = copies.iter().flat_map(|copy| &copy[..copy.len() - 1]).copied();
    let licences = ["LICENSE-MIT", "LICENSE-APACHE"];
    let sources: Vec<&str> = sources.chain(licences).collect();
    for source in &sources {
        assert!(path(source).exists(), "there is no {source}");
        assert!(let_in.contains(source), ".dockerignore keeps {source} out");
    }
    let mut open = vec![path("src")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                open.push(file);
                continue;
            }
            // What tests include is not built.
            if file.extension().is_none_or(|end| end != "rs") || file.ends_with("tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            // Folders that are embedded whole are named from the root.
            for folder in text.split("#[folder = \"").skip(1) {
                let root = folder.split(['"', '/']).next().unwrap();
                assert!(sources.contains(&root), "the image's build is not given {root}");
            }
            for included in text.split("include_").skip(1) {
                let Some(name) = included.split('"').nth(1).filter(|_| included.contains("!("))
                else {
                    continue;
                };
                let Some(outside) = name.strip_prefix("../../../").or(name.strip_prefix("../../"))
                else {
                    continue;
                };
                let root = outside.split('/').next().unwrap();
                let is_inside = path("src").join(root).exists();
                assert!(
                    is_inside || sources.contains(&root),
                    "{} includes {outside}, which the image's build is not given",
                    file.display()
                );
            }
        }
    }
}
