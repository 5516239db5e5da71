//! Who subscribes to what.
//!
//! Exact topics stand in shards by hash. Prefixes stand in one map by their text; a topic looks up
//! one entry for each length that occurs, so that a thousand prefixes cost as little as one.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::queue::Queue;
use crate::domain::{Pattern, Topic};

/// Sessions that come and go meet the delivering loop in one of these only.
const SHARDS: usize = 64;

type Queues = Vec<Arc<Queue>>;

pub struct Registry {
    exact: Box<[Mutex<HashMap<Topic, Queues>>]>,
    prefixes: RwLock<Prefixes>,
    /// Lets a delivery pass by the prefixes when there are none.
    prefix_count: AtomicUsize,
}

#[derive(Default)]
struct Prefixes {
    by_text: HashMap<Arc<str>, Queues>,
    /// How many texts have which length.
    lengths: BTreeMap<usize, usize>,
}

impl Registry {
    pub fn new() -> Registry {
        Registry {
            exact: (0..SHARDS).map(|_| Mutex::default()).collect(),
            prefixes: RwLock::default(),
            prefix_count: AtomicUsize::new(0),
        }
    }

    /// The caller has made sure that it is not there yet: looking would take long where many are.
    pub fn add(&self, pattern: &Pattern, queue: &Arc<Queue>) {
        match pattern {
            Pattern::Exact(topic) => {
                self.shard(topic).lock().entry(topic.clone()).or_default().push(queue.clone());
            }
            Pattern::Prefix(text) => {
                let mut prefixes = self.prefixes.write();
                if !prefixes.by_text.contains_key(text) {
                    *prefixes.lengths.entry(text.len()).or_default() += 1;
                    self.prefix_count.fetch_add(1, Ordering::SeqCst);
                }
                prefixes.by_text.entry(text.clone()).or_default().push(queue.clone());
            }
        }
    }

    /// False when it was not there.
    pub fn remove(&self, pattern: &Pattern, queue: &Arc<Queue>) -> bool {
        match pattern {
            Pattern::Exact(topic) => {
                let mut shard = self.shard(topic).lock();
                let Some(queues) = shard.get_mut(topic) else { return false };
                let removed = remove(queues, queue);
                if queues.is_empty() {
                    shard.remove(topic);
                }
                removed
            }
            Pattern::Prefix(text) => {
                let mut prefixes = self.prefixes.write();
                let Some(queues) = prefixes.by_text.get_mut(text) else { return false };
                let removed = remove(queues, queue);
                if queues.is_empty() {
                    prefixes.by_text.remove(text);
                    if let Some(count) = prefixes.lengths.get_mut(&text.len()) {
                        *count -= 1;
                        if *count == 0 {
                            prefixes.lengths.remove(&text.len());
                        }
                    }
                    self.prefix_count.fetch_sub(1, Ordering::SeqCst);
                }
                removed
            }
        }
    }

    /// Calls for every queue that wants a topic; twice for one that has two patterns for it.
    pub fn each(&self, topic: &Topic, mut call: impl FnMut(&Queue)) {
        if let Some(queues) = self.shard(topic).lock().get(topic) {
            queues.iter().for_each(|queue| call(queue));
        }
        if self.prefix_count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let prefixes = self.prefixes.read();
        let text = topic.as_str();
        for length in prefixes.lengths.keys().take_while(|length| **length <= text.len()) {
            if let Some(queues) = prefixes.by_text.get(&text[..*length]) {
                queues.iter().for_each(|queue| call(queue));
            }
        }
    }

    fn shard(&self, topic: &Topic) -> &Mutex<HashMap<Topic, Queues>> {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let shard = hasher.finish() % SHARDS as u64;
        &self.exact[usize::try_from(shard).unwrap_or(0)]
    }
}

fn remove(queues: &mut Queues, queue: &Arc<Queue>) -> bool {
    let Some(place) = queues.iter().position(|there| Arc::ptr_eq(there, queue)) else {
        return false;
    };
    queues.swap_remove(place);
    // A topic that was popular once does not keep its memory.
    if queues.capacity() > 64 && queues.len() < queues.capacity() / 4 {
        queues.shrink_to_fit();
    }
    true
}
