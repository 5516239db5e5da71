//! What is too old goes, and nothing else.

use super::*;

/// Well within what is kept, and well beyond; the next moment does not change it.
const MARGIN: i64 = 10 * MINUTE;

pub async fn raw_events_stay_seven_days(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let ages = [0, DAY, 7 * DAY - MARGIN, 7 * DAY + MARGIN, 30 * DAY];
    // A row holds the events of a part: each age has its own.
    for (number, age) in (1..).zip(ages) {
        let events = vec![(before(now, age), "{}".into())];
        let part = Part { events, ..Part::new(id.clone(), term, number) };
        assert_eq!(subject.flush(&part).await, Flushed::Done);
    }
    assert_eq!(subject.sweep().await, Swept { events: 2, ..Swept::default() });
    if let Hand::Database(client) = &subject.hand {
        assert_eq!(number(client, "select count(*) from tidings.source_events").await, 3);
    }
    // A row goes with its youngest event.
    let events = vec![(before(now, 8 * DAY), "{}".into()), (before(now, 6 * DAY), "{}".into())];
    let part = Part { events, ..Part::new(id.clone(), term, 9) };
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    let swept = subject.sweep().await;
    if let Hand::Database(client) = &subject.hand {
        assert_eq!(swept, Swept::default());
        assert_eq!(number(client, "select count(*) from tidings.source_events").await, 4);
    }
}

pub async fn each_level_of_roll_ups_has_its_time(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let kept = [(Level::Minute, 7), (Level::Hour, 30), (Level::Day, 400)];
    // Two instances at each age, so that rows are counted and not buckets.
    let mut part = Part::new(id.clone(), term, 1);
    let ages = [0, 6, 8, 29, 32, 398, 402];
    for days in ages {
        for name in ["i", "j"] {
            part.rollups.push((name.into(), before(now, days * DAY), grown(1)));
        }
    }
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    let samples = async |level| subject.growth(&id, level).await.1;
    for (level, _) in kept {
        assert_eq!(samples(level).await, 14);
    }
    let swept = subject.sweep().await;
    assert_eq!(swept, Swept { minutes: 10, hours: 6, days: 2, ..Swept::default() });
    for (level, days) in kept {
        let left = ages.iter().filter(|age| **age < days).count() * 2;
        assert_eq!(samples(level).await, left as u64, "{level:?}");
        if let Hand::Database(client) = &subject.hand {
            let rows =
                format!("select count(*) from tidings.rollup where level = {}", level.to_db());
            assert_eq!(number(client, &rows).await, i64::try_from(left).unwrap(), "{level:?}");
        }
    }
    // Just outside of what is kept, and just inside.
    let mut part = Part::new(id.clone(), term, 2);
    for (level, days) in kept {
        let outside = level.bucket(before(now, days * DAY + 1)).0;
        for at in [outside, outside + 2 * level.length_ms()] {
            part.rollups.push((level.to_db().to_string().into(), Timestamp(at), grown(1)));
        }
    }
    let before =
        [samples(Level::Minute).await, samples(Level::Hour).await, samples(Level::Day).await];
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    let swept = subject.sweep().await;
    assert_eq!(swept, Swept { minutes: 5, hours: 3, days: 1, ..Swept::default() });
    let after =
        [samples(Level::Minute).await, samples(Level::Hour).await, samples(Level::Day).await];
    assert_eq!([1_u64, 3, 5], [0, 1, 2].map(|at: usize| after[at] - before[at]));
}

pub async fn lines_and_deleted_instances_stay_seven_days(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let mut part = Part::new(id.clone(), term, 1);
    for age in [0, 7 * DAY - MARGIN, 7 * DAY + MARGIN, 40 * DAY] {
        let at = before(now, age);
        part.logs.push(line(at, None, &format!("{age}")));
        for status in [InstanceStatus::Up, InstanceStatus::Down, InstanceStatus::Deleted] {
            let name = format!("{} {age}", status.as_str());
            part.instances.push((name.into(), Instance { status, ..instance(at, 1) }));
        }
    }
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    assert_eq!(subject.sweep().await, Swept { logs: 2, instances: 2, ..Swept::default() });
    let counted = subject.counted(&id).await;
    assert_eq!((counted.lines, counted.instances), (2, 10));
    let left = named(subject.readers.instances(&id).await.unwrap());
    let gone = left.values().filter(|one| one.status == InstanceStatus::Deleted).count();
    assert_eq!(gone, 2, "what is there stays, however old");
    if let Hand::Database(client) = &subject.hand {
        assert_eq!(number(client, "select count(*) from tidings.source_log").await, 2);
        assert_eq!(number(client, "select count(*) from tidings.instance").await, 10);
    }
}
