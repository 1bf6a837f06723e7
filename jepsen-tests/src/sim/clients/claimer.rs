//! A player who claims each treasure once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_client::proto::effect::Effect;
use huntlog_client::proto::event_outcome::Outcome;
use huntlog_client::{Disposition, event};
use parking_lot::Mutex;

use super::{Phase, Program, Shared, claim_key};
use crate::history::{Claim, Op};
use crate::sim::random::Random;

pub(in crate::sim) struct Claimer {
    pub(in crate::sim) serial: u64,
    /// How often each treasure can be won, by key.
    pub(in crate::sim) limits: Vec<u64>,
    pub(in crate::sim) disk: Mutex<Disk>,
}

pub(in crate::sim) struct Disk {
    random: Random,
    claimed: usize,
    /// A claim is under way.
    busy: bool,
}

impl Disk {
    pub(in crate::sim) fn new(random: Random) -> Self {
        Self {
            random,
            claimed: 0,
            busy: false,
        }
    }
}

/// The player's name.
pub(in crate::sim) fn player(serial: u64) -> String {
    format!("player-{serial}")
}

impl Program for Claimer {
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let client = {
                let mut disk = self.disk.lock();
                shared.connect(ip, None, &mut disk.random)
            };
            self.disk.lock().busy = false;
            while self.disk.lock().claimed < self.limits.len() {
                let pause = Duration::from_millis(self.disk.lock().random.below(6_000));
                shared.pause(pause).await;
                if shared.phase() == Phase::Draining {
                    return;
                }
                self.disk.lock().busy = true;
                let session = format!("claimer-{}", self.serial);
                let Ok(producer) = client.session(&session).await else {
                    self.disk.lock().busy = false;
                    continue;
                };
                let index = {
                    let mut disk = self.disk.lock();
                    disk.claimed += 1;
                    disk.claimed - 1
                };
                let key = claim_key(index as u64);
                let player = player(self.serial);
                let op = |won| {
                    Op::Claim(Claim {
                        key: key.clone(),
                        player: player.clone(),
                        limit: Some(self.limits[index]),
                        won,
                        winner: None,
                    })
                };
                let mut recording = shared.recorder.client();
                let invoked = recording.invoke(op(None));
                let claim = event::treasure_claimed(&key, &player, "chest");
                let answer = match producer.append(claim).await {
                    Ok(ticket) => ticket.await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(appended) => match appended.outcome.and_then(|outcome| outcome.outcome) {
                        Some(Outcome::Accepted(accepted)) => {
                            let won = accepted.effects.iter().any(|effect| {
                                matches!(effect.effect, Some(Effect::TreasureWon(_)))
                            });
                            shared.coverage.lock().claims += 1;
                            invoked.ok(op(Some(won)));
                        }
                        Some(Outcome::Rejected(_)) => {
                            shared.coverage.lock().claims += 1;
                            invoked.ok(op(Some(false)));
                        }
                        None => invoked.info("applied; its outcome is kept no more"),
                    },
                    Err(error) => {
                        shared.judge_append(&error);
                        match error.disposition() {
                            Disposition::NotApplied => invoked.fail(error),
                            Disposition::Unknown => invoked.info(error),
                        }
                    }
                }
                self.disk.lock().busy = false;
            }
        })
    }

    fn done(&self, _: Phase) -> bool {
        true
    }

    fn quiet(&self) -> bool {
        !self.disk.lock().busy
    }

    fn name(&self) -> String {
        format!("claimer {}", self.serial)
    }
}
