//! What is asked of what was told: trends, the dashboard, lines of logs.

use serde_json::json;

use super::*;

pub async fn a_trend_has_the_buckets_that_were_asked_for(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let (other, other_term) = subject.owned("b").await;
    let now = subject.now().await;
    let first = Level::Hour.bucket(before(now, 3 * HOUR)).0;
    let at = |minute: i64| Timestamp(first + minute * MINUTE + 17);
    let mut both = grown(5);
    both.show(&"ping".into(), Course::of(2.5));
    let part = Part {
        rollups: vec![
            ("i".into(), at(0), grown(3)),
            ("i".into(), at(0), both),
            ("j".into(), at(0), grown(40)),
            ("i".into(), at(2), grown(0)),
            ("i".into(), at(59), grown(7)),
            ("j".into(), at(60), grown(8)),
        ],
        ..Part::new(id.clone(), term, 1)
    };
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    let same = Part { id: other.clone(), term: other_term, ..part };
    assert_eq!(subject.flush(&same).await, Flushed::Done);
    let growth = async |instance, level, buckets: &[(i64, i64)]| {
        let points = subject.points(&id, instance, "rx", level, buckets).await;
        let one = |point: TrendPoint| {
            assert_eq!(point.course, None);
            point.growth.map(|growth| (growth.sum, growth.min, growth.max, growth.samples))
        };
        points.into_iter().map(one).collect::<Vec<_>>()
    };
    let minutes = |of: &[i64]| -> Vec<(i64, i64)> {
        of.iter().map(|minute| (first + minute * MINUTE, first + (minute + 1) * MINUTE)).collect()
    };
    assert_eq!(
        growth(None, Level::Minute, &minutes(&[-1, 0, 1, 2, 59, 60, 61])).await,
        [
            None,
            Some((48, 3, 40, 3)),
            None,
            Some((0, 0, 0, 1)),
            Some((7, 7, 7, 1)),
            Some((8, 8, 8, 1)),
            None,
        ]
    );
    assert_eq!(
        growth(Some("i"), Level::Minute, &minutes(&[0, 60])).await,
        [Some((8, 3, 5, 2)), None]
    );
    assert_eq!(growth(Some("none"), Level::Minute, &minutes(&[0])).await, [None]);
    // A bucket of whoever asks may be made of many, and some may lie between those that are asked for.
    let own = [(first, first + 2 * MINUTE), (first + 30 * MINUTE, first + 90 * MINUTE)];
    assert_eq!(
        growth(None, Level::Minute, &own).await,
        [Some((48, 3, 40, 3)), Some((15, 7, 8, 2))]
    );
    let hours = [(first, first + HOUR), (first + HOUR, first + 2 * HOUR)];
    assert_eq!(growth(None, Level::Hour, &hours).await, [Some((55, 0, 40, 5)), Some((8, 8, 8, 1))]);
    assert_eq!(growth(None, Level::Minute, &[]).await, []);
    let ping = subject.points(&id, None, "ping", Level::Minute, &minutes(&[0, 1])).await;
    assert_eq!(ping[0], TrendPoint { growth: None, course: Some(Course::of(2.5)) });
    assert_eq!(ping[1], TrendPoint::default());
    let none = subject.points(&id, None, "nothing", Level::Minute, &minutes(&[0])).await;
    assert_eq!(none, [TrendPoint::default()]);
    let none = subject.points(&super::id("none"), None, "rx", Level::Minute, &minutes(&[0])).await;
    assert_eq!(none, [TrendPoint::default()]);
}

pub async fn what_waits_counts_once(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let minute = Level::Minute.bucket(before(now, MINUTE));
    let mut waits = instance(now, 9);
    waits.pending.minutes.insert(minute, grown(9));
    let first = Part {
        instances: vec![("i".into(), waits), ("j".into(), instance(now, 1))],
        rollups: vec![("j".into(), minute, grown(1))],
        ..Part::new(id.clone(), term, 1)
    };
    assert_eq!(subject.flush(&first).await, Flushed::Done);
    let all = async || {
        let mut grown = Vec::new();
        for level in Level::ALL {
            let begins = level.bucket(minute).0;
            let bucket = [(begins, begins + level.length_ms())];
            let points = subject.points(&id, None, "rx", level, &bucket).await;
            let growth = points[0].growth.unwrap();
            grown.push((growth.sum, growth.min, growth.max, growth.samples));
        }
        grown
    };
    assert_eq!(all().await, [(10, 1, 9, 2); 3]);
    let hour = async || {
        let dashboard = subject.sources.dashboard(None).await.unwrap();
        dashboard.counters["rx"].1.clone()
    };
    assert_eq!(hour().await, 10);
    // The minute is over: what waited is in the roll-ups now, and waits no more.
    let second = Part {
        instances: vec![("i".into(), instance(now, 9))],
        rollups: vec![("i".into(), minute, grown(9))],
        ..Part::new(id.clone(), term, 2)
    };
    assert_eq!(subject.flush(&second).await, Flushed::Done);
    assert_eq!(all().await, [(10, 1, 9, 2); 3]);
    assert_eq!(hour().await, 10);
}

/// A sum that no number of the machine holds would be read as nothing, and its instance as broken.
pub async fn a_gauge_beyond_all_measure_spoils_nothing(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let minute = Level::Minute.bucket(before(now, MINUTE));
    let mut bucket = Bucket::default();
    bucket.show(&"ping".into(), Course::of(f64::MAX));
    bucket.show(&"ping".into(), Course::of(f64::MAX));
    let mut waits = instance(now, 9);
    waits.pending.minutes.insert(minute, bucket.clone());
    for number in 1..=2 {
        let part = Part {
            instances: vec![("i".into(), waits.clone())],
            rollups: vec![("i".into(), minute, bucket.clone())],
            ..Part::new(id.clone(), term, number)
        };
        assert_eq!(subject.flush(&part).await, Flushed::Done);
    }
    assert_eq!(named(subject.readers.instances(&id).await.unwrap())["i"], waits);
    for level in Level::ALL {
        let begins = level.bucket(minute).0;
        let buckets = [(begins, begins + level.length_ms())];
        let points = subject.points(&id, None, "ping", level, &buckets).await;
        let course = points[0].course.unwrap();
        assert_eq!((course.samples, course.max), (6, f64::MAX));
        assert!(course.sum.is_finite() && course.sum >= f64::MAX * 0.999_999, "{course:?}");
    }
}

pub async fn a_dashboard_counts_all_or_some(subject: Subject) {
    let now = subject.now().await;
    for (name, value) in [("a", 5_u64), ("b", 70)] {
        let (id, term) = subject.owned(name).await;
        let part = Part {
            status: Some((SourceStatus::Connected, None)),
            instances: vec![
                ("i".into(), instance(now, value)),
                ("j".into(), Instance { status: InstanceStatus::Down, ..instance(now, 100) }),
                ("k".into(), Instance { status: InstanceStatus::Deleted, ..instance(now, 1) }),
            ],
            rollups: vec![
                ("i".into(), before(now, 2 * MINUTE), grown(value)),
                ("i".into(), before(now, 61 * MINUTE), grown(1_000)),
            ],
            ..Part::new(id.clone(), term, 1)
        };
        assert_eq!(subject.flush(&part).await, Flushed::Done);
    }
    subject.create("c", &rules()).await;
    let all = subject.sources.dashboard(None).await.unwrap();
    assert_eq!(all.sources, [("connected".to_owned(), 2), ("idle".to_owned(), 1)].into());
    let by_status = [("deleted".to_owned(), 2), ("down".to_owned(), 2), ("up".to_owned(), 2)];
    assert_eq!(all.instances, by_status.into());
    assert_eq!(all.counters, [("rx".to_owned(), (json!(277), json!(75)))].into());
    let some = subject.sources.dashboard(Some(&[id("b"), id("none")])).await.unwrap();
    assert_eq!(some.sources, [("connected".to_owned(), 1)].into());
    assert_eq!(some.counters, [("rx".to_owned(), (json!(171), json!(70)))].into());
    for none in [&[id("c")][..], &[id("none")], &[]] {
        let none = subject.sources.dashboard(Some(none)).await.unwrap();
        assert!(none.instances.is_empty() && none.counters.is_empty(), "{none:?}");
    }
}

/// As with the totals of an instance: what JSON readers take for a number is one, else it is its digits.
pub async fn sums_of_any_size_are_shown_whole(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let part = Part {
        instances: vec![
            ("i".into(), instance(now, u64::MAX)),
            ("j".into(), instance(now, u64::MAX - 1)),
        ],
        rollups: vec![("i".into(), before(now, 2 * MINUTE), grown(u64::MAX))],
        ..Part::new(id, term, 1)
    };
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    let counters = subject.sources.dashboard(None).await.unwrap().counters;
    assert_eq!(counters["rx"], (json!("36893488147419103229"), json!(u64::MAX)));
}

pub async fn lines_come_page_by_page_the_newest_first(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let (other, other_term) = subject.owned("b").await;
    let now = subject.now().await;
    for flush in 0..3 {
        let own = |number: i64| {
            let instance = [None, Some("i"), Some("j")][usize::try_from(number % 3).unwrap()];
            line(before(now, number), instance, &format!("{} \u{fffd}é", flush * 4 + number))
        };
        let part =
            Part { logs: (0..4).map(own).collect(), ..Part::new(id.clone(), term, flush + 1) };
        let same = Part { id: other.clone(), term: other_term, ..part.clone() };
        for (_, outcome) in subject.readers.flush(&[part, same]).await.unwrap() {
            assert_eq!(outcome, Flushed::Done);
        }
    }
    let page = async |instance: Option<&str>, before, limit| {
        let filter = LogFilter { source: id.clone(), instance: instance.map(Into::into), before };
        subject.sources.logs(&filter, limit).await.unwrap()
    };
    let all = page(None, None, 100).await;
    assert_eq!(all.len(), 12);
    assert!(all.is_sorted_by(|(one, _), (next, _)| one > next));
    assert_eq!(all[11].1, line(now, None, "0 \u{fffd}é"));
    assert_eq!(&*all[0].1.text, "11 \u{fffd}é");
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let found = page(None, before, 5).await;
        let Some((last, _)) = found.last() else { break };
        before = Some(*last);
        pages.extend(found);
    }
    assert_eq!(pages, all);
    let own = page(Some("i"), None, 100).await;
    assert_eq!(own.len(), 3);
    assert!(own.iter().all(|(_, line)| line.instance.as_deref() == Some("i")));
    assert_eq!(page(Some("i"), Some(own[0].0), 1).await, own[1..2]);
    assert!(page(Some("none"), None, 9).await.is_empty());
}
