//! Who a session or a request speaks for, and what it may do.

use std::fmt;
use std::sync::Arc;

use super::{Pattern, Topic, TopicError};

/// The id of a user: made of what a topic is made of, because `user:<id>` is one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UserId(Arc<str>);

impl UserId {
    pub fn parse(text: &str) -> Result<UserId, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        Topic::parse(&format!("user:{text}"))?;
        Ok(UserId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic on which this user is reached.
    pub fn topic(&self) -> Topic {
        Topic::parse(&format!("user:{self}")).expect("a user id was checked to make a topic")
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who asks. An API key speaks for a server and has no user; everybody else is a user.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Principal {
    pub user: Option<UserId>,
    pub roles: Vec<Arc<str>>,
    /// An API key, or the role `admin`: may do everything.
    pub admin: bool,
    pub subscribe: Vec<Pattern>,
    pub publish: Vec<Pattern>,
    /// Seconds since 1970 from which the token counts no longer.
    pub expires_at_s: Option<i64>,
}

impl Principal {
    /// A server that holds an API key.
    pub fn server() -> Principal {
        Principal { admin: true, ..Principal::default() }
    }

    /// What a session of this principal is subscribed to without asking.
    pub fn own_topics(&self) -> Vec<Topic> {
        let Some(user) = &self.user else { return Vec::new() };
        let roles = self.roles.iter().filter_map(|role| Topic::parse(&format!("role:{role}")).ok());
        [user.topic(), Topic::broadcast()].into_iter().chain(roles).collect()
    }

    pub fn may_subscribe(&self, pattern: &Pattern) -> bool {
        let own =
            || self.own_topics().into_iter().any(|topic| Pattern::Exact(topic).covers(pattern));
        self.admin || self.subscribe.iter().any(|granted| granted.covers(pattern)) || own()
    }

    pub fn may_publish(&self, topic: &Topic) -> bool {
        let granted = || self.publish.iter().any(|granted| granted.matches(topic));
        !topic.is_of_replicas() && (self.admin || granted())
    }

    /// Whether there is a topic on which it may publish.
    pub fn may_publish_anything(&self) -> bool {
        self.admin || !self.publish.is_empty()
    }

    /// The key under which a draft of this principal is remembered.
    ///
    /// Users have a space of their own each: whoever could guess a key of somebody else's
    /// would otherwise swallow a message by publishing first.
    /// A user id has no space in it, so no two spaces overlap.
    pub fn idempotency_scope(&self, key: &str) -> Arc<str> {
        match &self.user {
            Some(user) => format!("u {user} {key}").into(),
            None => format!("s {key}").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(subscribe: &[&str], publish: &[&str]) -> Principal {
        let patterns = |list: &[&str]| list.iter().map(|p| Pattern::parse(p).unwrap()).collect();
        Principal {
            user: Some(UserId::parse("1").unwrap()),
            roles: vec!["ops".into()],
            subscribe: patterns(subscribe),
            publish: patterns(publish),
            ..Principal::default()
        }
    }

    #[test]
    fn a_user_hears_its_own_topics_and_what_was_granted() {
        let user = user(&["order:*"], &[]);
        for (pattern, may) in [
            ("user:1", true),
            ("broadcast", true),
            ("role:ops", true),
            ("order:7", true),
            ("order:*", true),
            ("user:12", false),
            ("user:*", false),
            ("user:1*", false),
            ("role:*", false),
            ("role:admin", false),
            ("*", false),
            ("order*", false),
        ] {
            assert_eq!(user.may_subscribe(&Pattern::parse(pattern).unwrap()), may, "{pattern}");
        }
    }

    #[test]
    fn a_user_publishes_only_where_it_was_granted() {
        let user = user(&["*"], &["chat:*"]);
        assert!(user.may_publish(&Topic::parse("chat:1").unwrap()));
        assert!(!user.may_publish(&Topic::parse("user:1").unwrap()));
        assert!(Principal::server().may_publish(&Topic::parse("user:1").unwrap()));
        assert!(!Principal::server().may_publish(&Topic::of_replicas("call")));
    }

    #[test]
    fn nobody_meets_the_idempotency_keys_of_others() {
        let of =
            |id: &str| Principal { user: Some(UserId::parse(id).unwrap()), ..Principal::default() };
        let keys = [
            Principal::server().idempotency_scope("k"),
            Principal::server().idempotency_scope("a k"),
            of("a").idempotency_scope("k"),
            of("b").idempotency_scope("k"),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|other| other != one), "{one}");
        }
        assert!(UserId::parse("a k").is_err());
    }
}
