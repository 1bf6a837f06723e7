//! The operator: sets the hunts up, and then does what operators do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_client::proto::{Clue, Event, HuntDefinition, NodeAddress, Treasure};
use huntlog_client::{CallError, Client, event};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::claimer::player;
use super::{Phase, Program, Shared, claim_key, log_key};
use crate::history::Phase as FaultPhase;
use crate::sim::nemesis;
use crate::sim::node::{client_address, peer_address};
use crate::sim::random::Random;

/// Something to be done to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sim) enum Order {
    TransferLeader,
    Snapshot { node: u64 },
    Drain { node: u64, undo: bool },
    Add { node: u64 },
    Promote { node: u64 },
    Remove { node: u64 },
    Finalize,
}

pub(in crate::sim) struct Operator {
    pub(in crate::sim) keys: u64,
    /// How often each treasure can be won.
    pub(in crate::sim) limits: Vec<u64>,
    pub(in crate::sim) players: u64,
    pub(in crate::sim) state: Mutex<State>,
    pub(in crate::sim) ordered: Notify,
}

pub(in crate::sim) struct State {
    random: Random,
    set_up: bool,
    pub(in crate::sim) orders: Vec<Order>,
    pub(in crate::sim) busy: bool,
    /// Nodes whose removal has been asked for.
    pub(in crate::sim) removals: BTreeSet<u64>,
    /// Those of which it is known that they are no members any more.
    pub(in crate::sim) removed: BTreeSet<u64>,
    /// An order that changes the members is being carried out.
    changing: bool,
    /// Nodes that are out of service.
    drained: BTreeSet<u64>,
    /// How often it is to put a level in force, and has not come to it yet.
    to_finalize: u64,
}

impl State {
    pub(in crate::sim) fn new(random: Random) -> Self {
        Self {
            random,
            set_up: false,
            orders: Vec::new(),
            busy: false,
            removals: BTreeSet::new(),
            removed: BTreeSet::new(),
            changing: false,
            drained: BTreeSet::new(),
            to_finalize: 0,
        }
    }
}

impl Order {
    fn changes_members(&self) -> bool {
        matches!(
            self,
            Self::Add { .. } | Self::Promote { .. } | Self::Remove { .. }
        )
    }
}

impl Operator {
    /// Whether the members change no more, unless there is another order.
    pub(in crate::sim) fn leaves_members(&self) -> bool {
        let state = self.state.lock();
        !state.changing && !state.orders.iter().any(Order::changes_members)
    }

    /// Whether it is through with every level that it was to put in force.
    pub(in crate::sim) fn is_finalized(&self) -> bool {
        self.state.lock().to_finalize == 0
    }

    pub(in crate::sim) fn is_set_up(&self) -> bool {
        self.state.lock().set_up
    }

    pub(in crate::sim) fn order(&self, order: Order) {
        let mut state = self.state.lock();
        state.to_finalize += u64::from(order == Order::Finalize);
        state.orders.push(order);
        drop(state);
        self.ordered.notify_one();
    }

    /// Everything up to the first event that counts.
    fn setup(&self) -> Vec<Vec<Event>> {
        let logs = (0..self.keys).map(|index| (log_key(index), definition(Vec::new())));
        let claims = self.limits.iter().enumerate().map(|(index, limit)| {
            let chest = Treasure {
                id: "chest".to_owned(),
                limit: u32::try_from(*limit).expect("a few"),
                ..Treasure::default()
            };
            (claim_key(index as u64), definition(vec![chest]))
        });
        logs.map(|(key, definition)| (key, definition, 0))
            .chain(claims.map(|(key, definition)| (key, definition, self.players)))
            .map(|(key, definition, players)| {
                let mut events = vec![
                    event::hunt_created(&key, definition),
                    event::hunt_opened(&key),
                ];
                let names = (0..players).map(player);
                events.extend(names.map(|name| event::player_registered(&key, &name, "")));
                events.push(event::hunt_started(&key));
                events
            })
            .collect()
    }

    async fn set_up(&self, client: &Client) {
        let mut name = "operator".to_owned();
        let producer = loop {
            match client.session(&name).await {
                Ok(producer) => break producer,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            // An opening that was given up may arrive yet, and would fence the next.
            name.push('+');
        };
        for events in self.setup() {
            let ticket = producer.append_batch(events).await;
            // Nothing is broken yet: what is not set up now is a fault.
            let appended = match ticket {
                Ok(ticket) => ticket.await,
                Err(error) => Err(error),
            };
            if let Err(error) = appended {
                tracing::error!(%error, "the hunts could not be set up");
                return;
            }
        }
        self.state.lock().set_up = true;
    }

    async fn carry_out(&self, client: &Client, shared: &Shared, ip: IpAddr, order: Order) {
        let partition = client.partition();
        let done = match &order {
            Order::TransferLeader => client.transfer_leader(0).await.map(drop),
            Order::Snapshot { node } => {
                let one = shared.connect(ip, Some(*node), &mut self.state.lock().random);
                one.take_snapshot().await.map(drop)
            }
            Order::Drain { node, undo } => {
                let one = shared.connect(ip, Some(*node), &mut self.state.lock().random);
                one.drain_node(*undo).await.map(drop)
            }
            Order::Add { node } => {
                let address = NodeAddress {
                    node_id: *node,
                    peer_address: peer_address(*node),
                    client_address: client_address(*node),
                };
                client.add_member(address).await.map(drop)
            }
            Order::Promote { node } => client.promote_member(*node, false).await.map(drop),
            Order::Remove { node } => {
                self.state.lock().removals.insert(*node);
                client.remove_member(*node, false).await.map(drop)
            }
            Order::Finalize => {
                let done = self.finalize(client, shared).await;
                self.state.lock().to_finalize -= 1;
                done
            }
        };
        match done {
            Ok(()) => {
                tracing::info!(?order, partition, "done");
                self.note_done(shared, &order);
            }
            Err(error) => tracing::info!(?order, %error, "not done"),
        }
    }

    /// Puts a level in force; once everything is healed it does not take a no for an
    /// answer, since everybody is there and upgraded, or will be.
    async fn finalize(&self, client: &Client, shared: &Shared) -> Result<(), CallError> {
        loop {
            let done = client.finalize_upgrade().await;
            if done.is_ok() || shared.phase() == Phase::Chaos {
                return done.map(drop);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Takes the fault down that an order is, now that it has taken effect.
    fn note_done(&self, shared: &Shared, order: &Order) {
        let start = |name, nodes: &[u64]| shared.fault(name, FaultPhase::Start, nodes);
        match order {
            Order::TransferLeader => start(nemesis::TRANSFER_LEADER, &[]),
            Order::Finalize => start(nemesis::FINALIZE, &[]),
            Order::Snapshot { node } => start(nemesis::SNAPSHOT, &[*node]),
            Order::Drain { node, undo: false } => {
                self.state.lock().drained.insert(*node);
                start(nemesis::DRAIN, &[*node]);
            }
            Order::Drain { node, undo: true } => {
                if self.state.lock().drained.remove(node) {
                    shared.fault(nemesis::DRAIN, FaultPhase::Stop, &[*node]);
                }
            }
            Order::Add { node } => {
                shared.coverage.lock().members_added += 1;
                start(nemesis::MEMBER, &[*node]);
            }
            Order::Promote { node } => {
                shared.coverage.lock().members_promoted += 1;
                start(nemesis::MEMBER, &[*node]);
            }
            Order::Remove { node } => {
                self.state.lock().removed.insert(*node);
                shared.coverage.lock().members_removed += 1;
                start(nemesis::MEMBER, &[*node]);
            }
        }
    }
}

fn definition(treasures: Vec<Treasure>) -> HuntDefinition {
    let clue = Clue {
        id: "well".to_owned(),
        title: "The well".to_owned(),
        points: 1,
        answers: vec!["water".to_owned()],
        ..Clue::default()
    };
    HuntDefinition {
        title: "Simulated".to_owned(),
        clues: vec![clue],
        treasures,
        ..HuntDefinition::default()
    }
}

impl Program for Operator {
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let client = {
                let mut state = self.state.lock();
                shared.connect(ip, None, &mut state.random)
            };
            if !self.is_set_up() {
                self.set_up(&client).await;
            }
            loop {
                let order = {
                    let mut state = self.state.lock();
                    state.busy = !state.orders.is_empty();
                    let next = state.busy.then(|| state.orders.remove(0));
                    state.changing = next.as_ref().is_some_and(Order::changes_members);
                    next
                };
                match order {
                    Some(order) => self.carry_out(&client, &shared, ip, order).await,
                    None => self.ordered.notified().await,
                }
            }
        })
    }

    fn done(&self, _: Phase) -> bool {
        true
    }

    fn is_workload(&self) -> bool {
        false
    }

    fn name(&self) -> String {
        "operator".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_left_once_no_order_changes_them() {
        let operator = Operator {
            keys: 1,
            limits: Vec::new(),
            players: 0,
            state: Mutex::new(State::new(Random::new(1, 1))),
            ordered: Notify::new(),
        };
        operator.order(Order::Drain {
            node: 1,
            undo: true,
        });
        assert!(operator.leaves_members());
        operator.order(Order::Remove { node: 1 });
        assert!(!operator.leaves_members());
        operator.state.lock().orders.clear();
        operator.state.lock().changing = true;
        assert!(!operator.leaves_members());
    }
}
