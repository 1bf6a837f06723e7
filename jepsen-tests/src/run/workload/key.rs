//! One key: a hunt whose accepted events are its values, read, polled, and known
//! as far as anybody was told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use huntlog_client::proto::event::Kind;
use huntlog_client::proto::{
    Accepted, Clue, CommittedEvent, Consistency, Filter, HuntDefinition, ReadRequest, Stale,
    consistency::Level,
};
use huntlog_client::{CallError, Client, Start, Subscription, event};

use super::super::stage::NodeClient;
use crate::history::{self, Op, Poll, Read, StaleRead};

/// What precedes a key's values in its hunt: its creation.
const SETUP_EVENTS: u64 = 1;
/// Bytes of a value's event.
const PAYLOAD_BYTES: usize = 64;

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

/// The place of the last of them, if it is a value.
fn last(events: &[CommittedEvent]) -> Option<Place> {
    let event = events
        .last()
        .filter(|event| event.revision > SETUP_EVENTS)?;
    Some(Place {
        in_key: event.revision - 1 - SETUP_EVENTS,
        in_partition: event.offset,
    })
}

/// A hunt that takes custom events from its creation on.
pub(crate) fn definition() -> HuntDefinition {
    HuntDefinition {
        clues: vec![Clue {
            id: "c".to_owned(),
            answers: vec!["a".to_owned()],
            ..Clue::default()
        }],
        ..HuntDefinition::default()
    }
}

impl Key {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            state: Mutex::default(),
        }
    }

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

    /// How many entries the subscription has delivered.
    pub(super) fn delivered(&self) -> u64 {
        self.state().delivered
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
    /// is none. Answers the place of the last.
    pub(super) async fn read(
        &self,
        client: &mut history::Client,
        reader: &Client,
        node: Option<u64>,
        from: Option<Place>,
    ) -> Result<Option<Place>, CallError> {
        let mut op = Read {
            key: self.name.clone(),
            from: from.map_or(0, |place| place.in_key),
            node,
            ..Read::default()
        };
        let open = client.invoke(Op::Read(op.clone()));
        match collect(reader, self.read_request(from, None)).await {
            Ok(events) => {
                let last = last(&events);
                if let Some(last) = last {
                    self.note(last);
                }
                let entries = values(&events);
                op.end = Some(entries.last().map_or(op.from, |(offset, _)| offset + 1));
                op.entries = Some(entries);
                open.ok(Op::Read(op));
                Ok(last)
            }
            Err(error) => {
                open.info(&error);
                Err(error)
            }
        }
    }

    /// A read of a node's own copy from `from` on, all of it when there is none;
    /// the copy has to have `known`, if there is one.
    pub(super) async fn stale_read(
        &self,
        client: &mut history::Client,
        node: &NodeClient,
        from: Option<Place>,
        known: Option<Place>,
    ) -> Result<(), CallError> {
        let mut op = StaleRead {
            key: self.name.clone(),
            from: from.map_or(0, |place| place.in_key),
            min_offset: known.map_or(0, |place| place.in_key + 1),
            node: Some(node.id),
            ..StaleRead::default()
        };
        let open = client.invoke(Op::StaleRead(op.clone()));
        let stale = Level::Stale(Stale {
            min_offset: known.map_or(0, |place| place.in_partition + 1),
        });
        match collect(&node.client, self.read_request(from, Some(stale))).await {
            Ok(events) => {
                let entries = values(&events);
                op.end = Some(entries.last().map_or(op.from, |(offset, _)| offset + 1));
                op.entries = Some(entries);
                open.ok(Op::StaleRead(op));
                Ok(())
            }
            Err(error) => {
                open.info(&error);
                Err(error)
            }
        }
    }

    /// The subscription to it, from where it has come to, at this node.
    pub(super) fn subscription(&self, node: &Client) -> Subscription {
        let start = Start::Offset(self.state().subscribed);
        node.subscribe(start, Some(self.filter()))
    }

    /// One poll.
    pub(super) async fn poll(
        &self,
        client: &mut history::Client,
        subscription: &mut Subscription,
    ) -> Result<(), CallError> {
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
                Ok(())
            }
            Err(error) => {
                open.info(&error);
                Err(error)
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
