//! What a command prints. Who no longer listens is no reason to end in a panic.

use std::fmt::Display;
use std::io::Write;

/// A line of the answer.
pub fn answer(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line beside the answer.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "tidings: {line}");
}
