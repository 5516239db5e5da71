//! A map of a few names, in their order: a list, which weighs what is in it and no more.
//!
//! While nothing can be written, thousands of instances keep a dozen of them each; a tree of two names
//! takes the room of eleven.

use std::sync::Arc;

#[derive(Clone, PartialEq, Debug)]
pub struct Few<T>(Vec<(Arc<str>, T)>);

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few(Vec::new())
    }
}

impl<T> Few<T> {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| (**own).cmp(name))
    }

    pub fn get(&self, name: &str) -> Option<&T> {
        self.place(name).ok().map(|place| &self.0[place].1)
    }

    /// Changes what is there, or puts in what is not.
    pub fn put(&mut self, name: &Arc<str>, value: T, merge: impl FnOnce(&mut T, T)) {
        match self.place(name) {
            Ok(place) => merge(&mut self.0[place].1, value),
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (name.clone(), value));
            }
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (Arc<str>, T)> {
        self.0.iter()
    }
}

impl<T> FromIterator<(Arc<str>, T)> for Few<T> {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, T)>>(all: I) -> Few<T> {
        let mut few = Few::default();
        for (name, value) in all {
            few.put(&name, value, |own, other| *own = other);
        }
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_their_order_and_once() {
        let all = [("b", 1), ("a", 2), ("b", 4)].map(|(name, value)| (Arc::from(name), value));
        let mut few: Few<i32> = all.into_iter().collect();
        few.put(&"a".into(), 8, |own, other| *own += other);
        assert_eq!((few.get("a"), few.get("b"), few.get("c")), (Some(&10), Some(&4), None));
        assert_eq!(few.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a", "b"]);
    }
}
