//! The fuzz targets on stable Rust: the corpus, and seeded mutations of it.
//!
//! The same inputs every time, so that a failure is the same failure tomorrow; `make fuzz` is what
//! looks for new ones. `TIDINGS_SEED` mutates in another way, `TIDINGS_FUZZ_ROUNDS` for longer.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::panic::catch_unwind;
use std::path::Path;

use targets::TARGETS;

/// How many mutations each target is given.
const ROUNDS: u64 = 10_000;

/// No mutation grows beyond that.
const INPUT_BYTES_MAX: usize = 4 << 10;

/// Pieces on which readers turn, put in where they fit or do not.
const PIECES: &[&str] = &[
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    "\r",
    "*",
    "-",
    "|",
    "%",
    "@",
    "?",
    "'",
    "=",
    " ",
    "\0",
    "é",
    "null",
    "-1",
    "0",
    "1e400",
    "9007199254740992",
    "18446744073709551616",
    "\\ud800",
    "\\u0000",
    "{\"",
    "[[",
    "]]",
    "99999",
];

/// A xorshift: enough to mutate with, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap()
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(4) {
        let (one, other) = (dice.below(input.len() + 1), dice.below(input.len() + 1));
        let (from, to) = (one.min(other), one.max(other));
        match dice.below(6) {
            0 if from < input.len() => input[from] ^= 1 << dice.below(8),
            1 => drop(input.drain(from..to)),
            2 => drop(input.splice(from..from, PIECES[dice.below(PIECES.len())].bytes())),
            3 => drop(input.splice(from..to, PIECES[dice.below(PIECES.len())].bytes())),
            4 => {
                let again = input[from..to].to_vec();
                input.splice(to..to, again);
            }
            _ => {
                let other = &corpus[dice.below(corpus.len())];
                let end = dice.below(other.len() + 1);
                input.splice(from.., other[end..].iter().copied());
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a whole number"))
}

#[test]
fn what_must_hold_of_any_input_holds_of_the_corpus_and_of_mutations_of_it() {
    let seed = number("TIDINGS_SEED").unwrap_or(1).max(1);
    let rounds = number("TIDINGS_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    for (name, check) in TARGETS {
        let corpus = corpus(name);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mutations = (0..rounds).map(|_| mutated(&corpus, &mut dice));
        for input in corpus.iter().cloned().chain(mutations) {
            let held = catch_unwind(|| check(&input));
            assert!(held.is_ok(), "target {name}, seed {seed}: b\"{}\"", input.escape_ascii());
        }
    }
}

/// A corpus that nobody reads, or a target without one, is a mistake.
#[test]
fn every_target_has_a_corpus_and_a_door_for_the_fuzzer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("targets"), targets);
    assert_eq!(names("corpus"), targets);
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for target in targets {
        assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
        assert!((1..=20).contains(&corpus(target).len()), "{target}: a corpus stays small");
    }
}
