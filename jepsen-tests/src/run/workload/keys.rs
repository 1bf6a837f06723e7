//! The keys that values are appended to: their hunts, and the subscriptions to
//! them. A key takes a limited number of operations, so that checkers which search
//! can judge it; then the next one is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use huntlog_client::event;

use super::super::stage::Stage;
use super::SetupError;
use super::clients::Clients;
use super::key::{Key, definition};

/// Operations of the workers on one key, but for the end of its last batch. With
/// the polls and what the end of a run adds, a key stays below 1,000.
const OPS_PER_KEY: usize = 800;
/// Between two polls of one subscription.
const POLL_PAUSE: Duration = Duration::from_millis(150);
/// Polls of one subscription before it goes on at another node.
const POLLS_PER_NODE: u32 = 7;
/// Polls of one key while it is in use.
const POLLS_PER_KEY: u32 = 120;
/// Hunts created by one batch.
const HUNTS_PER_BATCH: usize = 500;

/// Keys in the order of their use, several of them used at a time.
#[derive(Debug)]
pub(crate) struct Keys {
    lanes: Vec<Arc<Lane>>,
}

#[derive(Debug)]
pub(crate) struct Lane {
    keys: Vec<Arc<Key>>,
    used: AtomicUsize,
}

impl Keys {
    /// Keys for `ops` operations, `lanes` of them in use at a time.
    pub(super) fn new(prefix: &str, lanes: usize, ops: u64) -> Self {
        let per_lane = usize::try_from(ops).unwrap_or(usize::MAX) / (OPS_PER_KEY * lanes) + 2;
        let lane = |lane: usize| {
            let keys =
                (0..per_lane).map(|number| Arc::new(Key::new(format!("{prefix}{lane}-{number}"))));
            Arc::new(Lane {
                keys: keys.collect(),
                used: AtomicUsize::new(0),
            })
        };
        Self {
            lanes: (0..lanes).map(lane).collect(),
        }
    }

    /// The lane of the worker `number`.
    pub(super) fn lane(&self, number: u32) -> Arc<Lane> {
        Arc::clone(&self.lanes[number as usize % self.lanes.len()])
    }

    /// The keys that operations were made on.
    pub(super) fn used(&self) -> Vec<Arc<Key>> {
        self.lanes.iter().flat_map(|lane| lane.used()).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.lanes.iter().flat_map(|lane| &lane.keys)
    }

    /// Creates the hunts, and starts a subscriber for each lane.
    pub(super) async fn start(
        &self,
        stage: &Arc<Stage>,
        clients: &mut Clients,
    ) -> Result<(), SetupError> {
        let first = &self.lanes[0].keys[0].name;
        let setup = stage.client.session(&format!("setup-{first}")).await?;
        let names: Vec<&String> = self.all().map(|key| &key.name).collect();
        for names in names.chunks(HUNTS_PER_BATCH) {
            let created = names
                .iter()
                .map(|name| event::hunt_created(name, definition()));
            setup.append_batch(created.collect()).await?.await?;
        }
        setup.close().await?;
        for lane in &self.lanes {
            let name = format!("the subscriber of {}", lane.keys[0].name);
            clients.spawn(name, subscribe(Arc::clone(lane), Arc::clone(stage)));
        }
        Ok(())
    }
}

impl Lane {
    /// The key of the next `count` operations; none once all are used up.
    pub(super) fn next(&self, count: usize) -> Option<Arc<Key>> {
        let ops = self.used.fetch_add(count, Ordering::Relaxed);
        self.keys.get(ops / OPS_PER_KEY).cloned()
    }

    fn current(&self) -> Option<&Arc<Key>> {
        let ops = self.used.load(Ordering::Relaxed);
        self.keys.get(ops / OPS_PER_KEY)
    }

    fn used(&self) -> Vec<Arc<Key>> {
        let ops = self.used.load(Ordering::Relaxed);
        let keys = ops.div_ceil(OPS_PER_KEY);
        self.keys.iter().take(keys).cloned().collect()
    }
}

/// Polls the key that is in use, at one node after the other.
async fn subscribe(lane: Arc<Lane>, stage: Arc<Stage>) {
    let mut client = stage.recorder.client();
    let mut random = stage.random(&format!("sub-{}", lane.keys[0].name));
    while let (Some(key), false) = (lane.current(), stage.stopped()) {
        let mut polls = 0;
        while polls < POLLS_PER_KEY && !stage.stopped() {
            let node = stage.node(&mut random);
            let mut subscription = key.subscription(&node.client);
            for _ in 0..POLLS_PER_NODE {
                polls += 1;
                let answered = key.poll(&mut client, &mut subscription).await;
                let answered = stage.heard_call(answered).is_ok();
                tokio::select! {
                    () = stage.until_stopped() => return,
                    () = tokio::time::sleep(POLL_PAUSE) => {}
                }
                if !answered {
                    break;
                }
            }
            if !lane
                .current()
                .is_some_and(|current| Arc::ptr_eq(current, key))
            {
                break;
            }
        }
        if polls >= POLLS_PER_KEY {
            // The rest comes at the end.
            tokio::select! {
                () = stage.until_stopped() => return,
                () = tokio::time::sleep(POLL_PAUSE) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_with_the_batch_that_fills_it() {
        let keys = Keys::new("h", 1, 10);
        let lane = keys.lane(0);
        let next = |count| lane.next(count).map(|key| key.name.clone());
        for _ in 0..OPS_PER_KEY / 16 - 1 {
            assert_eq!(next(16).as_deref(), Some("h0-0"));
        }
        assert_eq!(next(15).as_deref(), Some("h0-0"));
        assert_eq!(next(16).as_deref(), Some("h0-0"), "it has begun there");
        assert_eq!(next(1).as_deref(), Some("h0-1"));
        assert_eq!(keys.used().len(), 2);
    }
}
