//! How many sessions there may be, how fast a client may send, and from which pages.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Problem;
use crate::domain::UserId;

/// Counts sessions, in all and per user, and what is being read of bodies.
#[derive(Clone)]
pub struct Limits {
    counts: Arc<Mutex<Counts>>,
    /// In KiB, which is as far as a semaphore counts.
    bodies: Arc<Semaphore>,
}

#[derive(Default)]
struct Counts {
    sessions: usize,
    by_user: HashMap<UserId, usize>,
}

/// A session's place, given back when it is dropped.
pub struct Place {
    counts: Arc<Mutex<Counts>>,
    user: Option<UserId>,
}

impl Limits {
    /// Bodies that are read at once hold so many bytes together.
    pub fn new(bodies_bytes_max: usize) -> Limits {
        let bodies = Arc::new(Semaphore::new(bodies_bytes_max.div_ceil(1 << 10)));
        Limits { counts: Arc::default(), bodies }
    }

    /// Room for a body, until it is dropped.
    pub fn body(&self, length: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let size = u32::try_from(length.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let room = self.bodies.clone().try_acquire_many_owned(size);
        room.map_err(|_| Problem::too_many("as many bodies are being read as there is room for"))
    }

    pub fn enter(
        &self,
        user: Option<&UserId>,
        sessions_max: usize,
        per_user_max: usize,
    ) -> Result<Place, Problem> {
        let mut counts = self.counts.lock();
        if counts.sessions >= sessions_max {
            return Err(Problem::too_many("this replica holds as many sessions as it may"));
        }
        if let Some(user) = user {
            let own = counts.by_user.entry(user.clone()).or_default();
            if *own >= per_user_max {
                return Err(Problem::too_many("this user has as many sessions here as it may"));
            }
            *own += 1;
        }
        counts.sessions += 1;
        Ok(Place { counts: self.counts.clone(), user: user.cloned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.sessions -= 1;
        if let Some(user) = &self.user
            && let Some(own) = counts.by_user.get_mut(user)
        {
            *own -= 1;
            if *own == 0 {
                counts.by_user.remove(user);
            }
        }
    }
}

/// How fast one session may send frames; twice as many may come at once.
pub struct FrameRate(DefaultDirectRateLimiter);

impl FrameRate {
    pub fn new(per_s: u32) -> FrameRate {
        let per_s = NonZeroU32::new(per_s).unwrap_or(NonZeroU32::MIN);
        let burst = per_s.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        FrameRate(RateLimiter::direct(Quota::per_second(per_s).allow_burst(burst)))
    }

    pub fn allows_one(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// Which pages may talk to this server from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginPolicy {
    /// `*`: every page.
    pub any: bool,
    /// Besides pages that this server itself served.
    pub origins: Vec<String>,
    /// Without tokens, the only guard against a page that got its name to point here is the name
    /// under which it asks.
    pub loopback_names_only: bool,
}

impl OriginPolicy {
    /// Requests that come from no page have no Origin, and pass.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let text = |name: HeaderName| headers.get(name).map(HeaderValue::to_str);
        let host = text(header::HOST).and_then(Result::ok).unwrap_or_default();
        if self.loopback_names_only && !is_loopback_name(host) {
            return false;
        }
        let Some(origin) = text(header::ORIGIN) else { return true };
        let Ok(origin) = origin else { return false };
        let same =
            origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
        same || self.names(origin)
    }

    /// Whether the settings name the origin: its pages may read what they are answered.
    pub fn lists(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.names(origin))
    }

    fn names(&self, origin: &str) -> bool {
        self.any || self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_bounded_in_all_and_per_user() {
        let limits = Limits::new(0);
        let ann = UserId::parse("ann").unwrap();
        let bob = UserId::parse("bob").unwrap();
        let first = limits.enter(Some(&ann), 3, 2);
        let _second = limits.enter(Some(&ann), 3, 2).ok().unwrap();
        assert!(limits.enter(Some(&ann), 3, 2).is_err());
        let _third = limits.enter(Some(&bob), 3, 2).ok().unwrap();
        assert!(limits.enter(None, 3, 2).is_err());
        drop(first);
        assert!(limits.enter(Some(&ann), 3, 2).is_ok());
        assert_eq!(limits.counts.lock().by_user.len(), 2);
    }

    #[test]
    fn frames_are_bounded_with_a_burst_of_twice_as_many() {
        let rate = FrameRate::new(5);
        let passed = (0..100).filter(|_| rate.allows_one()).count();
        assert!((10..=12).contains(&passed), "{passed}");
    }

    #[test]
    fn only_pages_that_are_allowed_may_ask() {
        let headers = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            headers
        };
        let same = OriginPolicy::default();
        let listed = OriginPolicy { origins: vec!["https://app.test".into()], ..same.clone() };
        let any = OriginPolicy { any: true, ..same.clone() };
        let dev = OriginPolicy { loopback_names_only: true, ..same.clone() };
        for (policy, host, origin, allowed) in [
            (&same, "t.test", None, true),
            (&same, "t.test", Some("https://t.test"), true),
            (&same, "t.test:8080", Some("http://t.test:8080"), true),
            (&same, "t.test", Some("https://t.test:444"), false),
            (&same, "t.test", Some("https://app.test"), false),
            (&same, "t.test", Some("null"), false),
            (&listed, "t.test", Some("https://app.test"), true),
            (&listed, "t.test", Some("https://app.test.evil"), false),
            (&listed, "t.test", Some("http://app.test"), false),
            (&any, "t.test", Some("null"), true),
            (&dev, "localhost:8080", None, true),
            (&dev, "127.0.0.1:8080", Some("http://127.0.0.1:8080"), true),
            (&dev, "[::1]:8080", None, true),
            (&dev, "evil.test:8080", Some("http://evil.test:8080"), false),
            (&dev, "localhost:8080", Some("http://evil.test"), false),
        ] {
            assert_eq!(policy.allows(&headers(host, origin)), allowed, "{host} {origin:?}");
        }
    }
}
