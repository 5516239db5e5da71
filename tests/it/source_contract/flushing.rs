//! What a reader writes: once, whole, and only while the source is its own.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

pub async fn what_was_flushed_is_read_again(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let mut odd = instance(now, u64::MAX);
    odd.facts.insert("é".into(), r#"{"a":[1,null,"\u0001"]}"#.into());
    odd.gauges = [("least".into(), -f64::MAX), ("small".into(), 5e-324)].into();
    odd.counters.insert(
        "many".into(),
        Counter { value: 0, at: before(now, 1), total: u128::from(u64::MAX) * 1_000 },
    );
    let mut waiting = Bucket::default();
    waiting.grow(&"rx".into(), Growth::of(u64::MAX));
    waiting.grow(&"rx".into(), Growth::of(u64::MAX));
    waiting.show(&"ping".into(), Course::of(0.1));
    odd.pending.minutes.insert(Timestamp(now.0 - now.0 % MINUTE), waiting);
    let gone = Instance { status: InstanceStatus::Deleted, ..instance(before(now, DAY), 1) };
    let down = Instance { status: InstanceStatus::Down, ..instance(now, 2) };
    let first = Part {
        instances: vec![("odd".into(), odd.clone()), ("gone".into(), gone.clone())],
        status: Some((SourceStatus::Failing, Some("it is away: \"é\"".into()))),
        ..Part::new(id.clone(), term, 1)
    };
    assert_eq!(subject.flush(&first).await, Flushed::Done);
    let second =
        Part { instances: vec![("gone".into(), down.clone())], ..Part::new(id.clone(), term, 2) };
    assert_eq!(subject.flush(&second).await, Flushed::Done);
    let read = named(subject.readers.instances(&id).await.unwrap());
    assert_eq!(read, [("odd".to_owned(), odd), ("gone".to_owned(), down)].into());
    let source = subject.source(&id).await;
    assert_eq!(
        (source.status, source.detail.as_deref()),
        (SourceStatus::Failing, Some("it is away: \"é\""))
    );
    assert!(source.seen_at.is_some());
    subject.stand(&id, term, 3, SourceStatus::Connected).await;
    assert_eq!(subject.source(&id).await.detail, None);
    assert!(subject.readers.instances(&super::id("none")).await.unwrap().is_empty());
}

fn part(id: &SourceId, term: i64, number: i64, now: Timestamp) -> Part {
    Part {
        instances: vec![("i".into(), instance(now, 5))],
        rollups: vec![
            ("i".into(), before(now, MINUTE), grown(5)),
            ("i".into(), before(now, MINUTE), grown(6)),
            ("i".into(), before(now, 2 * MINUTE), grown(7)),
        ],
        events: vec![(now, r#"{"type":"update"}"#.into()), (before(now, 5), "{}".into())],
        logs: vec![line(now, None, "one"), line(now, Some("i"), "two")],
        messages: vec![said("instance.created", Some("i")), said("source.status", None)],
        ..Part::new(id.clone(), term, number)
    }
}

pub async fn a_part_told_twice_writes_nothing_more(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let first = part(&id, term, 1, now);
    assert_eq!(subject.flush(&first).await, Flushed::Done);
    let counted = subject.counted(&id).await;
    assert_eq!((counted.instances, counted.lines, counted.messages), (1, 2, 2));
    assert_eq!(counted.grown, [(18, 3); 3]);
    assert_eq!(
        subject.said(&id).await,
        [("instance.created".to_owned(), Some("i".to_owned())), ("source.status".to_owned(), None)]
    );
    assert_eq!(subject.flush(&first).await, Flushed::Done);
    assert_eq!(subject.counted(&id).await, counted);
    // One whose number was left out before is as good as written; the next one is not.
    assert_eq!(subject.flush(&part(&id, term, 4, now)).await, Flushed::Done);
    let twice = subject.counted(&id).await;
    assert_eq!(twice.grown, [(36, 6); 3]);
    assert_eq!((twice.lines, twice.messages), (4, 4));
    for number in [1, 2, 3, 4] {
        assert_eq!(subject.flush(&part(&id, term, number, now)).await, Flushed::Done);
        assert_eq!(subject.counted(&id).await, twice);
    }
}

pub async fn a_part_of_another_term_is_lost_and_writes_nothing(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let (other, other_term) = subject.owned("b").await;
    let now = subject.now().await;
    let empty = subject.counted(&id).await;
    let parts = [
        part(&id, term - 1, 1, now),
        part(&other, other_term, 1, now),
        part(&super::id("none"), 1, 1, now),
        part(&super::id("nothing"), term + 1, 9, now),
    ];
    let outcomes = subject.readers.flush(&parts).await.unwrap();
    let outcomes: BTreeMap<SourceId, Flushed> = outcomes.into_iter().collect();
    let lost = |name: &str| (super::id(name), Flushed::Lost);
    assert_eq!(
        outcomes,
        [lost("a"), (other.clone(), Flushed::Done), lost("none"), lost("nothing")].into()
    );
    assert_eq!(subject.flush(&part(&id, term + 1, 1, now)).await, Flushed::Lost);
    assert_eq!(subject.counted(&id).await, empty);
    assert_eq!(subject.counted(&other).await.grown, [(18, 3); 3]);
    assert_eq!(subject.readers.flush(&[]).await.unwrap(), []);
}

pub async fn a_part_that_releases_its_source_is_the_last(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let last = Part { release: true, ..part(&id, term, 1, now) };
    assert_eq!(subject.flush(&last).await, Flushed::Done);
    assert_eq!(subject.source(&id).await.replica, None);
    let two = subject.claim("two 2").await;
    assert_eq!(two.leases.len(), 1);
    // Its answer was lost and it comes again, when somebody else reads the source.
    assert_eq!(subject.flush(&last).await, Flushed::Lost);
    assert_eq!(subject.source(&id).await.replica.as_deref(), Some("two"));
    assert_eq!(subject.counted(&id).await.grown, [(18, 3); 3]);
}

/// What has been told, as it should be found.
#[derive(Default)]
struct Model {
    buckets: BTreeMap<(Level, Timestamp), Bucket>,
}

impl Model {
    fn add(&mut self, at: Timestamp, bucket: &Bucket) {
        for level in Level::ALL {
            self.buckets.entry((level, level.bucket(at))).or_default().merge(bucket);
        }
    }
}

pub async fn increments_add_up_over_minute_hour_and_day(subject: Subject) {
    for seed in 0..12_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let (id, term) = subject.owned(&format!("s{seed}")).await;
        let end = subject.now().await;
        let mut model = Model::default();
        let mut number = 0;
        for _ in 0..random.random_range(1..12) {
            number += random.random_range(1..3);
            let mut part = Part::new(id.clone(), term, number);
            for _ in 0..random.random_range(0..40) {
                let mut bucket = Bucket::default();
                for _ in 0..random.random_range(1..4) {
                    let most = if random.random_bool(0.2) { u64::MAX } else { 1_000 };
                    bucket.grow(&"rx".into(), Growth::of(random.random_range(0..=most)));
                }
                // Halves add up exactly in any order.
                let shown = f64::from(random.random_range(-2_000..2_000)) / 2.0;
                bucket.show(&"ping".into(), Course::of(shown));
                // Near each other, so that they meet, and over more than two days.
                let spread = if random.random_bool(0.5) { 5 * MINUTE } else { 2 * DAY + HOUR };
                let at = before(end, random.random_range(0..spread));
                let name = format!("i{}", random.random_range(0..3));
                model.add(at, &bucket);
                part.rollups.push((name.into(), at, bucket));
            }
            for _ in 0..random.random_range(1..3) {
                assert_eq!(subject.flush(&part).await, Flushed::Done);
            }
        }
        for level in Level::ALL {
            let length = level.length_ms();
            let first = level.bucket(before(end, 2 * DAY + HOUR)).0;
            let buckets: Vec<(i64, i64)> = (first..=end.0)
                .step_by(usize::try_from(length).unwrap())
                .map(|at| (at, at + length))
                .collect();
            let rx = subject.points(&id, None, "rx", level, &buckets).await;
            let ping = subject.points(&id, None, "ping", level, &buckets).await;
            let mut found = 0;
            for (place, (at, _)) in buckets.iter().enumerate() {
                let expected = model.buckets.get(&(level, Timestamp(*at)));
                let growth = expected.and_then(|bucket| bucket.counters.get("rx"));
                let course = expected.and_then(|bucket| bucket.gauges.get("ping"));
                assert_eq!(rx[place].growth.as_ref(), growth, "seed {seed}, {level:?}, {at}");
                assert_eq!(ping[place].course.as_ref(), course, "seed {seed}, {level:?}, {at}");
                found += usize::from(growth.is_some());
            }
            let known = model.buckets.keys().filter(|(own, _)| *own == level).count();
            assert_eq!(found, known, "seed {seed}, {level:?}");
        }
    }
}

#[tokio::test]
async fn a_part_is_written_whole_or_not_at_all() {
    let subject = postgres().await;
    let Hand::Database(client) = &subject.hand else { unreachable!() };
    let (good, good_term) = subject.owned("a").await;
    let (bad, bad_term) = subject.owned("b").await;
    let now = subject.now().await;
    let (before_good, before_bad) = (subject.counted(&good).await, subject.counted(&bad).await);
    let refuse = "alter table tidings.source_log add constraint refused check (text <> 'refused')";
    client.batch_execute(refuse).await.unwrap();
    // Lines are the last of what is written.
    let mut refused = part(&bad, bad_term, 1, now);
    refused.logs.push(line(now, None, "refused"));
    let parts = [part(&good, good_term, 1, now), refused.clone()];
    let error = subject.readers.flush(&parts).await.unwrap_err();
    assert!(matches!(error, tidings::store::StoreError::Refused(_)), "{error}");
    assert_eq!(subject.counted(&good).await, before_good, "nor those that came with it");
    assert_eq!(subject.counted(&bad).await, before_bad);
    assert_eq!(subject.source(&bad).await.seen_at, None);
    client.batch_execute("alter table tidings.source_log drop constraint refused").await.unwrap();
    // Under the same number, since it was not written.
    for (_, outcome) in subject.readers.flush(&parts).await.unwrap() {
        assert_eq!(outcome, Flushed::Done);
    }
    assert_eq!(subject.counted(&bad).await.grown, [(18, 3); 3]);
    assert_eq!(subject.counted(&bad).await.lines, 3);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_said_short_and_its_part_is_written() {
    let subject = postgres().await;
    let (id, term) = subject.owned("a").await;
    let now = subject.now().await;
    let data = format!(r#"{{"static":"{}"}}"#, "x".repeat(262_144));
    let large = Said { data: data.into(), ..said("instance.deleted", Some("i")) };
    let part = Part { messages: vec![large], ..part(&id, term, 1, now) };
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    assert_eq!(subject.lines(&id).await.len(), 2);
    subject.upkeep.outbox_relay().await.unwrap().unwrap();
    let page = Page { messages_max: 10, bytes_max: 1 << 20 };
    let found = subject.log.range(Seq::ZERO, Seq::from_db(1), page).await.unwrap();
    let data: serde_json::Value = serde_json::from_str(&found.messages[0].data).unwrap();
    assert_eq!(data, serde_json::json!({"source": "a", "instance": "i", "truncated": true}));
    assert_eq!(found.messages[0].kind.as_deref(), Some("instance.deleted"));
}

#[tokio::test]
async fn readers_that_tell_of_the_same_sources_at_once_do_not_stop_each_other() {
    let subject = postgres().await;
    let mut terms = BTreeMap::new();
    for number in 0..20 {
        let (id, term) = subject.owned(&format!("s{number:02}")).await;
        terms.insert(id, term);
    }
    let now = subject.now().await;
    let parts = |number: i64, backwards: bool| {
        let mut parts: Vec<Part> =
            terms.iter().map(|(id, term)| part(id, *term, number, now)).collect();
        if backwards {
            parts.reverse();
        }
        parts
    };
    for round in 0..5 {
        let (forth, back) = (parts(round + 1, false), parts(round + 1, true));
        let (one, two) = tokio::join!(subject.readers.flush(&forth), subject.readers.flush(&back));
        assert_eq!((one.unwrap().len(), two.unwrap().len()), (20, 20));
    }
    for id in terms.keys() {
        assert_eq!(subject.growth(id, Level::Day).await, (18 * 5, 3 * 5));
    }
}
