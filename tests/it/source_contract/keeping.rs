//! Sources come, change and go, and leave nothing behind.

use futures_util::future::join_all;
use tidings::store::source::SWEPT_MAX;

use super::*;

pub async fn a_source_is_kept_as_it_was_made(subject: Subject) {
    for (name, rules) in [("push", rules()), ("read", stream())] {
        let id = subject.create(name, &rules).await;
        let source = subject.source(&id).await;
        assert_eq!((&source.id, &source.rules, source.revision), (&id, &rules, 1));
        assert_eq!(
            (source.status, source.detail, source.replica),
            (SourceStatus::Idle, None, None)
        );
        assert_eq!((source.created_at, source.seen_at), (source.updated_at, None));
        let off = (subject.now().await.0 - source.created_at.0).abs();
        assert!(off < 60_000, "made {off} ms from now");
        let again = subject.sources.create(&id, &stream(), MANY).await.unwrap();
        assert_eq!(again, Created::Known);
        assert_eq!(subject.source(&id).await.rules, rules);
    }
    let disabled = SourceRules { enabled: false, ..rules() };
    let id = subject.create("off", &disabled).await;
    assert_eq!(subject.source(&id).await.status, SourceStatus::Disabled);
    assert_eq!(subject.sources.get(&super::id("none")).await.unwrap(), None);
    assert!(!subject.sources.delete(&super::id("none")).await.unwrap());
    assert!(!subject.sources.change(&super::id("none"), 1, &disabled).await.unwrap());
}

pub async fn sources_come_in_their_order_page_by_page(subject: Subject) {
    for name in ["b", "a", "B", "a-1", "a.1", "a1", "_"] {
        subject.create(name, &rules()).await;
    }
    let list = async |after: Option<&str>, limit| {
        let after = after.map(id);
        let found = subject.sources.list(after.as_ref(), limit).await.unwrap();
        found.iter().map(|source| source.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list(None, 100).await, "B _ a a-1 a.1 a1 b");
    assert_eq!(list(None, 3).await, "B _ a");
    assert_eq!(list(Some("a"), 2).await, "a-1 a.1");
    assert_eq!(list(Some("a-2"), 9).await, "a.1 a1 b");
    assert_eq!(list(Some("b"), 9).await, "");
}

pub async fn a_change_needs_the_revision_that_was_seen(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    subject.stand(&id, term, 1, SourceStatus::Connected).await;
    assert_eq!(subject.source(&id).await.replica.as_deref(), Some("one"));
    let disabled = SourceRules { enabled: false, ..stream() };
    assert!(subject.sources.change(&id, 1, &disabled).await.unwrap());
    let changed = subject.source(&id).await;
    assert_eq!((&changed.rules, changed.revision), (&disabled, 2));
    assert_eq!(changed.status, SourceStatus::Disabled);
    assert!(changed.updated_at >= changed.created_at);
    // Its reader still says how it stood; what a user said stands.
    subject.stand(&id, term, 2, SourceStatus::Failing).await;
    assert_eq!(subject.source(&id).await.status, SourceStatus::Disabled);
    assert!(!subject.sources.change(&id, 1, &rules()).await.unwrap());
    assert_eq!(subject.source(&id).await.rules, disabled);
    let wished = stream();
    let both = (0..8).map(|_| subject.sources.change(&id, 2, &wished));
    let changed = join_all(both).await.into_iter().filter(|one| *one.as_ref().unwrap()).count();
    assert_eq!(changed, 1, "of those who saw the same revision one changes it");
    let last = subject.source(&id).await;
    assert_eq!((last.revision, last.status, last.detail), (3, SourceStatus::Idle, None));
}

pub async fn there_are_so_many_sources_and_no_more(subject: Subject) {
    subject.connected().await;
    let create = async |number: usize| {
        subject.sources.create(&id(&format!("s{number}")), &rules(), 5).await.unwrap()
    };
    assert_eq!(create(0).await, Created::Done);
    let outcomes = join_all((1..=12).map(create)).await;
    let made = outcomes.iter().filter(|outcome| **outcome == Created::Done).count();
    let full = outcomes.iter().filter(|outcome| **outcome == Created::Full).count();
    assert_eq!((made, full), (4, 8), "{outcomes:?}");
    assert_eq!(create(0).await, Created::Known);
    assert!(subject.sources.delete(&id("s0")).await.unwrap());
    assert_eq!(create(99).await, Created::Done);
    assert_eq!(create(0).await, Created::Full);
    let (one, wished) = (id("one"), stream());
    let racing = (0..8).map(|_| subject.sources.create(&one, &wished, MANY));
    let outcomes = join_all(racing).await;
    let made = outcomes.iter().filter(|outcome| *outcome.as_ref().unwrap() == Created::Done);
    assert_eq!(made.count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| *outcome.as_ref().unwrap() != Created::Full));
}

/// A part with something of everything.
fn whole(id: &SourceId, term: i64, number: i64, now: Timestamp) -> Part {
    Part {
        status: Some((SourceStatus::Connected, Some("well".into()))),
        last_event_id: Some("77".into()),
        instances: vec![("i".into(), instance(now, 5)), ("j".into(), instance(now, 6))],
        rollups: vec![("i".into(), before(now, MINUTE), grown(5))],
        events: vec![(now, r#"{"type":"update"}"#.into())],
        logs: vec![line(now, Some("i"), "a line")],
        logged: Some((20_000, 1)),
        messages: vec![said("instance.created", Some("i"))],
        ..Part::new(id.clone(), term, number)
    }
}

pub async fn a_source_made_again_begins_anew(subject: Subject) {
    let (id, old) = subject.owned("a").await;
    let now = subject.now().await;
    subject.sources.ingest(&id, "[]").await.unwrap();
    assert_eq!(subject.flush(&whole(&id, old, 1, now)).await, Flushed::Done);
    assert!(subject.sources.delete(&id).await.unwrap());
    assert!(!subject.sources.delete(&id).await.unwrap());
    assert_eq!(subject.flush(&whole(&id, old, 2, now)).await, Flushed::Lost);
    assert!(subject.lines(&id).await.is_empty());
    subject.create("a", &rules()).await;
    let source = subject.source(&id).await;
    assert_eq!((source.revision, source.status), (1, SourceStatus::Idle));
    assert_eq!((source.detail, source.seen_at, source.replica), (None, None, None));
    let lease = subject.claim("one 1").await.leases.remove(0);
    assert_eq!((lease.flushed, lease.last_event_id, lease.logged), (0, None, (0, 0)));
    assert_ne!(lease.term, old, "what the old one's reader still has in hand is not the new one's");
    assert_eq!(subject.flush(&whole(&id, old, 3, now)).await, Flushed::Lost);
    let counted = subject.counted(&id).await;
    let none = (0, 0, vec![(0, 0); 3]);
    assert_eq!((counted.instances, counted.lines, counted.grown), none);
    assert!(subject.readers.inbox(&[(id.clone(), 0)], 10).await.unwrap().is_empty());
    let dashboard = subject.sources.dashboard(None).await.unwrap();
    assert!(dashboard.instances.is_empty() && dashboard.counters.is_empty(), "{dashboard:?}");
    assert_eq!(subject.flush(&whole(&id, lease.term, 1, now)).await, Flushed::Done);
    assert_eq!(subject.counted(&id).await.grown, [(5, 1); 3]);
}

pub async fn what_a_deleted_source_left_is_swept(subject: Subject) {
    let now = subject.now().await;
    let minutes = i64::from(SWEPT_MAX) + 500;
    for name in ["goes", "goes-too", "stays"] {
        let (id, term) = subject.owned(name).await;
        let mut part = whole(&id, term, 1, now);
        // Young enough to be kept, and more than one sweep takes.
        let many = if name == "goes" { minutes } else { 30 };
        let one = |number| ("i".into(), before(now, number * MINUTE), grown(1));
        part.rollups = (0..many).map(one).collect();
        assert_eq!(subject.flush(&part).await, Flushed::Done);
    }
    let kept = subject.counted(&id("stays")).await;
    let rows =
        "select (select count(*) from tidings.instance) + (select count(*) from tidings.rollup)
        + (select count(*) from tidings.source_events) + (select count(*) from tidings.source_log)";
    let before = match &subject.hand {
        Hand::Database(client) => number(client, rows).await,
        Hand::Clock(..) => 0,
    };
    for name in ["goes", "goes-too"] {
        assert!(subject.sources.delete(&id(name)).await.unwrap());
    }
    let swept = subject.sweep().await;
    let Swept { orphans, .. } = swept;
    assert_eq!(swept, Swept { orphans, ..Swept::default() });
    if let Hand::Database(client) = &subject.hand {
        assert!(orphans > u64::from(SWEPT_MAX), "{orphans}");
        assert_eq!(before - number(client, rows).await, i64::try_from(orphans).unwrap());
        assert_eq!(number(client, "select count(*) from tidings.source_gone").await, 0);
        for table in ["instance", "rollup", "source_events", "source_log", "source_inbox"] {
            let left = format!(
                "select count(*) from tidings.{table} where source not in (select number from tidings.source)"
            );
            assert_eq!(number(client, &left).await, 0, "{table}");
        }
    }
    assert_eq!(subject.counted(&id("stays")).await, kept);
}
