//! The instances of one source, and what each event makes of them.
//!
//! A source that connects tells what it has, one `initial` each, without saying where the list ends:
//! it has ended when none came for a while. Then what was not in it is gone. An instance that is gone
//! stays known as such, so that an event which was late does not bring it back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::instance::{Change, Instance};
use super::rollup::Pending;
use super::{Event, EventKind, INSTANCE_BYTES_MAX, InstanceStatus};
use crate::domain::Timestamp;

/// After how long without another one the list of instances is complete.
const LIST_QUIET_MS: i64 = 2_000;

/// By how much the time that an event gives may differ from when it came; beyond, it is not believed.
const PAST_MAX_MS: i64 = 3_600_000;
const FUTURE_MAX_MS: i64 = 60_000;

/// How many instances that are gone stay known, for each that may be there.
const GONE_MAX: usize = 10_000;

/// Why an event changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Ignored {
    /// It came late, or twice.
    Late,
    /// Its instance is gone.
    Gone,
    /// There are too many instances.
    Full,
    /// It names no instance where one is needed, or one by no name.
    Nameless,
}

impl Ignored {
    pub const fn as_str(self) -> &'static str {
        match self {
            Ignored::Late => "late",
            Ignored::Gone => "gone",
            Ignored::Full => "full",
            Ignored::Nameless => "nameless",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub instances: HashMap<Arc<str>, Instance>,
    /// While a list is being told: what was in it, and when it went on last.
    list: Option<(HashSet<Arc<str>>, Timestamp)>,
    present: usize,
}

impl Inventory {
    /// From what was kept.
    pub fn new(instances: impl IntoIterator<Item = (Arc<str>, Instance)>) -> Inventory {
        let instances: HashMap<_, _> = instances.into_iter().collect();
        let here = |one: &&Instance| one.status != InstanceStatus::Deleted;
        let present = instances.values().filter(here).count();
        Inventory { instances, list: None, present }
    }

    /// How many instances there are, without those that are gone.
    pub fn present(&self) -> usize {
        self.present
    }

    /// The moment that counts for an event: its own if it can be believed.
    pub fn moment(event: &Event, received: Timestamp) -> Timestamp {
        let own = event.at.unwrap_or(received);
        let believed = received.0 - PAST_MAX_MS..=received.0 + FUTURE_MAX_MS;
        if believed.contains(&own.0) { own } else { received }
    }

    /// The instance that an event is about, and what became of it. `room` is how many more may be.
    pub fn apply(
        &mut self,
        event: &Event,
        received: Timestamp,
        room: usize,
    ) -> Result<Vec<(Arc<str>, Change)>, Ignored> {
        let at = Inventory::moment(event, received);
        if event.kind == EventKind::Initial {
            let (_, since) = self.list.get_or_insert_default();
            *since = received;
        }
        let Some(name) = &event.instance else {
            return match event.kind {
                EventKind::Initial | EventKind::Log => Ok(Vec::new()),
                EventKind::Shutdown => Ok(self.shut_down(at)),
                _ => Err(Ignored::Nameless),
            };
        };
        if name.is_empty() || name.len() > INSTANCE_BYTES_MAX {
            return Err(Ignored::Nameless);
        }
        if let Some((seen, _)) = &mut self.list
            && event.kind != EventKind::Delete
        {
            seen.insert(name.clone());
        }
        let brings = matches!(event.kind, EventKind::Initial | EventKind::Create);
        let known = self.instances.get_mut(name);
        let gone = known.as_ref().is_none_or(|one| one.status == InstanceStatus::Deleted);
        if gone {
            if event.kind == EventKind::Delete || (known.is_some() && !brings) {
                return Err(Ignored::Gone);
            }
            // What was late is not the news of a new life.
            if known.as_ref().is_some_and(|one| at < one.at) && event.kind == EventKind::Create {
                return Err(Ignored::Gone);
            }
            if event.kind == EventKind::Log {
                return Ok(Vec::new());
            }
            if room == 0 {
                return Err(Ignored::Full);
            }
            self.present += 1;
        } else if event.kind == EventKind::Delete {
            self.present -= 1;
        }
        let instance = self.instances.entry(name.clone()).or_insert_with(|| Instance {
            status: InstanceStatus::Deleted,
            facts: BTreeMap::new(),
            gauges: BTreeMap::new(),
            counters: BTreeMap::new(),
            at,
            created_at: at,
            pending: Pending::default(),
        });
        let change = instance.apply(event, at);
        if change.deleted {
            self.forget_some();
        }
        if change.is_none() && event.kind == EventKind::Update && at < instance_at(self, name) {
            return Err(Ignored::Late);
        }
        Ok(vec![(name.clone(), change)])
    }

    /// Ends a list that was told completely: what was not in it is gone.
    pub fn reconcile(&mut self, now: Timestamp) -> Vec<(Arc<str>, Change)> {
        let complete =
            self.list.as_ref().is_some_and(|(_, since)| now.0 - since.0 >= LIST_QUIET_MS);
        let Some((seen, _)) = self.list.take_if(|_| complete) else { return Vec::new() };
        let mut gone = Vec::new();
        for (name, instance) in &mut self.instances {
            if instance.status != InstanceStatus::Deleted && !seen.contains(name) {
                gone.push((name.clone(), instance.delete(now.max(instance.at))));
            }
        }
        self.present -= gone.len();
        self.forget_some();
        gone
    }

    /// Whether a list is being told.
    pub fn listing(&self) -> bool {
        self.list.is_some()
    }

    /// The connection was lost: what was told of a list is no list.
    pub fn interrupted(&mut self) {
        self.list = None;
    }

    fn shut_down(&mut self, at: Timestamp) -> Vec<(Arc<str>, Change)> {
        let mut changed = Vec::new();
        for (name, instance) in &mut self.instances {
            if instance.status == InstanceStatus::Up {
                instance.status = InstanceStatus::Down;
                instance.at = instance.at.max(at);
                changed.push((name.clone(), Change { facts: true, ..Change::default() }));
            }
        }
        changed
    }

    /// Of those that are gone the oldest are forgotten.
    fn forget_some(&mut self) {
        if self.instances.len() - self.present <= GONE_MAX {
            return;
        }
        let gone = self.instances.iter().filter(|(_, one)| {
            one.status == InstanceStatus::Deleted && one.pending.minutes.is_empty()
        });
        let mut gone: Vec<(Timestamp, Arc<str>)> =
            gone.map(|(name, one)| (one.at, name.clone())).collect();
        gone.sort_unstable();
        for (_, name) in gone.into_iter().take(GONE_MAX / 10) {
            self.instances.remove(&name);
        }
    }
}

fn instance_at(inventory: &Inventory, name: &Arc<str>) -> Timestamp {
    inventory.instances.get(name).map_or(Timestamp(i64::MIN), |one| one.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::telemetry::METRICS_MAX;

    const NOW: Timestamp = Timestamp(1_795_168_800_000);

    fn event(kind: EventKind, name: &str, counter: u64) -> Event {
        let counters = [("rx".into(), counter)].into();
        let gauges = [("ping".into(), 1.5)].into();
        Event { counters, gauges, ..Event::new(kind, Some(name.into())) }
    }

    fn after(ms: i64) -> Timestamp {
        Timestamp(NOW.0 + ms)
    }

    fn apply(inventory: &mut Inventory, event: &Event, at: i64) -> Result<Change, Ignored> {
        let changed = inventory.apply(event, after(at), usize::MAX)?;
        Ok(changed.first().map_or(Change::default(), |(_, change)| *change))
    }

    #[test]
    fn a_list_that_has_ended_says_what_is_gone() {
        let mut inventory = Inventory::default();
        for name in ["a", "b", "c"] {
            assert!(apply(&mut inventory, &event(EventKind::Create, name, 1), 0).unwrap().created);
        }
        let begins = Event::new(EventKind::Initial, None);
        inventory.apply(&begins, after(10), usize::MAX).unwrap();
        apply(&mut inventory, &event(EventKind::Initial, "a", 2), 20).unwrap();
        // Whoever is heard of meanwhile is there too.
        apply(&mut inventory, &event(EventKind::Update, "b", 2), 30).unwrap();
        assert!(inventory.reconcile(after(1_000)).is_empty());
        let gone = inventory.reconcile(after(3_000));
        assert_eq!(gone.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["c"]);
        assert!(gone[0].1.deleted && inventory.present() == 2);
        assert!(inventory.reconcile(after(9_000)).is_empty());
    }

    #[test]
    fn an_empty_list_ends_all_and_an_interrupted_one_nothing() {
        let mut inventory = Inventory::default();
        apply(&mut inventory, &event(EventKind::Create, "a", 1), 0).unwrap();
        let begins = Event::new(EventKind::Initial, None);
        inventory.apply(&begins, after(10), usize::MAX).unwrap();
        inventory.interrupted();
        assert!(inventory.reconcile(after(10_000)).is_empty());
        inventory.apply(&begins, after(20_000), usize::MAX).unwrap();
        assert_eq!(inventory.reconcile(after(30_000)).len(), 1);
    }

    #[test]
    fn what_is_gone_comes_back_by_create_or_initial_only() {
        let mut inventory = Inventory::default();
        apply(&mut inventory, &event(EventKind::Create, "a", 100), 0).unwrap();
        assert!(apply(&mut inventory, &event(EventKind::Delete, "a", 0), 1).unwrap().deleted);
        assert_eq!(
            apply(&mut inventory, &event(EventKind::Update, "a", 110), 2),
            Err(Ignored::Gone)
        );
        assert_eq!(apply(&mut inventory, &event(EventKind::Delete, "a", 0), 3), Err(Ignored::Gone));
        let late = Event { at: Some(NOW), ..event(EventKind::Create, "a", 100) };
        assert_eq!(apply(&mut inventory, &late, 4), Err(Ignored::Gone));
        assert_eq!(inventory.present(), 0);
        assert!(apply(&mut inventory, &event(EventKind::Create, "a", 5), 9).unwrap().created);
        let one = &inventory.instances["a"];
        assert_eq!((one.status, one.counters["rx"].total), (InstanceStatus::Up, 5));
        assert_eq!(inventory.present(), 1);
    }

    #[test]
    fn an_instance_has_so_many_facts_and_each_may_change() {
        let mut inventory = Inventory::default();
        let fact = |number: usize, value: &str| Event {
            facts: [(number.to_string().into(), value.into())].into(),
            ..event(EventKind::Create, "a", 1)
        };
        for number in 0..METRICS_MAX + 3 {
            apply(&mut inventory, &fact(number, "1"), 0).unwrap();
        }
        assert_eq!(inventory.instances["a"].facts.len(), METRICS_MAX);
        assert!(apply(&mut inventory, &fact(0, "2"), 1).unwrap().facts);
        assert_eq!(&*inventory.instances["a"].facts["0"], "2");
    }

    #[test]
    fn late_updates_change_no_gauge_and_no_counter() {
        let mut inventory = Inventory::default();
        apply(&mut inventory, &event(EventKind::Create, "a", 100), 0).unwrap();
        apply(&mut inventory, &event(EventKind::Update, "a", 150), 5_000).unwrap();
        let late = Event { at: Some(after(1)), ..event(EventKind::Update, "a", 120) };
        let late = Event { gauges: [("ping".into(), 99.0)].into(), ..late };
        assert_eq!(apply(&mut inventory, &late, 6_000), Err(Ignored::Late));
        let one = &inventory.instances["a"];
        assert_eq!((one.counters["rx"].total, one.gauges["ping"]), (50, 1.5));
    }

    #[test]
    fn a_time_that_cannot_be_is_not_believed() {
        for (own, believed) in [(0, true), (60_000, true), (60_001, false), (-3_600_001, false)] {
            let event = Event { at: Some(after(own)), ..Event::new(EventKind::Update, None) };
            let expected = if believed { after(own) } else { NOW };
            assert_eq!(Inventory::moment(&event, NOW), expected);
        }
    }

    #[test]
    fn a_shutdown_takes_all_down_and_an_update_one_up_again() {
        let mut inventory = Inventory::default();
        for name in ["a", "b"] {
            apply(&mut inventory, &event(EventKind::Create, name, 1), 0).unwrap();
        }
        let shutdown = Event::new(EventKind::Shutdown, None);
        assert_eq!(inventory.apply(&shutdown, after(1), 9).unwrap().len(), 2);
        assert!(apply(&mut inventory, &event(EventKind::Update, "a", 1), 2).unwrap().facts);
        assert_eq!(inventory.instances["a"].status, InstanceStatus::Up);
        assert_eq!(inventory.instances["b"].status, InstanceStatus::Down);
    }

    #[test]
    fn there_is_room_for_so_many_and_for_known_ones() {
        let mut inventory = Inventory::default();
        apply(&mut inventory, &event(EventKind::Create, "a", 1), 0).unwrap();
        let full = inventory.apply(&event(EventKind::Create, "b", 1), after(1), 0);
        assert_eq!(full, Err(Ignored::Full));
        assert!(inventory.apply(&event(EventKind::Update, "a", 2), after(2), 0).is_ok());
        assert_eq!(inventory.present(), 1);
    }
}
