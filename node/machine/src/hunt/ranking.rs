//! An ordered set that also knows positions: the scoreboard's order.
//!
//! A weight-balanced tree (Hirai and Yamamoto, "Balancing weight-balanced
//! trees", 2011, parameters 3 and 2) of shared nodes: inserting, removing, the
//! rank of a key and the key of a rank take logarithmic time, and a clone takes
//! none, for the copies share what neither changes.

use std::cmp::Ordering;
use std::sync::Arc;

/// The ordered set.
#[derive(Debug, Clone)]
pub(crate) struct Ranking<K> {
    root: Tree<K>,
}

type Tree<K> = Option<Arc<Node<K>>>;

#[derive(Debug, Clone)]
struct Node<K> {
    key: K,
    len: usize,
    left: Tree<K>,
    right: Tree<K>,
}

const WHOLE: &str = "a rotation finds the nodes that the sizes tell of";

impl<K> Default for Ranking<K> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<K: Ord + Clone> Ranking<K> {
    pub(crate) fn len(&self) -> usize {
        len(&self.root)
    }

    /// Adds a key; one that is there already is left alone.
    pub(crate) fn insert(&mut self, key: K) {
        insert(&mut self.root, key);
    }

    /// Removes a key, if it is there.
    pub(crate) fn remove(&mut self, key: &K) {
        remove(&mut self.root, key);
    }

    /// How many keys come before this one.
    pub(crate) fn rank(&self, key: &K) -> usize {
        let mut rank = 0;
        let mut tree = &self.root;
        while let Some(node) = tree {
            match key.cmp(&node.key) {
                Ordering::Less => tree = &node.left,
                Ordering::Equal => return rank + len(&node.left),
                Ordering::Greater => {
                    rank += len(&node.left) + 1;
                    tree = &node.right;
                }
            }
        }
        rank
    }

    /// The keys in order, without the first `skip`.
    pub(crate) fn iter_from(&self, skip: usize) -> Iter<'_, K> {
        let mut path = Vec::new();
        let mut tree = self.root.as_deref();
        let mut skip = skip;
        while let Some(node) = tree {
            let before = len(&node.left);
            if skip <= before {
                path.push(node);
                tree = node.left.as_deref();
            } else {
                skip -= before + 1;
                tree = node.right.as_deref();
            }
        }
        Iter { path }
    }
}

/// Keys in order.
#[derive(Debug, Clone)]
pub(crate) struct Iter<'a, K> {
    /// Nodes yet to be given, the next one last.
    path: Vec<&'a Node<K>>,
}

impl<'a, K> Iterator for Iter<'a, K> {
    type Item = &'a K;

    fn next(&mut self) -> Option<&'a K> {
        let node = self.path.pop()?;
        let mut tree = node.right.as_deref();
        while let Some(next) = tree {
            self.path.push(next);
            tree = next.left.as_deref();
        }
        Some(&node.key)
    }
}

fn len<K>(tree: &Tree<K>) -> usize {
    tree.as_ref().map_or(0, |node| node.len)
}

fn insert<K: Ord + Clone>(tree: &mut Tree<K>, key: K) {
    let Some(node) = tree else {
        *tree = Some(Arc::new(Node {
            key,
            len: 1,
            left: None,
            right: None,
        }));
        return;
    };
    let node = Arc::make_mut(node);
    match key.cmp(&node.key) {
        Ordering::Less => insert(&mut node.left, key),
        Ordering::Greater => insert(&mut node.right, key),
        Ordering::Equal => return,
    }
    balance(tree);
}

fn remove<K: Ord + Clone>(tree: &mut Tree<K>, key: &K) {
    let Some(node) = tree else { return };
    let node = Arc::make_mut(node);
    match key.cmp(&node.key) {
        Ordering::Less => remove(&mut node.left, key),
        Ordering::Greater => remove(&mut node.right, key),
        Ordering::Equal => match (node.left.take(), node.right.take()) {
            (None, rest) | (rest, None) => {
                *tree = rest;
                return;
            }
            (left, right) => {
                node.left = left;
                node.right = right;
                node.key = take_first(&mut node.right);
            }
        },
    }
    balance(tree);
}

/// Removes the least key of a tree that has one.
fn take_first<K: Ord + Clone>(tree: &mut Tree<K>) -> K {
    let node = Arc::make_mut(tree.as_mut().expect(WHOLE));
    if node.left.is_some() {
        let first = take_first(&mut node.left);
        balance(tree);
        return first;
    }
    let first = node.key.clone();
    let right = node.right.take();
    *tree = right;
    first
}

/// Counts a node again, and rotates it if one side has become too heavy.
fn balance<K: Clone>(tree: &mut Tree<K>) {
    let node = Arc::make_mut(tree.as_mut().expect(WHOLE));
    let (left, right) = (len(&node.left), len(&node.right));
    node.len = left + right + 1;
    if right + 1 > 3 * (left + 1) {
        let heavy = Arc::make_mut(node.right.as_mut().expect(WHOLE));
        if len(&heavy.left) + 1 >= 2 * (len(&heavy.right) + 1) {
            rotate_right(&mut node.right);
        }
        rotate_left(tree);
    } else if left + 1 > 3 * (right + 1) {
        let heavy = Arc::make_mut(node.left.as_mut().expect(WHOLE));
        if len(&heavy.right) + 1 >= 2 * (len(&heavy.left) + 1) {
            rotate_left(&mut node.left);
        }
        rotate_right(tree);
    }
}

fn rotate_left<K: Clone>(tree: &mut Tree<K>) {
    let mut lower = tree.take().expect(WHOLE);
    let node = Arc::make_mut(&mut lower);
    let mut upper = node.right.take().expect(WHOLE);
    let raised = Arc::make_mut(&mut upper);
    node.right = raised.left.take();
    node.len = len(&node.left) + len(&node.right) + 1;
    raised.len = node.len + len(&raised.right) + 1;
    raised.left = Some(lower);
    *tree = Some(upper);
}

fn rotate_right<K: Clone>(tree: &mut Tree<K>) {
    let mut lower = tree.take().expect(WHOLE);
    let node = Arc::make_mut(&mut lower);
    let mut upper = node.left.take().expect(WHOLE);
    let raised = Arc::make_mut(&mut upper);
    node.left = raised.right.take();
    node.len = len(&node.left) + len(&node.right) + 1;
    raised.len = node.len + len(&raised.left) + 1;
    raised.right = Some(lower);
    *tree = Some(upper);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Checks sizes and balance, and returns the depth.
    fn check<K: Ord>(tree: &Tree<K>) -> usize {
        let Some(node) = tree else { return 0 };
        let (left, right) = (len(&node.left), len(&node.right));
        assert_eq!(node.len, left + right + 1);
        assert!(
            right < 3 * (left + 1) && left < 3 * (right + 1),
            "{left} {right}"
        );
        1 + check(&node.left).max(check(&node.right))
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_set(steps in proptest::collection::vec((any::<bool>(), 0_u8..60), 0..400)) {
            let mut ranking = Ranking::default();
            let mut model = BTreeSet::new();
            let mut before = (ranking.clone(), model.clone());
            for (position, (add, key)) in steps.into_iter().enumerate() {
                if add {
                    ranking.insert(key);
                    model.insert(key);
                } else {
                    ranking.remove(&key);
                    model.remove(&key);
                }
                check(&ranking.root);
                prop_assert_eq!(ranking.len(), model.len());
                prop_assert_eq!(ranking.rank(&key), model.range(..key).count());
                if position == 200 {
                    before = (ranking.clone(), model.clone());
                }
            }
            for skip in 0..=model.len() {
                prop_assert!(ranking.iter_from(skip).eq(model.iter().skip(skip)));
            }
            // A clone is not touched by what comes after it.
            prop_assert!(before.0.iter_from(0).eq(before.1.iter()));
        }
    }

    #[test]
    fn depth_grows_slowly() {
        let mut ranking = Ranking::default();
        (0..100_000_u32).for_each(|key| ranking.insert(key));
        assert!(check(&ranking.root) <= 34);
        assert_eq!(ranking.iter_from(70_000).next(), Some(&70_000));
    }
}
