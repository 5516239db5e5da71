//! What is wrong with the settings: everything at once, so that one correction is enough.

use std::fmt;

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// `--listen`
    Flag(String),
    /// `TIDINGS_LISTEN`
    Variable(String),
    /// The key in the settings file.
    File(String),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(flag) => write!(f, "--{flag}"),
            Source::Variable(name) => f.write_str(name),
            Source::File(key) => write!(f, "{key} in the settings file"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// All that is wrong, at least one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub Vec<Fault>);

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// `value` is `None` for secrets.
    #[error("{}", value_fault(key, source_name, value.as_deref(), why))]
    Value { key: &'static str, source_name: Source, value: Option<String>, why: String },
    #[error("{key} is no setting{}", nearest.map_or(String::new(), |n| format!(": is {n} meant?")))]
    Unknown { key: String, nearest: Option<&'static str> },
    #[error("the settings file cannot be read: {0}")]
    File(String),
}

fn value_fault(key: &str, source: &Source, value: Option<&str>, why: &str) -> String {
    match value {
        Some(value) => format!("{key} ({source}) is {value:?}, but {why}"),
        None => format!("{key} ({source}): {why}"),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings are wrong:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}

/// The known name that is meant by a mistyped one, if one is near.
pub(super) fn nearest(
    mistyped: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    const SLIPS_MAX: usize = 3;
    known
        .map(|name| (slips(mistyped, name), name))
        .filter(|(slips, name)| *slips <= SLIPS_MAX.min(name.len() / 2))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

/// How many letters must be put in, taken out or changed (Levenshtein).
fn slips(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = || ["listen", "lanes", "drain_s", "jwt_secret"].into_iter();
        assert_eq!(nearest("listn", known()), Some("listen"));
        assert_eq!(nearest("drain", known()), Some("drain_s"));
        assert_eq!(nearest("jwt-secret", known()), Some("jwt_secret"));
        assert_eq!(nearest("colour", known()), None);
    }
}
