//! The index in memory, for simulations: batches stay atomic and in order, and the last ones can be lost.

use super::{Change, Changes, IndexFault, KeyValue};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A simulated index; clones are handles to the same one.
#[derive(Clone, Default)]
pub struct SimIndex {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Batches since the last sync.
    pending: Vec<Vec<Change>>,
}

fn change(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &[Change]) {
    for (key, value) in batch {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

impl SimIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches that a crash may lose.
    pub fn unsynced_batches(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Loses all but the first `kept` batches since the last sync.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state.lock();
        let State {
            map,
            durable,
            pending,
        } = &mut *state;
        for batch in pending.drain(..).take(kept) {
            change(durable, &batch);
        }
        map.clone_from(durable);
    }

    /// Loses everything, as when the index's directory was removed.
    pub fn clear(&self) {
        *self.state.lock() = State::default();
    }

    /// Changes keys and values behind everyone's back, durably.
    pub fn tamper(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) {
        let mut state = self.state.lock();
        state.pending.clear();
        change(&mut state.map);
        state.durable = state.map.clone();
    }

    /// An index of its own with the same content, all of it durable.
    pub fn fork(&self) -> Self {
        let copy = Self::default();
        let map = self.state.lock().map.clone();
        copy.tamper(|to| *to = map);
        copy
    }
}

impl std::fmt::Debug for SimIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimIndex").finish_non_exhaustive()
    }
}

impl KeyValue for SimIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexFault> {
        Ok(self.state.lock().map.get(key).cloned())
    }

    fn scan(
        &self,
        range: Range<Vec<u8>>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexFault> {
        if range.start >= range.end {
            return Ok(());
        }
        for (key, value) in self.state.lock().map.range(range) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: Changes) -> Result<(), IndexFault> {
        let mut state = self.state.lock();
        change(&mut state.map, &changes.0);
        state.pending.push(changes.0);
        Ok(())
    }

    fn sync(&self) -> Result<(), IndexFault> {
        let mut state = self.state.lock();
        let State {
            durable, pending, ..
        } = &mut *state;
        for batch in pending.drain(..) {
            change(durable, &batch);
        }
        Ok(())
    }
}
