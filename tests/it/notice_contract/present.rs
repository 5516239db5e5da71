//! Who is there, and for how long a dead replica's sessions count.

use tidings::domain::{Pattern, Topic};
use tidings::store::presence::{Changes, Move, Own, PresentSession, Renewed};

use super::*;

const LEASE: Duration = Duration::from_secs(20);

fn own(name: &str) -> Own {
    Own { id: format!("{name}/1").into(), name: name.into() }
}

fn session(id: &str, name: &str, patterns: &[&str]) -> PresentSession {
    let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    PresentSession {
        id: id.into(),
        user: user(name),
        patterns,
        since: Timestamp(1_795_168_000_000),
    }
}

fn moved(name: &str, topic: &str, joined: bool) -> Move {
    Move { user: user(name), topic: Topic::parse(topic).unwrap(), joined }
}

impl Subject {
    async fn write(&self, replica: &str, there: Vec<PresentSession>, gone: &[&str]) -> Vec<Move> {
        self.presence.renew(&own(replica), LEASE).await.unwrap();
        let room = Topic::parse("room:1").unwrap();
        let watched = ["1", "2"].map(|name| (user(name), room.clone()));
        let gone = gone.iter().map(|id| (*id).into()).collect();
        let changes = Changes { there, gone, watched: watched.to_vec() };
        let mut moves = self.presence.write(&own(replica), &changes).await.unwrap();
        moves.sort_by(|one, other| one.user.cmp(&other.user));
        moves
    }

    async fn there(&self, topic: Option<&str>) -> Vec<(String, u64, usize)> {
        let topic = topic.map(|topic| Topic::parse(topic).unwrap());
        let users = self.presence.users(topic.as_ref(), None, 100).await.unwrap();
        users.iter().map(|one| (one.user.to_string(), one.sessions, one.replicas.len())).collect()
    }
}

pub async fn sessions_are_counted_by_user_and_topic(subject: Subject) {
    let there = vec![session("s1", "1", &["user:1", "room:1"]), session("s2", "2", &["room:*"])];
    subject.write("a", there, &[]).await;
    subject.write("b", vec![session("s3", "1", &["user:1"])], &[]).await;
    assert_eq!(subject.there(None).await, [("1".into(), 2, 2), ("2".into(), 1, 1)]);
    assert_eq!(subject.there(Some("room:1")).await, [("1".into(), 1, 1), ("2".into(), 1, 1)]);
    assert_eq!(subject.there(Some("room:2")).await, [("2".into(), 1, 1)]);
    let page = subject.presence.users(None, Some(&user("1")), 1).await.unwrap();
    assert_eq!((page.len(), &page[0].user), (1, &user("2")));
    assert_eq!(page[0].since, Timestamp(1_795_168_000_000));
    subject.write("a", vec![session("s2", "2", &["other"])], &["s1"]).await;
    assert_eq!(subject.there(Some("room:1")).await, []);
    assert_eq!(subject.there(None).await, [("1".into(), 1, 1), ("2".into(), 1, 1)]);
    let renewed = subject.presence.renew(&own("a"), LEASE).await.unwrap();
    assert_eq!(renewed, Renewed { known: 1, lapsed: false });
    let replicas = subject.presence.replicas().await.unwrap();
    let names: Vec<(&str, u64)> = replicas.iter().map(|one| (&*one.name, one.sessions)).collect();
    assert_eq!(names, [("a", 1), ("b", 1)]);
}

pub async fn who_joins_and_leaves_is_told_once(subject: Subject) {
    let moves = subject.write("a", vec![session("s1", "1", &["room:1"])], &[]).await;
    assert_eq!(moves, [moved("1", "room:1", true)]);
    // A second tab changes nothing, nor does closing one of the two.
    assert_eq!(subject.write("b", vec![session("s2", "1", &["room:1"])], &[]).await, []);
    assert_eq!(subject.write("a", vec![session("s3", "2", &["other"])], &["s1"]).await, []);
    assert_eq!(subject.write("b", vec![], &["s2"]).await, [moved("1", "room:1", false)]);
}

pub async fn a_replica_that_renews_no_more_takes_its_sessions_with_it(subject: Subject) {
    subject.write("a", vec![session("s1", "1", &["room:1"])], &[]).await;
    subject.seconds_pass(21).await;
    subject.write("b", vec![session("s2", "2", &["room:1"])], &[]).await;
    assert_eq!(subject.there(None).await, [("2".into(), 1, 1)]);
    let renewed = subject.presence.renew(&own("b"), LEASE).await.unwrap();
    assert_eq!(renewed, Renewed { known: 1, lapsed: true });
    let watched = [Pattern::parse("room:*").unwrap()];
    let left = subject.presence.reap(None, &watched).await.unwrap();
    assert_eq!(left, [moved("1", "room:1", false)]);
    assert_eq!(subject.presence.reap(None, &watched).await.unwrap(), []);
    assert_eq!(subject.presence.replicas().await.unwrap().len(), 1);
    // One that leaves says so.
    let left = subject.presence.reap(Some(&own("b")), &watched).await.unwrap();
    assert_eq!(left, [moved("2", "room:1", false)]);
    assert_eq!(subject.there(None).await, []);
}

pub async fn recipients_who_have_sessions_are_online(subject: Subject) {
    subject.send(&new("n", users(&["1", "2", "3"]))).await;
    let there = vec![session("s1", "1", &[]), session("s2", "1", &[]), session("s3", "4", &[])];
    subject.write("a", there, &[]).await;
    assert_eq!(subject.tally("n").await.online, 1);
    subject.seconds_pass(21).await;
    assert_eq!(subject.tally("n").await.online, 0);
}
