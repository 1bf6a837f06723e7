//! From a name to its place in a list, without a comparison with many others.
//!
//! An ordered map of a million names compares one with twenty of them, each in
//! memory of its own. Here a name is hashed, and compared with the one that is
//! found. It follows from the list, so that views and snapshots do without it.
//!
//! Clients choose the names, so the hashes are other ones in each process: nobody can
//! find names that collide. They decide nothing, since the tables are only asked, and
//! answer by the whole name.

use hashbrown::HashTable;
use std::hash::{BuildHasher as _, RandomState};

/// A part grows at a time, and is hashed anew for that: a million names at once
/// would keep the log waiting.
const PARTS: usize = 64;

/// The places of names.
#[derive(Debug)]
pub(crate) struct Names {
    parts: Vec<HashTable<u32>>,
    hasher: RandomState,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            parts: vec![HashTable::new(); PARTS],
            hasher: RandomState::new(),
        }
    }
}

impl Names {
    /// All places below `count`.
    pub(crate) fn of<'n>(count: u32, name_at: impl Fn(u32) -> &'n str) -> Self {
        let mut names = Self::default();
        for part in &mut names.parts {
            part.reserve(count as usize / PARTS, |_| unreachable!("it is empty"));
        }
        for place in 0..count {
            names.insert(place, &name_at);
        }
        names
    }

    /// Where the name is.
    pub(crate) fn find<'n>(&self, name: &str, name_at: impl Fn(u32) -> &'n str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.parts[part(hash)]
            .find(hash, |&place| name_at(place) == name)
            .copied()
    }

    /// The name at this place, which no other has.
    pub(crate) fn insert<'n>(&mut self, place: u32, name_at: impl Fn(u32) -> &'n str) {
        let hash_at = |place: &u32| self.hasher.hash_one(name_at(*place));
        let hash = hash_at(&place);
        self.parts[part(hash)].insert_unique(hash, place, hash_at);
    }

    /// The name is no more at this place.
    ///
    /// # Panics
    /// When it never was.
    pub(crate) fn remove(&mut self, name: &str, place: u32) {
        let hash = self.hasher.hash_one(name);
        self.parts[part(hash)]
            .find_entry(hash, |&other| other == place)
            .expect("every place is listed under its name")
            .remove();
    }
}

/// By bits that a table does not use: it takes the lowest and the highest seven.
fn part(hash: u64) -> usize {
    usize::try_from(hash >> 48).expect("16 bits fit") % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_where_it_was_put() {
        let list: Vec<String> = (0..10_000).map(|number| format!("name-{number}")).collect();
        let name_at = |place: u32| list[place as usize].as_str();
        let mut names = Names::of(5_000, name_at);
        for place in 5_000..10_000 {
            assert_eq!(names.find(name_at(place), name_at), None);
            names.insert(place, name_at);
        }
        for place in (0..10_000).step_by(3) {
            names.remove(name_at(place), place);
        }
        for place in 0..10_000 {
            let expected = (place % 3 != 0).then_some(place);
            assert_eq!(names.find(name_at(place), name_at), expected);
        }
        assert_eq!(names.find("another", name_at), None);
    }

    #[test]
    fn every_part_is_used() {
        let list: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
        let names = Names::of(10_000, |place| &list[place as usize]);
        for part in &names.parts {
            assert!((50..300).contains(&part.len()), "{}", part.len());
        }
    }
}
