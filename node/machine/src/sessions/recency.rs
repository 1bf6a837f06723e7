//! Which session has been idle longest.
//!
//! A doubly linked list in an array, so that using a session costs a few
//! writes. It follows from the sessions' own numbers of use, so that views and
//! snapshots do without it.

/// Indexes of sessions, from the one used longest ago to the latest.
#[derive(Debug)]
pub(crate) struct Recency {
    links: Vec<Link>,
    oldest: u32,
    latest: u32,
    free: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

const NONE: u32 = u32::MAX;

impl Default for Recency {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            oldest: NONE,
            latest: NONE,
            free: Vec::new(),
        }
    }
}

impl Recency {
    /// All places from 0 on, in the order of use given.
    pub(crate) fn of(order: &[u32]) -> Self {
        let mut recency = Self {
            links: vec![
                Link {
                    before: NONE,
                    after: NONE,
                };
                order.len()
            ],
            ..Self::default()
        };
        order.iter().for_each(|&slot| recency.append(slot));
        recency
    }

    /// A place for a new session, which counts as the latest used.
    ///
    /// # Panics
    /// Above 2^32 - 1 places: the limit of sessions is far below.
    pub(crate) fn add(&mut self) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.links.push(Link {
                before: NONE,
                after: NONE,
            });
            u32::try_from(self.links.len() - 1).expect("fewer than 2^32 sessions")
        });
        self.append(slot);
        slot
    }

    /// The session has been used.
    pub(crate) fn touch(&mut self, slot: u32) {
        if slot != self.latest {
            self.unlink(slot);
            self.append(slot);
        }
    }

    /// The session is gone; its place may be used again.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        self.free.push(slot);
    }

    /// The session used longest ago.
    pub(crate) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    fn append(&mut self, slot: u32) {
        self.links[slot as usize] = Link {
            before: self.latest,
            after: NONE,
        };
        match self.latest {
            NONE => self.oldest = slot,
            latest => self.links[latest as usize].after = slot,
        }
        self.latest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Link { before, after } = self.links[slot as usize];
        match before {
            NONE => self.oldest = after,
            before => self.links[before as usize].after = after,
        }
        match after {
            NONE => self.latest = before,
            after => self.links[after as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_list_by_use(steps in proptest::collection::vec((0_u8..3, any::<prop::sample::Index>()), 0..200)) {
            let mut recency = Recency::default();
            let mut model: Vec<u32> = Vec::new();
            for (step, index) in steps {
                match step {
                    0 => {
                        let slot = recency.add();
                        prop_assert!(!model.contains(&slot));
                        model.push(slot);
                    }
                    1 if !model.is_empty() => {
                        let slot = model.remove(index.index(model.len()));
                        recency.touch(slot);
                        model.push(slot);
                    }
                    2 if !model.is_empty() => {
                        recency.remove(model.remove(index.index(model.len())));
                    }
                    _ => {}
                }
                prop_assert_eq!(recency.oldest(), model.first().copied());
            }
            while let Some(slot) = recency.oldest() {
                prop_assert_eq!(slot, model.remove(0));
                recency.remove(slot);
            }
            prop_assert!(model.is_empty());
            let order = [2, 0, 3, 1];
            let mut recency = Recency::of(&order);
            for slot in order {
                prop_assert_eq!(recency.oldest(), Some(slot));
                recency.remove(slot);
            }
        }
    }
}
