//! Instances and buckets as JSON: as they are kept, and as clients see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::domain::telemetry::counter::Counter;
use crate::domain::telemetry::instance::Instance;
use crate::domain::telemetry::rollup::{Bucket, Course, Growth, Pending};
use crate::domain::{InstanceStatus, SourceId, Timestamp};
use crate::store::task::time_text;

pub fn facts_value(facts: &BTreeMap<Arc<str>, Arc<str>>) -> Value {
    let value = |fact: &Arc<str>| serde_json::from_str(fact).unwrap_or(Value::Null);
    Value::Object(facts.iter().map(|(name, fact)| (name.to_string(), value(fact))).collect())
}

pub fn gauges_value(gauges: &BTreeMap<Arc<str>, f64>) -> Value {
    Value::Object(gauges.iter().map(|(name, value)| (name.to_string(), json!(value))).collect())
}

/// A whole number of any size: what JSON readers take for a number, else its digits.
pub fn whole(number: u128) -> Value {
    u64::try_from(number).map_or_else(|_| number.to_string().into(), Value::from)
}

/// An instance as clients see it.
pub fn instance_shown(source: &SourceId, name: &str, instance: &Instance) -> Map<String, Value> {
    let counter = |read: fn(&Counter) -> Value| {
        let all = instance.counters.iter();
        Value::Object(all.map(|(name, counter)| (name.to_string(), read(counter))).collect())
    };
    let document = json!({
        "source": source.as_str(),
        "instance": name,
        "status": instance.status.as_str(),
        "static": facts_value(&instance.facts),
        "gauges": gauges_value(&instance.gauges),
        "counters": counter(|counter| counter.value.into()),
        "totals": counter(|counter| whole(counter.total)),
        "at": time_text(instance.at),
        "created_at": time_text(instance.created_at),
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

/// State and pending, as they are kept.
pub fn instance_parts(instance: &Instance) -> (Value, Value) {
    let counters = instance.counters.iter().map(|(name, counter)| {
        let kept = json!([counter.value, counter.at.0, counter.total.to_string()]);
        (name.to_string(), kept)
    });
    let state = json!({
        "facts": facts_value(&instance.facts),
        "gauges": gauges_value(&instance.gauges),
        "counters": Value::Object(counters.collect()),
    });
    let minutes = &instance.pending.minutes;
    let pending = minutes.iter().map(|(at, bucket)| {
        let (counters, gauges) = bucket_value(bucket);
        (at.0.to_string(), json!({"counters": counters, "gauges": gauges}))
    });
    (state, Value::Object(pending.collect()))
}

/// Counters and gauges of a bucket, as they are kept.
pub fn bucket_value(bucket: &Bucket) -> (Value, Value) {
    let counters = bucket.counters.iter().map(|(name, growth)| {
        let kept = json!([growth.sum.to_string(), growth.min, growth.max, growth.samples]);
        (name.to_string(), kept)
    });
    let gauges = bucket.gauges.iter().map(|(name, course)| {
        (name.to_string(), json!([course.sum, course.min, course.max, course.samples]))
    });
    (Value::Object(counters.collect()), Value::Object(gauges.collect()))
}

/// What `instance_parts` wrote; `None` for what is no instance.
pub fn instance_read(
    status: &str,
    state: &str,
    pending: &str,
    at: Timestamp,
    created_at: Timestamp,
) -> Option<Instance> {
    let state: Value = serde_json::from_str(state).ok()?;
    let pending: Value = serde_json::from_str(pending).ok()?;
    let facts = entries(&state["facts"])?;
    let counter = |value: &Value| {
        let total = digits(&value[2])?;
        Some(Counter { value: value[0].as_u64()?, at: Timestamp(value[1].as_i64()?), total })
    };
    let mut minutes = BTreeMap::new();
    for (at, value) in pending.as_object()? {
        minutes.insert(Timestamp(at.parse().ok()?), bucket(value)?);
    }
    Some(Instance {
        status: InstanceStatus::parse(status)?,
        facts: facts.map(|(name, fact)| (name, fact.to_string().into())).collect(),
        gauges: read(&state["gauges"], Value::as_f64)?,
        counters: read(&state["counters"], counter)?,
        at,
        created_at,
        pending: Pending { minutes },
    })
}

fn bucket(value: &Value) -> Option<Bucket> {
    let growth = |value: &Value| {
        let sum = digits(&value[0])?;
        let (min, max) = (value[1].as_u64()?, value[2].as_u64()?);
        Some(Growth { sum, min, max, samples: value[3].as_u64()? })
    };
    let course = |value: &Value| {
        let (sum, min) = (value[0].as_f64()?, value[1].as_f64()?);
        Some(Course { sum, min, max: value[2].as_f64()?, samples: value[3].as_u64()? })
    };
    let (counters, gauges) = (read(&value["counters"], growth)?, read(&value["gauges"], course)?);
    Some(Bucket { counters: counters.into_iter().collect(), gauges: gauges.into_iter().collect() })
}

fn digits(value: &Value) -> Option<u128> {
    value.as_str()?.parse().ok()
}

fn entries(value: &Value) -> Option<impl Iterator<Item = (Arc<str>, &Value)>> {
    Some(value.as_object()?.iter().map(|(name, value)| (name.as_str().into(), value)))
}

fn read<T>(value: &Value, one: impl Fn(&Value) -> Option<T>) -> Option<BTreeMap<Arc<str>, T>> {
    entries(value)?.map(|(name, value)| Some((name, one(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::telemetry::inventory::Inventory;
    use crate::domain::{Event, EventKind};

    #[test]
    fn an_instance_is_read_as_it_was_kept() {
        let mut inventory = Inventory::default();
        for (at, value) in [(0, 5), (70_000, u64::MAX), (140_000, 7)] {
            let event = Event {
                facts: [("region".into(), "{\"a\":1}".into())].into(),
                gauges: [("ping".into(), 1.25)].into(),
                counters: [("rx".into(), value)].into(),
                ..Event::new(EventKind::Create, Some("a".into()))
            };
            inventory.apply(&event, Timestamp(at), 1).unwrap();
        }
        let one = &inventory.instances["a"];
        assert_eq!(one.pending.minutes.len(), 3);
        let (state, pending) = instance_parts(one);
        let read =
            instance_read("up", &state.to_string(), &pending.to_string(), one.at, one.created_at);
        assert_eq!(read.as_ref(), Some(one));
        assert_eq!(
            instance_shown(&SourceId::parse("s").unwrap(), "a", one)["totals"]["rx"],
            "18446744073709551617"
        );
        assert!(instance_read("up", "{}", "{}", one.at, one.at).is_none());
    }
}
