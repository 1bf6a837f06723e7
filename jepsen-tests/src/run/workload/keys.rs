//! The keys that values are appended to: their hunts, the subscriptions to them,
//! and reading them whole at the end. A key takes a limited number of operations,
//! so that checkers which search can judge it; then the next one is used.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use huntlog_client::proto::event::Kind;
use huntlog_client::proto::{
    Accepted, Clue, CommittedEvent, Consistency, Filter, HuntDefinition, ReadRequest, Stale,
    consistency::Level,
};
use huntlog_client::{CallError, Client, Start, Subscription, event};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::super::finale::Finding;
use super::super::stage::Stage;
use super::SetupError;
use crate::history::{self, Op, Poll, Read, StaleRead};

/// Operations of the workers on one key. With the polls and what the end of a
/// run adds, a key stays below 1,000.
const OPS_PER_KEY: usize = 800;
/// Between two polls of one subscription.
const POLL_PAUSE: Duration = Duration::from_millis(150);
/// Polls of one subscription before it goes on at another node.
const POLLS_PER_NODE: u32 = 7;
/// Polls of one key while it is in use.
const POLLS_PER_KEY: u32 = 120;
/// What precedes a key's values in its hunt: its creation.
const SETUP_EVENTS: u64 = 1;
/// Bytes of a value's event.
const PAYLOAD_BYTES: usize = 64;
/// Hunts created by one batch.
const HUNTS_PER_BATCH: usize = 500;
/// How long reading one key at the end may take, over all attempts.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Keys that are read at once at the end.
const DRAINS: usize = 8;

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

/// One hunt whose accepted events are the key's values.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    state: Mutex<KeyState>,
}

#[derive(Debug, Default)]
struct KeyState {
    /// The furthest entry known, with its offset in the partition.
    known: Option<Place>,
    /// The subscription's next offset in the partition.
    subscribed: u64,
    /// And the number of entries it has delivered.
    delivered: u64,
}

/// Where an entry is: in its key, and in the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) in_key: u64,
    pub(crate) in_partition: u64,
}

impl Place {
    pub(crate) fn of(accepted: &Accepted) -> Self {
        Self {
            in_key: accepted.revision.saturating_sub(1 + SETUP_EVENTS),
            in_partition: accepted.offset,
        }
    }
}

/// The event that carries `value`.
pub(crate) fn value_event(key: &str, value: u64) -> huntlog_client::proto::Event {
    let mut payload = value.to_le_bytes().to_vec();
    payload.resize(PAYLOAD_BYTES, b'.');
    event::custom(key, "", "value", payload)
}

/// The values among `events`, with their offsets in the key.
fn values(events: &[CommittedEvent]) -> Vec<(u64, u64)> {
    events
        .iter()
        .filter_map(|event| {
            let Some(Kind::Custom(custom)) = event.event.as_ref()?.kind.as_ref() else {
                return None;
            };
            let bytes = custom.payload.get(..8)?.try_into().ok()?;
            let offset = event.revision.saturating_sub(1 + SETUP_EVENTS);
            Some((offset, u64::from_le_bytes(bytes)))
        })
        .collect()
}

/// A hunt that takes custom events from its creation on.
fn definition() -> HuntDefinition {
    HuntDefinition {
        clues: vec![Clue {
            id: "c".to_owned(),
            answers: vec!["a".to_owned()],
            ..Clue::default()
        }],
        ..HuntDefinition::default()
    }
}

impl Keys {
    /// Keys for `ops` operations, `lanes` of them in use at a time.
    pub(super) fn new(prefix: &str, lanes: usize, ops: u64) -> Self {
        let per_lane = usize::try_from(ops).unwrap_or(usize::MAX) / (OPS_PER_KEY * lanes) + 2;
        let lane = |lane: usize| {
            let keys = (0..per_lane).map(|number| {
                Arc::new(Key {
                    name: format!("{prefix}{lane}-{number}"),
                    state: Mutex::default(),
                })
            });
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

    fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.lanes.iter().flat_map(|lane| &lane.keys)
    }

    /// Creates the hunts, and starts a subscriber for each lane.
    pub(super) async fn start(
        &self,
        stage: &Arc<Stage>,
        tasks: &mut JoinSet<()>,
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
            tasks.spawn(subscribe(Arc::clone(lane), Arc::clone(stage)));
        }
        Ok(())
    }

    /// Reads every key that was used whole, and drains the subscription to it.
    pub(super) async fn drain(&self, stage: &Arc<Stage>) -> Vec<Finding> {
        let used: Vec<Arc<Key>> = self.lanes.iter().flat_map(|lane| lane.used()).collect();
        let next = Arc::new(AtomicUsize::new(0));
        let used = Arc::new(used);
        let mut tasks = JoinSet::new();
        for number in 0..DRAINS {
            let (used, next, stage) = (Arc::clone(&used), Arc::clone(&next), Arc::clone(stage));
            tasks.spawn(async move {
                let mut random = stage.random(&format!("drain-{number}"));
                let mut client = stage.recorder.client();
                let mut findings = Vec::new();
                while let Some(key) = used.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let node = stage.node(&mut random).client.clone();
                    findings.extend(key.drain(&stage, &mut client, node).await);
                }
                findings
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }
}

impl Lane {
    /// The key of the next operation; none once all are used up.
    pub(super) fn next(&self) -> Option<Arc<Key>> {
        let ops = self.used.fetch_add(1, Ordering::Relaxed);
        self.keys.get(ops / OPS_PER_KEY).cloned()
    }

    fn current(&self) -> Option<&Arc<Key>> {
        let ops = self.used.load(Ordering::Relaxed);
        self.keys.get(ops / OPS_PER_KEY)
    }

    /// The keys that operations were made on.
    fn used(&self) -> Vec<Arc<Key>> {
        let ops = self.used.load(Ordering::Relaxed);
        let keys = ops.div_ceil(OPS_PER_KEY);
        self.keys.iter().take(keys).cloned().collect()
    }
}

impl Key {
    fn state(&self) -> MutexGuard<'_, KeyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody was told of the entry there.
    pub(super) fn note(&self, place: Place) {
        let mut state = self.state();
        state.known = state.known.max(Some(place));
    }

    /// An entry that is certainly there, and near the end.
    pub(super) fn known(&self) -> Option<Place> {
        self.state().known
    }

    fn filter(&self) -> Filter {
        Filter {
            hunts: vec![self.name.clone()],
            ..Filter::default()
        }
    }

    fn read_request(&self, from: Option<Place>, consistency: Option<Level>) -> ReadRequest {
        ReadRequest {
            from_offset: from.map_or(0, |place| place.in_partition),
            filter: Some(self.filter()),
            consistency: Some(Consistency { level: consistency }),
            ..ReadRequest::default()
        }
    }

    /// A linearizable read of the entries from `from` on; all of them when there
    /// is none. False when it was not answered.
    pub(super) async fn read(
        &self,
        client: &mut history::Client,
        reader: &Client,
        node: Option<u64>,
        from: Option<Place>,
    ) -> bool {
        let mut op = Read {
            key: self.name.clone(),
            from: from.map_or(0, |place| place.in_key),
            node,
            ..Read::default()
        };
        let open = client.invoke(Op::Read(op.clone()));
        match collect(reader, self.read_request(from, None)).await {
            Ok(events) => {
                self.note_all(&events);
                let entries = values(&events);
                op.end = Some(entries.last().map_or(op.from, |(offset, _)| offset + 1));
                op.entries = Some(entries);
                open.ok(Op::Read(op));
                true
            }
            Err(error) => {
                open.info(error);
                false
            }
        }
    }

    /// A read of a node's own copy, which has to have `known`.
    pub(super) async fn stale_read(
        &self,
        client: &mut history::Client,
        reader: &Client,
        node: u64,
        known: Place,
    ) {
        let mut op = StaleRead {
            key: self.name.clone(),
            from: known.in_key,
            min_offset: known.in_key + 1,
            node: Some(node),
            ..StaleRead::default()
        };
        let open = client.invoke(Op::StaleRead(op.clone()));
        let stale = Level::Stale(Stale {
            min_offset: known.in_partition + 1,
        });
        match collect(reader, self.read_request(Some(known), Some(stale))).await {
            Ok(events) => {
                let entries = values(&events);
                op.end = Some(entries.last().map_or(op.from, |(offset, _)| offset + 1));
                op.entries = Some(entries);
                open.ok(Op::StaleRead(op));
            }
            Err(error) => open.info(error),
        }
    }

    fn note_all(&self, events: &[CommittedEvent]) {
        if let Some(event) = events.last().filter(|event| event.revision > SETUP_EVENTS) {
            self.note(Place {
                in_key: event.revision - 1 - SETUP_EVENTS,
                in_partition: event.offset,
            });
        }
    }

    /// The subscription to it, from where it has come to, at this node.
    fn subscription(&self, node: &Client) -> Subscription {
        let start = Start::Offset(self.state().subscribed);
        node.subscribe(start, Some(self.filter()))
    }

    /// One poll; false when the node did not answer.
    async fn poll(&self, client: &mut history::Client, subscription: &mut Subscription) -> bool {
        let mut op = Poll {
            key: self.name.clone(),
            sub: format!("sub-{}", self.name),
            entries: None,
        };
        let open = client.invoke(Op::Poll(op.clone()));
        match subscription.next_page().await {
            Ok(events) => {
                let entries = values(&events);
                let mut state = self.state();
                state.subscribed = subscription.next_offset().unwrap_or(state.subscribed);
                state.delivered += entries.len() as u64;
                drop(state);
                op.entries = Some(entries);
                open.ok(Op::Poll(op));
                true
            }
            Err(error) => {
                open.info(error);
                false
            }
        }
    }

    async fn drain(
        &self,
        stage: &Stage,
        client: &mut history::Client,
        node: Client,
    ) -> Vec<Finding> {
        let deadline = Instant::now() + DRAIN_LIMIT;
        let mut read = false;
        while !read && Instant::now() < deadline {
            read = self.read(client, &stage.client, None, None).await;
        }
        let stuck = |what: &str| {
            vec![Finding::NotLive(format!(
                "{what} {} did not come to its end within {} s after healing",
                self.name,
                DRAIN_LIMIT.as_secs()
            ))]
        };
        if !read {
            return stuck("reading");
        }
        let end = self.known().map_or(0, |place| place.in_key + 1);
        let mut subscription = self.subscription(&node);
        while self.state().delivered < end {
            // A poll that finds nothing new comes back within a second.
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.poll(client, &mut subscription)).await {
                Ok(true) => {}
                Ok(false) => {
                    tokio::time::sleep(POLL_PAUSE).await;
                    subscription = self.subscription(&stage.client);
                }
                Err(_) => return stuck("the subscription to"),
            }
        }
        Vec::new()
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

async fn collect(client: &Client, request: ReadRequest) -> Result<Vec<CommittedEvent>, CallError> {
    let mut reader = client.read(request);
    let mut events = Vec::new();
    while let Some(page) = reader.next_page().await? {
        events.extend(page);
    }
    Ok(events)
}
