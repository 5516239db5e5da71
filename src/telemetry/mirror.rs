//! Instances whose source another replica reads, as it shows them.
//!
//! Only sources that somebody asked for are followed. A state carries the term and a number that grows by one;
//! where one is missing, the source is read from the store again when it is asked for next.
//! What was shown before it was followed and is not flushed yet is in neither: so it is read once more when
//! that must have been written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::domain::SourceId;

/// For how long a source is followed that nobody asks for.
const FOLLOWED: Duration = Duration::from_secs(600);

/// An instance as it is shown.
pub type Shown = Map<String, Value>;

/// Instances by their names.
pub type Named = Vec<(Arc<str>, Shown)>;

pub struct Mirror {
    instances_max: usize,
    /// After how long what a reader has shown is in the store.
    settles: Duration,
    sources: HashMap<SourceId, Followed>,
}

struct Followed {
    instances: HashMap<Arc<str>, Shown>,
    /// Term and number of the last state.
    version: Option<(i64, u64)>,
    since: Instant,
    /// When what it was filled with was read.
    filled: Option<Instant>,
    asked: Instant,
}

impl Followed {
    fn is_whole(&self, settles: Duration) -> bool {
        let settled = self.since + settles;
        self.filled.is_some_and(|filled| filled >= settled || Instant::now() < settled)
    }
}

impl Mirror {
    pub fn new(instances_max: usize, settles: Duration) -> Mirror {
        Mirror { instances_max, settles, sources: HashMap::new() }
    }

    pub fn forget(&mut self, id: &SourceId) {
        self.sources.remove(id);
    }

    /// States may have been missed.
    pub fn doubt(&mut self) {
        self.sources.clear();
    }

    pub fn follow(&mut self, id: &SourceId) {
        let now = Instant::now();
        self.sources.retain(|_, followed| now - followed.asked < FOLLOWED);
        let fresh = || Followed {
            instances: HashMap::new(),
            version: None,
            since: now,
            filled: None,
            asked: now,
        };
        self.sources.entry(id.clone()).or_insert_with(fresh).asked = now;
    }

    /// What the store knew at a moment, where nothing newer was shown meanwhile.
    pub fn fill(&mut self, id: &SourceId, read: Instant, found: &[(Arc<str>, Shown)]) {
        let others = self.sources.iter().filter(|(other, _)| *other != id);
        let held: usize = others.map(|(_, followed)| followed.instances.len()).sum();
        if held + found.len() > self.instances_max {
            self.sources.remove(id);
            return;
        }
        let Some(followed) = self.sources.get_mut(id) else { return };
        for (name, shown) in found {
            let known = followed.instances.get(name);
            // Times of one form compare as texts.
            if known.is_none_or(|known| known["at"].as_str() < shown["at"].as_str()) {
                followed.instances.insert(name.clone(), shown.clone());
            }
        }
        followed.filled = Some(read);
    }

    pub fn take(&mut self, id: &SourceId, mut shown: Shown) {
        let Some(followed) = self.sources.get_mut(id) else { return };
        let version = shown
            .remove("version")
            .and_then(|version| Some((version[0].as_i64()?, version[1].as_u64()?)));
        let next = match (followed.version, version) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some((term, number)), Some(new)) => {
                new == (term, number + 1) || new.0 > term && new.1 == 1
            }
        };
        let name = shown.get("instance").and_then(Value::as_str).map(Arc::from);
        let (true, Some(name), Some(_)) = (next, name, shown.get("at").and_then(Value::as_str))
        else {
            self.sources.remove(id);
            return;
        };
        followed.version = version;
        let known = followed.instances.get(&name).and_then(|known| known.get("static")).cloned();
        if shown.remove("truncated").is_some()
            && let Some(facts) = known
        {
            shown.insert("static".to_owned(), facts);
        }
        followed.instances.insert(name, shown);
    }

    /// `None` if it is not followed, or cannot be trusted.
    pub fn shown(
        &mut self,
        id: &SourceId,
        trusted: bool,
        wanted: &impl Fn(&str) -> bool,
    ) -> Option<Named> {
        let whole = |followed: &&mut Followed| trusted && followed.is_whole(self.settles);
        let followed = self.sources.get_mut(id).filter(whole)?;
        followed.asked = Instant::now();
        let here = followed.instances.iter();
        let here = here.filter(|(name, shown)| wanted(name) && shown["status"] != "deleted");
        Some(here.map(|(name, shown)| (name.clone(), shown.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(version: (i64, u64), at: &str, status: &str) -> Shown {
        let state =
            json!({"instance": "a", "at": at, "status": status, "version": [version.0, version.1]});
        state.as_object().unwrap().clone()
    }

    fn seen(mirror: &mut Mirror, id: &SourceId) -> Option<Vec<String>> {
        let shown = mirror.shown(id, true, &|_| true)?;
        Some(shown.into_iter().map(|(_, shown)| shown["at"].as_str().unwrap().to_owned()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_shown_before_it_was_followed_is_read_when_it_is_flushed() {
        let id = SourceId::parse("s").unwrap();
        let mut mirror = Mirror::new(10, Duration::from_secs(10));
        mirror.follow(&id);
        let read = |at: &str| [(Arc::from("a"), state((0, 0), at, "up"))];
        mirror.fill(&id, Instant::now(), &read("1"));
        assert_eq!(seen(&mut mirror, &id), Some(vec!["1".to_owned()]));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(seen(&mut mirror, &id), None, "the store knows better by now");
        mirror.follow(&id);
        mirror.fill(&id, Instant::now(), &read("2"));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(seen(&mut mirror, &id), Some(vec!["2".to_owned()]), "once is enough");
    }

    #[test]
    fn what_is_missed_is_noticed_and_what_is_newer_stays() {
        let id = SourceId::parse("s").unwrap();
        let mut mirror = Mirror::new(10, Duration::from_secs(10));
        mirror.take(&id, state((1, 1), "1", "up"));
        assert_eq!(seen(&mut mirror, &id), None, "nobody asked for it");
        mirror.follow(&id);
        mirror.take(&id, state((1, 7), "3", "up"));
        assert_eq!(seen(&mut mirror, &id), None, "it is not filled yet");
        mirror.fill(&id, Instant::now(), &[("a".into(), state((0, 0), "2", "up"))]);
        assert_eq!(seen(&mut mirror, &id), Some(vec!["3".to_owned()]));
        mirror.take(&id, state((1, 8), "4", "up"));
        assert_eq!(seen(&mut mirror, &id), Some(vec!["4".to_owned()]));
        mirror.take(&id, state((2, 1), "5", "deleted"));
        assert_eq!(seen(&mut mirror, &id), Some(vec![]));
        mirror.take(&id, state((2, 3), "6", "up"));
        assert_eq!(seen(&mut mirror, &id), None, "a state was missed");
    }
}
