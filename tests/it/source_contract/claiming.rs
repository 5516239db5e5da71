//! Who reads which source.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::*;

async fn let_go(subject: &Subject, claimed: &SourceClaimed, count: usize) {
    let release = |lease: &tidings::store::source::SourceLease| Part {
        release: true,
        ..Part::new(lease.id.clone(), lease.term, lease.flushed + 1)
    };
    let parts: Vec<Part> = claimed.leases.iter().take(count).map(release).collect();
    for (_, outcome) in subject.readers.flush(&parts).await.unwrap() {
        assert_eq!(outcome, Flushed::Done);
    }
}

pub async fn readers_share_what_there_is_to_read(subject: Subject) {
    for number in 0..7 {
        subject.create(&format!("s{number}"), &rules()).await;
    }
    let one = subject.claim("one 1").await;
    assert_eq!((one.total, one.share, one.leases.len()), (7, 7, 7));
    let two = subject.claim("two 2").await;
    assert_eq!((two.total, two.share, two.leases.len()), (7, 4, 0), "nothing is free");
    let one = subject.claim("one 1").await;
    assert_eq!((one.share, one.leases.len()), (4, 7), "it is told to give up three");
    let_go(&subject, &one, 3).await;
    // The second asks first; the first has its share already.
    let two = subject.held("two 2").await;
    let one = subject.held("one 1").await;
    assert_eq!((one.len(), two.len()), (4, 3));
    assert!(two.iter().all(|name| !one.contains(name)));
    let small = SourceClaim { sources_max: 1, ..subject.claim_of("three 3") };
    let three = subject.readers.claim(&small).await.unwrap();
    assert_eq!((three.total, three.share, three.leases.len()), (7, 1, 0));
    let one = subject.claim("one 1").await;
    assert_eq!(one.share, 3);
    let_go(&subject, &one, 2).await;
    assert_eq!(subject.readers.claim(&small).await.unwrap().leases.len(), 1);
    assert_eq!(subject.readers.claim(&small).await.unwrap().leases.len(), 1);
}

pub async fn a_source_is_given_to_one_reader_though_many_ask_at_once(subject: Subject) {
    for number in 0..60 {
        subject.create(&format!("s{number:02}"), &rules()).await;
    }
    subject.connected().await;
    let mut held: BTreeSet<SourceId> = BTreeSet::new();
    let claims: Vec<SourceClaim> = (0..12)
        .map(|number| SourceClaim {
            sources_max: 5,
            ..subject.claim_of(&format!("r{number} {number}"))
        })
        .collect();
    // Whoever found a row locked passes over it, and finds it at the next look.
    for _ in 0..8 {
        let claimed = join_all(claims.iter().map(|claim| subject.readers.claim(claim))).await;
        held.clear();
        for claimed in claimed {
            let claimed = claimed.unwrap();
            assert!(claimed.leases.len() <= 5 && claimed.share <= 5);
            for lease in claimed.leases {
                assert!(held.insert(lease.id.clone()), "{} is read twice", lease.id);
            }
        }
    }
    assert_eq!(held.len(), 60);
}

pub async fn what_a_dead_reader_held_is_taken_over(subject: Subject) {
    let (id, term) = subject.owned("a").await;
    subject.stand(&id, term, 1, SourceStatus::Connected).await;
    assert!(subject.held("two 2").await.is_empty());
    subject.let_leases_run_out().await;
    assert_eq!(subject.source(&id).await.replica, None, "nobody reads it now");
    let two = subject.claim("two 2").await;
    assert_eq!((two.share, two.leases.len()), (1, 1));
    assert!(two.leases[0].term > term);
    assert_eq!(two.leases[0].flushed, 0);
    assert_eq!(subject.source(&id).await.replica.as_deref(), Some("two"));
    let late =
        Part { status: Some((SourceStatus::Failing, None)), ..Part::new(id.clone(), term, 2) };
    assert_eq!(subject.flush(&late).await, Flushed::Lost);
    assert_eq!(subject.source(&id).await.status, SourceStatus::Connected);
    assert!(subject.held("one 1").await.is_empty());
    // Another life of the same replica is another reader.
    assert!(subject.held("two 3").await.is_empty());
}

pub async fn who_was_away_first_only_renews(subject: Subject) {
    for number in 0..4 {
        subject.create(&format!("s{number}"), &rules()).await;
    }
    let before = subject.claim("one 1").await;
    assert_eq!(before.leases.len(), 4);
    subject.let_leases_run_out().await;
    let renews = |holder| SourceClaim { takes: false, ..subject.claim_of(holder) };
    let two = subject.readers.claim(&renews("two 2")).await.unwrap();
    assert_eq!((two.total, two.leases.len()), (4, 0));
    let one = SourceClaim { holds: true, ..renews("one 1") };
    let one = subject.readers.claim(&one).await.unwrap();
    assert_eq!(one.leases, before.leases, "as if nothing had been");
    let two = subject.claim("two 2").await;
    assert_eq!((two.share, two.leases.len()), (2, 0));
}

pub async fn who_holds_nothing_of_nothing_is_no_reader(subject: Subject) {
    let none = SourceClaimed { total: 0, share: 0, leases: Vec::new() };
    assert_eq!(subject.claim("one 1").await, none);
    if let Hand::Database(client) = &subject.hand {
        assert_eq!(number(client, "select count(*) from tidings.source_reader").await, 0);
    }
    let (id, _) = subject.owned("a").await;
    assert!(subject.sources.delete(&id).await.unwrap());
    // It still has something in hand, and renews.
    let holds = SourceClaim { holds: true, ..subject.claim_of("two 2") };
    assert_eq!(subject.readers.claim(&holds).await.unwrap(), none);
    let (id, _) = subject.owned("b").await;
    subject.create("c", &rules()).await;
    // Two are known to be there: each has one.
    assert_eq!(subject.held("one 1").await, [id.as_str()]);
    assert_eq!(subject.held("two 2").await, ["c"]);
}

pub async fn what_is_disabled_or_stopped_is_not_given(subject: Subject) {
    for name in ["a", "b", "c"] {
        subject.create(name, &rules()).await;
    }
    assert_eq!(subject.held("one 1").await, ["a", "b", "c"]);
    let disabled = SourceRules { enabled: false, ..rules() };
    assert!(subject.sources.change(&id("a"), 1, &disabled).await.unwrap());
    let term = subject.term(&id("b")).await;
    subject.stand(&id("b"), term, 1, SourceStatus::Stopped).await;
    let claimed = subject.claim("one 1").await;
    assert_eq!((claimed.total, claimed.share, claimed.leases.len()), (1, 1, 1));
    subject.let_leases_run_out().await;
    assert_eq!(subject.held("two 2").await, ["c"]);
    // A change makes each of them due again.
    assert!(subject.sources.change(&id("a"), 2, &rules()).await.unwrap());
    assert!(subject.sources.change(&id("b"), 1, &rules()).await.unwrap());
    assert_eq!(subject.held("two 2").await, ["a", "b", "c"]);
}

pub async fn a_lease_says_where_its_source_goes_on(subject: Subject) {
    let id = subject.create("a", &stream()).await;
    let lease = subject.claim("one 1").await.leases.remove(0);
    let rules = stream();
    assert_eq!((lease.id, lease.revision, lease.flushed), (id.clone(), 1, 0));
    assert_eq!((lease.format, lease.url, lease.sealed), (rules.format, rules.url, rules.sealed));
    let part = Part {
        last_event_id: Some("é 1".into()),
        logged: Some((20_413, 9_999)),
        ..Part::new(id.clone(), lease.term, 7)
    };
    assert_eq!(subject.flush(&part).await, Flushed::Done);
    // What a part does not tell stays as it was.
    assert_eq!(subject.flush(&Part::new(id, lease.term, 8)).await, Flushed::Done);
    let again = subject.claim("one 1").await.leases.remove(0);
    assert_eq!((again.term, again.flushed, again.logged), (lease.term, 8, (20_413, 9_999)));
    assert_eq!(again.last_event_id.as_deref(), Some("é 1"));
    subject.let_leases_run_out().await;
    let next = subject.claim("two 2").await.leases.remove(0);
    assert_eq!((next.flushed, next.logged), (0, (20_413, 9_999)));
    assert_eq!(next.last_event_id.as_deref(), Some("é 1"));
}

pub async fn a_reader_that_leaves_is_not_waited_for(subject: Subject) {
    let (id, _) = subject.owned("a").await;
    assert!(subject.held("two 2").await.is_empty());
    subject.readers.release("one 1").await.unwrap();
    let two = subject.claim("two 2").await;
    assert_eq!((two.share, two.leases.len()), (1, 1));
    assert_eq!(two.leases[0].id, id);
    subject.readers.release("nobody").await.unwrap();
}

#[tokio::test]
async fn a_source_that_somebody_writes_to_is_passed_over_and_not_waited_for() {
    let subject = postgres().await;
    let Hand::Database(client) = &subject.hand else { unreachable!() };
    for name in ["a", "b", "c"] {
        subject.create(name, &rules()).await;
    }
    client
        .batch_execute("begin; select from tidings.source where id = 'b' for update")
        .await
        .unwrap();
    assert_eq!(subject.held("one 1").await, ["a", "c"]);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(subject.held("one 1").await, ["a", "b", "c"]);
}
