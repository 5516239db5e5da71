//! How many files and sockets this process may hold open.

/// What connections do not use: the listeners, the pool, logs, what the runtime holds.
const BESIDE: usize = 100;

/// Takes as many as the system lets us have; `None` where it does not say how many that is.
///
/// Shells and service managers give programs that use `select` a soft limit of 1024, and leave it
/// to others to ask for more.
pub fn raise() -> Option<u64> {
    rlimit::increase_nofile_limit(u64::MAX).ok()
}

/// What to do when there are fewer than connections may need.
pub fn warning(raised: Option<u64>, connections_max: usize) -> Option<String> {
    let needed = u64::try_from(connections_max.saturating_add(BESIDE)).unwrap_or(u64::MAX);
    let most = raised.filter(|most| *most < needed)?;
    Some(format!(
        "only {most} files may be open, and connections_max is {connections_max}: raise the limit \
         (ulimit -Hn, LimitNOFILE in systemd) to {needed}, or lower connections_max"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_too_few_is_told_how_many_are_needed() {
        assert_eq!(warning(Some(1_100), 1_000), None);
        assert_eq!(warning(None, 1_000), None);
        let text = warning(Some(1_099), 1_000).unwrap();
        assert!(text.contains("1099") && text.contains("1100"), "{text}");
    }
}
