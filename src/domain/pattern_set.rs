//! All that one session subscribes to, asked for every message it might get.

use std::collections::HashSet;

use super::{Pattern, Topic};

#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    exact: HashSet<Topic>,
    prefixes: Vec<Pattern>,
}

impl PatternSet {
    /// False when it was there already.
    pub fn insert(&mut self, pattern: Pattern) -> bool {
        match pattern {
            Pattern::Exact(topic) => self.exact.insert(topic),
            prefix if self.prefixes.contains(&prefix) => false,
            prefix => {
                self.prefixes.push(prefix);
                true
            }
        }
    }

    /// False when it was not there.
    pub fn remove(&mut self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(topic) => self.exact.remove(topic),
            prefix => {
                let before = self.prefixes.len();
                self.prefixes.retain(|own| own != prefix);
                self.prefixes.len() < before
            }
        }
    }

    pub fn matches(&self, topic: &Topic) -> bool {
        self.exact.contains(topic) || self.prefixes.iter().any(|prefix| prefix.matches(topic))
    }

    pub fn contains(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(topic) => self.exact.contains(topic),
            prefix => self.prefixes.contains(prefix),
        }
    }

    pub fn len(&self) -> usize {
        self.exact.len() + self.prefixes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In a stable order, for answers that people and tests read.
    pub fn to_vec(&self) -> Vec<Pattern> {
        let exact = self.exact.iter().cloned().map(Pattern::Exact);
        let mut all: Vec<Pattern> = exact.chain(self.prefixes.iter().cloned()).collect();
        all.sort();
        all
    }
}

impl FromIterator<Pattern> for PatternSet {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> PatternSet {
        let mut set = PatternSet::default();
        for pattern in patterns {
            set.insert(pattern);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_matches_what_any_of_its_patterns_matches() {
        let pattern = |text| Pattern::parse(text).unwrap();
        let topic = |text| Topic::parse(text).unwrap();
        let mut set: PatternSet = [pattern("a"), pattern("order:*")].into_iter().collect();
        assert!(!set.insert(pattern("a")) && !set.insert(pattern("order:*")));
        assert!(set.matches(&topic("a")) && set.matches(&topic("order:7")));
        assert!(!set.matches(&topic("ab")) && !set.matches(&topic("order")));
        assert!(set.remove(&pattern("order:*")) && !set.remove(&pattern("order:*")));
        assert!(!set.matches(&topic("order:7")));
        assert_eq!(set.to_vec(), [pattern("a")]);
    }
}
