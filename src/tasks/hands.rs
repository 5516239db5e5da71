//! How many items a replica has in hand at once, shared between the owners of tasks.
//!
//! An owner takes another hand only while he holds less than four times what is free, so that one
//! alone has four fifths of all at most and leaves some to whoever comes; several end up with equal
//! shares as their hands return. A hand that returns goes to the owner who waits and holds the least.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::domain::UserId;

/// How much of what is free an owner may hold.
const TIMES_FREE: usize = 4;

/// Nobody is an owner too: of what servers submitted for nobody.
pub type Owner = Option<UserId>;

#[derive(Clone)]
pub struct Hands {
    books: Arc<Mutex<Books>>,
}

/// Returns when it is dropped.
pub struct Hand {
    books: Arc<Mutex<Books>>,
    owner: Owner,
}

struct Books {
    free: usize,
    owners: HashMap<Owner, Account>,
}

#[derive(Default)]
struct Account {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Hand>>,
}

impl Hands {
    pub fn new(count: usize) -> Hands {
        Hands { books: Arc::new(Mutex::new(Books { free: count, owners: HashMap::new() })) }
    }

    pub fn free(&self) -> usize {
        self.books.lock().free
    }

    /// A hand, if there is one for this owner and nobody of his waits for it.
    pub fn try_take(&self, owner: &Owner) -> Option<Hand> {
        let mut books = self.books.lock();
        let free = books.free;
        let account = books.owners.entry(owner.clone()).or_default();
        if !account.waiting.is_empty() || !account.may_take(free) {
            return None;
        }
        account.held += 1;
        books.free -= 1;
        drop(books);
        Some(self.hand(owner.clone()))
    }

    /// Waits for one, in turn with whoever else of this owner does.
    pub async fn take(&self, owner: &Owner) -> Hand {
        loop {
            if let Some(hand) = self.try_take(owner) {
                return hand;
            }
            let (sender, hand) = oneshot::channel();
            self.books.lock().owners.entry(owner.clone()).or_default().waiting.push_back(sender);
            // One may have returned in between.
            settle(&self.books);
            if let Ok(hand) = hand.await {
                return hand;
            }
        }
    }

    fn hand(&self, owner: Owner) -> Hand {
        Hand { books: self.books.clone(), owner }
    }
}

impl Hand {
    /// Returns, and where another one is to be had.
    pub fn let_go(self) -> (Hands, Owner) {
        (Hands { books: self.books.clone() }, self.owner.clone())
    }
}

impl Account {
    fn may_take(&self, free: usize) -> bool {
        free > 0 && self.held < TIMES_FREE * free
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        {
            let mut books = self.books.lock();
            books.free += 1;
            if let Some(account) = books.owners.get_mut(&self.owner) {
                account.held -= 1;
                if account.held == 0 && account.waiting.is_empty() {
                    books.owners.remove(&self.owner);
                }
            }
        }
        settle(&self.books);
    }
}

/// Gives what is free to those who wait.
fn settle(shared: &Arc<Mutex<Books>>) {
    loop {
        let mut books = shared.lock();
        let free = books.free;
        let waits = |account: &Account| !account.waiting.is_empty() && account.may_take(free);
        let accounts = books.owners.iter_mut().filter(|(_, account)| waits(account));
        let Some((owner, account)) = accounts.min_by_key(|(_, account)| account.held) else {
            return;
        };
        let Some(sender) = account.waiting.pop_front() else { return };
        let owner = owner.clone();
        account.held += 1;
        books.free -= 1;
        drop(books);
        // Whoever waits no more lets it fall, and it comes back here.
        drop(sender.send(Hand { books: shared.clone(), owner }));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn owner(name: &str) -> Owner {
        Some(UserId::parse(name).unwrap())
    }

    fn take_all(hands: &Hands, name: &str) -> Vec<Hand> {
        std::iter::from_fn(|| hands.try_take(&owner(name))).collect()
    }

    #[test]
    fn whoever_takes_all_he_can_leaves_some_to_the_next() {
        let hands = Hands::new(500);
        let held: Vec<_> = ["a", "b", "c", "d"].map(|name| take_all(&hands, name)).into();
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [400, 80, 16, 4]);
        assert_eq!(hands.free(), 0);
        drop(held);
        assert_eq!(hands.free(), 500);
        assert!(hands.books.lock().owners.is_empty());
        // A few are still all of use.
        assert_eq!(take_all(&Hands::new(3), "a").len(), 3);
        assert_eq!(take_all(&Hands::new(1), "a").len(), 1);
    }

    #[tokio::test]
    async fn hands_that_return_go_to_whoever_holds_the_least() {
        let hands = Hands::new(100);
        let mut first = take_all(&hands, "a");
        let mut second = take_all(&hands, "b");
        for _ in 0..200 {
            // Both want more all the time, and the first one's items end.
            let (a, b) = (owner("a"), owner("b"));
            let (more_a, more_b) = (hands.take(&a), hands.take(&b));
            tokio::pin!(more_a, more_b);
            let mut wanted = [(&mut first, more_a.as_mut()), (&mut second, more_b.as_mut())];
            // Whoever has his share waits.
            wanted.iter_mut().for_each(|(held, more)| held.extend(more.as_mut().now_or_never()));
            let most = usize::from(wanted[0].0.len() < wanted[1].0.len());
            drop(wanted[most].0.pop());
        }
        assert!(first.len().abs_diff(second.len()) <= 2, "{} and {}", first.len(), second.len());
        assert!(first.len() + second.len() >= 85, "{} and {}", first.len(), second.len());
    }

    #[tokio::test]
    async fn of_one_owner_they_go_in_turn_and_to_nobody_who_has_left() {
        let hands = Hands::new(1);
        let own = owner("a");
        let hand = hands.try_take(&own);
        let mut gone = Box::pin(hands.take(&own));
        let mut second = Box::pin(hands.take(&own));
        let mut third = Box::pin(hands.take(&own));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(gone);
        drop(hand);
        assert!(hands.try_take(&own).is_none(), "somebody waits");
        assert!(third.as_mut().now_or_never().is_none());
        let hand = second.as_mut().now_or_never();
        assert!(hand.is_some());
        drop(hand);
        assert!(third.as_mut().now_or_never().is_some());
    }
}
