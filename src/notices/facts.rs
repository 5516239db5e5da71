//! What sessions ask of notices to everybody and to roles: who is left out.
//!
//! Whether or not it is remembered here the answer is the same, since who is left out of a notice
//! never changes. Without it each of ten thousand sessions would ask the store about each such notice
//! that comes to them. Bounded by forgetting everything at once, which costs one question a notice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{NoticeId, UserId};
use crate::store::StoreError;

/// How many are remembered.
const FACTS_MAX: usize = 1_024;

/// For how long a store that did not answer is not asked again: all sessions want to know at once, and
/// each would wait for its own answer in turn.
const PAUSE: Duration = Duration::from_millis(500);

/// Who is left out; `None`: there is no such notice, though somebody published a message about it.
pub type Except = Option<Arc<[UserId]>>;

pub struct Facts {
    max: usize,
    known: Mutex<HashMap<NoticeId, Except>>,
    /// One at a time: a notice comes to all sessions at once, and one of them asks.
    asking: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts::new(FACTS_MAX)
    }
}

impl Facts {
    fn new(max: usize) -> Facts {
        Facts { max, known: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// `asked` is awaited if it is not known: who is left out, as the store says.
    pub async fn of(
        &self,
        id: &NoticeId,
        asked: impl Future<Output = Result<Option<Vec<UserId>>, StoreError>>,
    ) -> Result<Except, StoreError> {
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let mut failed = self.asking.lock().await;
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        // A message is heard of after it was committed with its notice: what is not there now never was.
        let found = match asked.await {
            Ok(found) => found,
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        let except = found.map(Arc::from);
        let mut known = self.known.lock();
        if known.len() >= self.max {
            known.clear();
        }
        if self.max > 0 {
            known.insert(id.clone(), except.clone());
        }
        Ok(except)
    }

    fn known(&self, id: &NoticeId) -> Option<Except> {
        self.known.lock().get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        UserId::parse(&format!("u{number}")).unwrap()
    }

    #[tokio::test]
    async fn what_is_remembered_and_what_is_asked_are_the_same_and_bounded() {
        let (with, without) = (Facts::new(2), Facts::new(0));
        // 5 and 6 are of messages that only look like notices.
        for number in [0, 1, 0, 5, 2, 3, 4, 6, 5, 1, 1] {
            let id = NoticeId::parse(&format!("n{number}")).unwrap();
            let kept = || async move { Ok((number < 5).then(|| vec![user(number)])) };
            let known = with.of(&id, kept()).await.unwrap();
            let expected = (number < 5).then(|| vec![user(number)]);
            assert_eq!(known.as_deref(), expected.as_deref());
            assert_eq!(without.of(&id, kept()).await.unwrap(), known);
            assert!(with.known.lock().len() <= 2 && without.known.lock().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_left_alone_for_a_while() {
        let facts = Facts::default();
        let id = NoticeId::parse("n").unwrap();
        let away = StoreError::Unavailable("away".to_owned());
        let refused = async { Err(away.clone()) };
        assert_eq!(facts.of(&id, refused).await, Err(away.clone()));
        let unasked = async { panic!("it is left alone") };
        assert_eq!(facts.of(&id, unasked).await, Err(away));
        tokio::time::advance(PAUSE).await;
        let found = facts.of(&id, async { Ok(Some(vec![user(1)])) }).await.unwrap();
        assert_eq!(found.as_deref(), Some(&[user(1)][..]));
    }
}
