//! Topics and patterns: one line is a topic, and all the other lines are patterns.

use tidings::domain::{Pattern, PatternSet, Topic};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.split('\n').collect();
    for line in &lines {
        assert_eq!(Topic::parse(line).is_ok(), is_topic(line), "{line:?}");
        assert_eq!(Pattern::parse(line).is_ok(), is_pattern(line), "{line:?}");
    }
    let patterns: Vec<Pattern> =
        lines.iter().filter_map(|line| Pattern::parse(line).ok()).collect();
    for pattern in &patterns {
        assert_eq!(Pattern::parse(&pattern.to_string()).as_ref(), Ok(pattern));
    }
    let set: PatternSet = patterns.iter().cloned().collect();
    let own = set.to_vec();
    assert_eq!(own.len(), set.len());
    assert!(patterns.iter().all(|pattern| set.contains(pattern) && own.contains(pattern)));
    for topic in lines.iter().filter_map(|line| Topic::parse(line).ok()) {
        let mut any = false;
        for pattern in &patterns {
            let matches = naive_match(&pattern.to_string(), topic.as_str());
            assert_eq!(pattern.matches(&topic), matches, "{pattern} {topic}");
            any |= matches;
        }
        assert_eq!(set.matches(&topic), any, "{topic}");
    }
    // Every pair of few: a corpus of many lines would take long.
    for one in patterns.iter().take(8) {
        for other in patterns.iter().take(8) {
            check_covering(one, other);
        }
    }
}

/// Covering means: what the other matches, this one matches too. The text before the star, and
/// that text with one more letter, tell apart all that can be told.
fn check_covering(one: &Pattern, other: &Pattern) {
    let (text, star) = match other.to_string().strip_suffix('*') {
        Some(prefix) => (prefix.to_owned(), true),
        None => (other.to_string(), false),
    };
    let longer = ["a", "b"].map(|letter| if star { text.clone() + letter } else { text.clone() });
    let matched = longer.iter().chain([&text]).filter_map(|text| Topic::parse(text).ok());
    let missed = matched.filter(|topic| !one.matches(topic)).count();
    if one.covers(other) {
        assert_eq!(missed, 0, "{one} covers {other}");
    } else if text.len() < 200 {
        // A star at the very end of what fits matches one topic only, and nobody needs to see that.
        assert!(missed > 0 || text.is_empty(), "{one} does not cover {other}");
    }
}

fn is_topic(text: &str) -> bool {
    let known = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@-";
    !text.is_empty() && text.len() <= 200 && text.chars().all(|c| known.contains(c))
}

fn is_pattern(text: &str) -> bool {
    match text.strip_suffix('*') {
        Some(prefix) => prefix.is_empty() || is_topic(prefix),
        None => is_topic(text),
    }
}

/// Letter by letter, as one would do it on paper.
fn naive_match(pattern: &str, topic: &str) -> bool {
    let mut left = topic.chars();
    for letter in pattern.chars() {
        match letter {
            '*' => return true,
            letter if left.next() == Some(letter) => {}
            _ => return false,
        }
    }
    left.next().is_none()
}
