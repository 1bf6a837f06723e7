//! Workload `claim`: the players of a hunt go after its treasures, of which there
//! are fewer than players.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::proto::{
    Clue, Event, GetHuntRequest, Hunt, HuntDefinition, RejectReason, Treasure,
};
use huntlog_client::{Client, Producer, event};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::finale::Finding;
use super::super::stage::{Pace, Stage};
use super::clients::Clients;
use super::{SetupError, enough_ops, unacknowledged, workers};
use crate::history::{self, Claim, Op, Who};

/// Players of a hunt, each of whom claims every treasure once.
const PLAYERS: u32 = 8;
const TREASURES: usize = 20;
/// Treasures can be won by one player, by two, by three.
const LIMITS: usize = 3;

/// Between two attempts to ask for the winners at the end.
const PAUSE: Duration = Duration::from_millis(150);

/// Groups of players that go from hunt to hunt.
#[derive(Debug)]
pub(super) struct Claims {
    groups: Vec<Group>,
    rate: u32,
}

#[derive(Debug)]
struct Group {
    hunts: Arc<Vec<String>>,
    /// How many of them somebody has begun with.
    begun: Arc<AtomicUsize>,
}

fn treasure(number: usize) -> String {
    format!("t{number}")
}

fn limit(number: usize) -> u64 {
    (number % LIMITS) as u64 + 1
}

fn definition() -> HuntDefinition {
    let treasure = |number| Treasure {
        id: treasure(number),
        limit: u32::try_from(limit(number)).expect("a few"),
        points: 1,
        ..Treasure::default()
    };
    HuntDefinition {
        clues: vec![Clue {
            id: "c".to_owned(),
            answers: vec!["a".to_owned()],
            ..Clue::default()
        }],
        treasures: (0..TREASURES).map(treasure).collect(),
        ..HuntDefinition::default()
    }
}

fn player(number: u32) -> String {
    format!("player-{number}")
}

/// Everything up to a running hunt.
fn setup(hunt: &str) -> Vec<Event> {
    let registered = (0..PLAYERS).map(|number| event::player_registered(hunt, &player(number), ""));
    [
        event::hunt_created(hunt, definition()),
        event::hunt_opened(hunt),
    ]
    .into_iter()
    .chain(registered)
    .chain([event::hunt_started(hunt)])
    .collect()
}

impl Claims {
    pub(super) fn new(stage: &Stage, rate: u32) -> Self {
        let groups = usize::try_from(workers(rate).div_ceil(PLAYERS)).expect("a few");
        let claims = usize::try_from(enough_ops(stage, rate)).unwrap_or(usize::MAX);
        let hunts = claims / (TREASURES * PLAYERS as usize * groups) + 1;
        let group = |group| Group {
            hunts: Arc::new((0..hunts).map(|hunt| format!("c{group}-{hunt}")).collect()),
            begun: Arc::new(AtomicUsize::new(0)),
        };
        Self {
            groups: (0..groups).map(group).collect(),
            rate,
        }
    }

    pub(super) async fn start(
        &self,
        stage: &Arc<Stage>,
        clients: &mut Clients,
    ) -> Result<(), SetupError> {
        let session = stage.client.session("setup-claim").await?;
        let hunts: Vec<&String> = self.groups.iter().flat_map(|group| &*group.hunts).collect();
        for hunts in hunts.chunks(20) {
            let events = hunts.iter().flat_map(|hunt| setup(hunt)).collect();
            session.append_batch(events).await?.await?;
        }
        session.close().await?;
        let claimants = u32::try_from(self.groups.len()).expect("a few") * PLAYERS;
        for (number, group) in self.groups.iter().enumerate() {
            for player in 0..PLAYERS {
                let claimant = Claimant {
                    stage: Arc::clone(stage),
                    client: stage.recorder.client(),
                    random: stage.random(&format!("claim-{number}-{player}")),
                    name: format!("claimant-{number}-{player}"),
                    openings: 0,
                    session: None,
                };
                let hunts = Arc::clone(&group.hunts);
                let begun = Arc::clone(&group.begun);
                let pace = Pace::new(self.rate, claimants);
                let name = claimant.name.clone();
                clients.spawn(name, claimant.run(player, hunts, begun, pace));
            }
        }
        Ok(())
    }

    /// Asks who has won each treasure that anybody can have claimed.
    pub(super) async fn drain(&self, stage: &Stage, deadline: Instant) -> Vec<Finding> {
        let mut clients: Vec<history::Client> =
            (0..TREASURES).map(|_| stage.recorder.client()).collect();
        for group in &self.groups {
            let begun = group.begun.load(Ordering::Relaxed);
            for hunt in group.hunts.iter().take(begun) {
                let asked = async {
                    while !ask_all(&mut clients, stage, hunt).await {
                        sleep(PAUSE).await;
                    }
                };
                if timeout_at(deadline, asked).await.is_err() {
                    let what =
                        format!("after healing, nobody says who has won the treasures of {hunt}");
                    return vec![Finding::NotLive(what)];
                }
            }
        }
        Vec::new()
    }
}

/// Asks once for all treasures of a hunt; false when nobody answered.
async fn ask_all(clients: &mut [history::Client], stage: &Stage, hunt: &str) -> bool {
    let who = |number| Who {
        key: format!("{hunt}/{}", treasure(number)),
        winners: None,
    };
    let open: Vec<_> = clients
        .iter_mut()
        .enumerate()
        .map(|(number, client)| client.invoke(Op::Who(who(number))))
        .collect();
    let answer = stage.heard_call(get(&stage.client, hunt).await);
    for (number, open) in open.into_iter().enumerate() {
        match &answer {
            Ok(hunt) => open.ok(Op::Who(Who {
                winners: Some(winners(hunt, number)),
                ..who(number)
            })),
            Err(error) => open.info(error),
        }
    }
    answer.is_ok()
}

async fn get(client: &Client, hunt: &str) -> Result<Hunt, huntlog_client::CallError> {
    let request = GetHuntRequest {
        hunt: hunt.to_owned(),
        ..GetHuntRequest::default()
    };
    Ok(client.hunt(request).await?.hunt.unwrap_or_default())
}

fn winners(hunt: &Hunt, number: usize) -> Vec<String> {
    let treasure = treasure(number);
    let stats = hunt
        .treasures
        .iter()
        .find(|stats| stats.treasure == treasure);
    stats.map(|stats| stats.winners.clone()).unwrap_or_default()
}

struct Claimant {
    stage: Arc<Stage>,
    client: history::Client,
    random: SmallRng,
    name: String,
    openings: u32,
    session: Option<Producer>,
}

impl Claimant {
    async fn run(
        mut self,
        player_number: u32,
        hunts: Arc<Vec<String>>,
        begun: Arc<AtomicUsize>,
        mut pace: Pace,
    ) {
        for (number, hunt) in hunts.iter().enumerate() {
            begun.fetch_max(number + 1, Ordering::Relaxed);
            for treasure in 0..TREASURES {
                if !pace.next(&self.stage).await {
                    return;
                }
                self.claim(hunt, treasure, &player(player_number)).await;
                if self.random.random_range(0..8) == 0 {
                    self.who(hunt, treasure).await;
                }
            }
        }
    }

    async fn session(&mut self) -> Option<&Producer> {
        if self.session.is_none() {
            let name = format!("{}-{}", self.name, self.openings);
            self.openings += 1;
            let opened = self.stage.client.session(&name).await;
            self.session = Some(self.stage.heard_call(opened).ok()?);
        }
        self.session.as_ref()
    }

    async fn claim(&mut self, hunt: &str, number: usize, player: &str) {
        let claimed = event::treasure_claimed(hunt, player, &treasure(number));
        if self.session().await.is_none() {
            return;
        }
        let session = self.session.as_ref().expect("just opened");
        let mut claim = Claim {
            key: format!("{hunt}/{}", treasure(number)),
            player: player.to_owned(),
            limit: Some(limit(number)),
            ..Claim::default()
        };
        let open = self.client.invoke(Op::Claim(claim.clone()));
        let answer = match session.append_batch(vec![claimed]).await {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        let failed = match self.stage.heard_append(answer) {
            Ok(appended) => {
                let outcome = appended
                    .outcomes
                    .as_ref()
                    .and_then(|outcomes| outcomes.first()?.outcome.as_ref());
                claim.won = match outcome {
                    Some(Outcome::Accepted(_)) => Some(true),
                    Some(Outcome::Rejected(rejected))
                        if rejected.reason() == RejectReason::TreasureExhausted =>
                    {
                        Some(false)
                    }
                    _ => None,
                };
                if claim.won.is_some() {
                    open.ok(Op::Claim(claim));
                    false
                } else {
                    open.info(format!("answered {outcome:?}"));
                    true
                }
            }
            Err(error) => {
                unacknowledged(open, &error);
                true
            }
        };
        if failed {
            self.session = None;
        }
    }

    async fn who(&mut self, hunt: &str, number: usize) {
        let node = self.stage.node(&mut self.random);
        let mut who = Who {
            key: format!("{hunt}/{}", treasure(number)),
            winners: None,
        };
        let open = self.client.invoke(Op::Who(who.clone()));
        match self.stage.heard_call(get(&node.client, hunt).await) {
            Ok(hunt) => {
                who.winners = Some(winners(&hunt, number));
                open.ok(Op::Who(who));
            }
            Err(error) => open.info(error),
        }
    }
}
