//! What the outside may send, and what must hold whatever it is.
//!
//! Each module is one target: a function from bytes to a panic, or not. cargo-fuzz calls it from
//! `targets/`, with whatever covers most of the code; `tests/fuzz_smoke.rs` calls it on stable Rust
//! with the corpus and mutations of it. A target asserts more than that nothing panics: that what
//! was understood can be written down and is understood the same again, that bounds hold, and that
//! a second, naive reading agrees.

pub mod batch;
pub mod cursor;
pub mod dsn;
pub mod frame;
pub mod notification;
pub mod publish;
pub mod source;
pub mod token;
pub mod topic;

/// A target by the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("batch", batch::check),
    ("cursor", cursor::check),
    ("dsn", dsn::check),
    ("frame", frame::check),
    ("notification", notification::check),
    ("publish", publish::check),
    ("source", source::check),
    ("token", token::check),
    ("topic", topic::check),
];
