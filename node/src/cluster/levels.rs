//! Putting a feature level in force: by an operator who ends an upgrade, or by
//! the first leader of a cluster that is being formed.
//!
//! The leader asks every member, learners too, which levels its release reads, and
//! proposes a level only when all have answered and all read it: what is in the
//! log then stops nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use huntlog_machine::{CommandResult, LevelRange, encode_raise_level, release_of};
use huntlog_proto::peer;

use super::hello::{greet_member, levels_told};
use super::member_error::MemberError;
use super::members::{Change, MemberChanger};
use crate::limits;
use crate::partition::{Members, Partition};
use crate::raft::NodeId;

/// A level that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// The level.
    pub level: u32,
    /// Whether it is new.
    pub change: Change,
    /// Members that have not applied it yet.
    pub behind: Vec<NodeId>,
}

/// What a member says of its release.
struct Told {
    release: String,
    levels: LevelRange,
}

impl MemberChanger {
    /// Puts the highest level in force that any member reads, once all read it.
    ///
    /// # Errors
    /// When a member does not answer, or does not read it; then nothing was
    /// changed. [`MemberError::Unfinished`] when it is not known to be in force.
    pub async fn finalize(&self, partition: &Arc<Partition>) -> Result<Raised, MemberError> {
        // Meanwhile nobody is added who was not asked.
        let (permit, members) = self.begin(partition).await?;
        let told = self.ask_levels(partition, &members).await?;
        // What an earlier leader has put in force is known once it is applied here.
        let deadline = Instant::now() + limits::HELLO_TIMEOUT;
        partition
            .linearizable(deadline)
            .await
            .map_err(|_| MemberError::NotLeader(partition.id()))?;
        let have = partition.level();
        let need = told.values().map(|told| told.levels.max).max();
        let need = need.unwrap_or(have).max(have);
        check_levels(have, need, told)?;
        let change = match need > have {
            true => {
                raise(partition, need, Some(permit)).await?;
                Change::Made
            }
            false => Change::AlreadyMade,
        };
        Ok(Raised {
            level: partition.level(),
            change,
            behind: self.wait_for_level(partition, &members, need).await,
        })
    }

    /// What every member says of its release, this node included.
    async fn ask_levels(
        &self,
        partition: &Partition,
        members: &Members,
    ) -> Result<BTreeMap<NodeId, Told>, MemberError> {
        let own = self.state().identity().local();
        let mut told = BTreeMap::from([(
            own.node_id,
            Told {
                release: env!("CARGO_PKG_VERSION").to_owned(),
                levels: own.levels,
            },
        )]);
        let mut silent = Vec::new();
        for (id, answer) in self.greet_all(members).await {
            match answer {
                Ok(answer) => {
                    let levels = levels_told(&answer);
                    let release = answer.release;
                    told.insert(id, Told { release, levels });
                }
                Err(why) => silent.push((id, why)),
            }
        }
        match silent.is_empty() {
            true => Ok(told),
            false => Err(MemberError::LevelSilent {
                have: partition.level(),
                silent,
            }),
        }
    }

    /// The answers of all other members, as themselves.
    async fn greet_all(
        &self,
        members: &Members,
    ) -> Vec<(NodeId, Result<peer::HelloResponse, String>)> {
        let own = self.state().identity().local();
        let questions = members
            .nodes
            .iter()
            .filter(|(id, _)| **id != own.node_id)
            .map(async |(id, node)| {
                let answer = greet_member(&own, self.state().peers(), *id, node).await;
                (*id, answer)
            });
        futures::future::join_all(questions).await
    }

    /// Waits a moment until every member has applied `level`, so that clients can
    /// use it on whichever node they ask; answers who has not.
    async fn wait_for_level(
        &self,
        partition: &Partition,
        members: &Members,
        level: u32,
    ) -> Vec<NodeId> {
        let started = Instant::now();
        loop {
            let answers = self.greet_all(members).await.into_iter();
            let behind: Vec<NodeId> = answers
                .filter(|(_, answer)| {
                    let answer = answer.as_ref().ok();
                    let levels = answer.into_iter().flat_map(|answer| &answer.levels);
                    let mut here = levels.filter(|told| told.partition == partition.id());
                    here.next().is_none_or(|told| told.feature_level < level)
                })
                .map(|(id, _)| id)
                .collect();
            if behind.is_empty() || started.elapsed() > limits::HELLO_TIMEOUT {
                return behind;
            }
            tokio::time::sleep(limits::RETRY_DELAY_NO_LEADER).await;
        }
    }
}

fn check_levels(have: u32, need: u32, told: BTreeMap<NodeId, Told>) -> Result<(), MemberError> {
    let unable: Vec<_> = told
        .into_iter()
        .filter(|(_, told)| !told.levels.contains(need))
        .map(|(id, told)| (id, told.release, told.levels))
        .collect();
    match unable.is_empty() {
        true => Ok(()),
        false => Err(MemberError::LevelsDiffer { have, need, unable }),
    }
}

/// Proposes `level`, and answers when this node has applied it. What `held` keeps
/// others from is kept from them until its outcome is known.
async fn raise<T: Send + 'static>(
    partition: &Partition,
    level: u32,
    held: T,
) -> Result<(), MemberError> {
    let started = Instant::now();
    // A member of a later release may read levels that this one does not name; it
    // is not the one to put them in force.
    if release_of(level).is_none() {
        return Err(MemberError::NotLeader(partition.id()));
    }
    let receiver = partition
        .submit(encode_raise_level(level))
        .map_err(|_| MemberError::NotLeader(partition.id()))?;
    let unfinished = |cause: String| MemberError::Unfinished {
        after: started.elapsed(),
        cause,
    };
    let raising = tokio::spawn(async move {
        let raised = receiver.await;
        drop(held);
        raised
    });
    match tokio::time::timeout(limits::MEMBER_CHANGE_TIMEOUT, raising).await {
        Ok(Ok(Ok(Ok(committed)))) => match committed.result {
            CommandResult::Level(_) => Ok(()),
            _ => unreachable!("the raising of a level is answered as such"),
        },
        Ok(Ok(Ok(Err(error)))) if error.not_applied() => {
            Err(MemberError::NotLeader(partition.id()))
        }
        Ok(Ok(Ok(Err(error)))) => Err(unfinished(error.to_string())),
        Ok(Ok(Err(_))) => Err(unfinished("this node's proposer has ended".to_owned())),
        Ok(Err(panic)) => Err(unfinished(panic.to_string())),
        Err(_) => Err(unfinished("too few voters have acknowledged it".to_owned())),
    }
}

/// Puts the level in force at which the cluster was formed, as soon as this node
/// leads; ends when it is, or with Raft.
pub async fn raise_to_founding_level(changer: Arc<MemberChanger>, partition: Arc<Partition>) {
    while partition.led_here().await.is_some() {
        let founding = changer.state().identity().founding_level();
        let founding = founding.unwrap_or_else(|_| partition.level());
        if partition.level() >= founding {
            return;
        }
        let members = partition.effective_members();
        let raised = match changer.ask_levels(&partition, &members).await {
            Ok(told) => match check_levels(partition.level(), founding, told) {
                Ok(()) => raise(&partition, founding, ()).await,
                refused => refused,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = raised {
            tracing::info!(%error, founding, "the level at which the cluster was formed is not in force yet");
            tokio::time::sleep(limits::RETRY_DELAY_UNAVAILABLE).await;
        }
    }
}
